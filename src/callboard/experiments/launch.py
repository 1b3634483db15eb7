"""Running rows of the table as DVC experiments of the same names."""

import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.core.workspace import main_workspace
from callboard.experiments.jobs import enqueue, keep
from callboard.experiments.jobs.copies import Snapshot, snapshot
from callboard.experiments.jobs.local import Workers
from callboard.experiments.jobs.options import LOCAL, JobOptions
from callboard.experiments.jobs.worker import CopyJob
from callboard.experiments.overrides import (
    hydra_overrides,
    overridden,
    refuse_bad_params,
    with_signs,
)
from callboard.experiments.side_by_side import Planned, run_side_by_side, stopped
from callboard.experiments.table import ExperimentTable, TableRow, read_experiments
from callboard.params.base import read_tree
from callboard.params.defaults import read_full_tree, result_params
from callboard.params.references import REFERENCE_KEYS, referenced_results
from callboard.results.committed import params_of
from callboard.results.dvc_cache import MAKE_FOLDERS, folders_not_cached
from callboard.results.git import git, git_if_any, text_at
from callboard.results.refs import experiment_ref, refs_in_git
from callboard.results.result import ResultRef, changes

LISTING = "recordings"
"""Stage that lists the content of a folder of recordings; it always runs."""


@dataclass(frozen=True)
class RunOptions:
    """Options of running experiments, each in its own copy of the workspace, which itself stays unchanged.

    Run in the workspace itself, what one row sets alone, or the user adds, would stay in params.yaml for the
    next row. Only a workspace without dvc.lock gets the dvc.lock of its first result.
    """

    is_queued: bool = False
    """Whether the experiment is left to `dvc queue start`."""
    is_forced: bool = False
    """Whether every stage is run again, and an existing experiment of that name is replaced."""
    jobs: JobOptions = field(default_factory=JobOptions)
    """How stages of a matrix run, unless queued or forced."""

    def __post_init__(self) -> None:
        """Refuse options that exclude each other.

        Raises:
            UserError: the message names them.
        """
        option = "--on" if self.jobs.place != LOCAL else "--shards" if self.jobs.shards else ""
        if option and (self.is_queued or self.is_forced):
            raise UserError(f"{option} and {'--queue' if self.is_queued else '--force'} exclude each other")

    @property
    def is_side_by_side(self) -> bool:
        """Whether folds and other stages of a matrix run side by side."""
        return not self.is_queued and not self.is_forced and _is_side_by_side(self.jobs)


def run_rows(
    names: Sequence[str],
    options: RunOptions,
    extra: Sequence[str] = (),
    seeds: Sequence[int | None] = (None,),
) -> int:
    """Run rows, each as an experiment of its name.

    They run one after the other, up to the first that fails, or side by side, where one that fails leaves the
    others alone. Rows whose results a row needs run before it, unless they are finished with their current
    parameters. An experiment that already exists on the current commit is skipped, unless `options` is
    forced, which applies only to the requested rows. Extra overrides do not change the names: a whole table
    can be run at a smaller scale.

    Args:
        names: Rows, in the order to run them.
        options: How to run them.
        extra: The user's overrides, for every row, including needed ones.
        seeds: Seeds to run all rows with, including needed ones; the experiments are then named `NAME-seedN`.
            None = that of params.yaml, or the one that a row sets alone.

    Returns:
        Exit status of the run that failed, or 0.

    Raises:
        UserError: before anything has run, if a name is not a row, a row is not an experiment, a parameter is
            wrong, or a queued row needs one that is not finished; later, if an experiment of that name exists
            with different parameters.
    """
    plans = [_plan_rows(names, options, extra, seed) for seed in seeds]
    lock = threading.RLock()
    planned = [
        _planned(plan, name, options if name in names else None, lock)
        for plan, order in plans
        for name in order
    ]
    return run_planned(planned, options)


def run_planned(planned: Sequence[Planned], options: RunOptions) -> int:
    """Run experiments, one after the other up to the first that fails, or side by side.

    Returns:
        Exit status of the run that failed, or 0; `STOPPED` after Ctrl-C.
    """
    if options.is_side_by_side:
        return run_side_by_side(planned, options.jobs)
    try:
        with snapshot(main_workspace()) as source:
            for position, experiment in enumerate(planned):
                overrides = experiment.overrides()
                if overrides is not None and (status := experiment.finish(overrides, source, Workers())):
                    left = ", ".join(other.name for other in planned[position + 1 :])
                    said = f"error: {experiment.name} failed{left and f'; not run: {left}'}"
                    print(said, file=sys.stderr, flush=True)
                    return status
    except KeyboardInterrupt:
        return stopped()
    return 0


def _planned(plan: "Plan", name: str, options: RunOptions | None, lock: threading.RLock) -> Planned:
    """Describe how a row is run.

    Args:
        plan: The plan that it belongs to.
        name: The row.
        options: How to run it; None if only others need it.
        lock: Held while the plan is used, since rows side by side use it on different threads.
    """
    how, experiment_name = options or RunOptions(), plan.experiment_name(name)

    def overrides() -> list[str] | None:
        with lock:
            if options is None and plan.finished(name):
                return None
            found = plan.overrides(name)
            if not how.is_forced and (experiment := experiment_of(experiment_name)):
                plan.refuse_other_params(name, experiment)
                again = plan.command("--force", name)
                print(f"{experiment_name} exists on this commit; `{again}` runs it again", flush=True)
                return None
            return found

    def finish(found: list[str], source: Snapshot, here: Workers) -> int:
        status = run_experiment(experiment_name, found, how, source, here)
        with lock:
            plan.forget()
            if status:
                _report_lost_folders()
            elif not how.is_queued:
                _bring_first_result(experiment_of(experiment_name))
        return status

    needs = [plan.experiment_name(part) for part in plan.table.needs(name)]
    return Planned(experiment_name, needs, overrides, finish)


@dataclass(frozen=True)
class Plan:
    """The experiments that rows of the table would become if run now."""

    table: ExperimentTable
    tree: dict[str, Any]
    """Nested sections of params.yaml, without defaults of omitted keys."""
    extra: Sequence[str] = ()
    """The user's overrides, for every row."""
    seed: int | None = None
    """Seed of every row; None = that of params.yaml, or the one that a row sets alone."""
    _found: dict[str, ResultRef | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Cached results of `finished`."""

    def experiment_name(self, name: str) -> str:
        """Return the name of a row's experiment."""
        return name if self.seed is None else f"{name}-seed{self.seed}"

    def command(self, *arguments: str) -> str:
        """Return the command `callboard run` with these arguments and this plan's seed and overrides."""
        seed = [] if self.seed is None else ["--seed", str(self.seed)]
        extra = [word for override in self.extra for word in ("-S", override)]
        return shlex.join(["callboard", "run", *arguments, *seed, *extra])

    def refuse_other_params(self, name: str, experiment: str) -> None:
        """Refuse an existing experiment of a row's name if its parameters are not the row's current ones.

        Raises:
            UserError: the parameters differ, or the row needs one that is not finished.
        """
        if differences := changes(params_of(experiment), self.params(name)):
            raise UserError(
                f"{self.experiment_name(name)} exists on this commit with different parameters "
                f"({', '.join(differences)}); `{self.command('--force', name)}` replaces it"
            )

    def order(self, names: Sequence[str]) -> list[str]:
        """Return the rows and all rows that they need, each once and after those that it needs.

        Raises:
            UserError: a name is not a row, or a row is not an experiment.
        """
        found: dict[str, None] = {}
        for name in names:
            row = experiment_row(self.table, name)
            found |= dict.fromkeys(self.order(self.table.needs(row.name)))  # all above it: this ends
            found[name] = None
        return list(found)

    def overrides(self, name: str) -> list[str]:
        """Return the `dvc exp run -S` arguments that lead from the workspace's parameters to a row's.

        The user's own come last.

        Raises:
            UserError: the row needs one that is not finished.
        """
        return self._overrides(name, lambda part: self._reference(name, part))

    def preview(self, name: str) -> list[str]:
        """Return `overrides` with names of experiments instead of references to results, finished or not."""
        return self._overrides(name, self.experiment_name)

    def refuse_bad_params(self, name: str) -> None:
        """Refuse a row whose parameters the stage `check` would refuse, before anything runs.

        Raises:
            UserError: the message lists all problems.
        """
        refuse_bad_params(self._overrides(name, lambda part: f"{self.experiment_name(part)}@{'0' * 16}"))

    @cached_property
    def _sized_by(self) -> dict[str, Any]:
        """Sections of params.yaml with the user's overrides: rows are sized as if they were written there."""
        if not self.extra:
            return self.tree
        with overridden(with_signs(self.extra, self.tree), json.dumps(self.tree)) as changed:
            return read_tree(changed)

    def _overrides(self, name: str, refer: Callable[[str], str]) -> list[str]:
        """Build the overrides, with each needed row replaced by what `refer` returns for it."""
        values = dict(self.table.overrides(name, self.tree, self._sized_by))
        for key in REFERENCE_KEYS.keys() & values.keys():
            references = {part: refer(part) for part in referenced_results({key: values[key]})}
            values[key] = _replaced(values[key], references)
        own_seed = {} if self.seed is None else {"seed": self.seed}
        return with_signs([*_as_text((values | own_seed).items()), *self.extra], self.tree)

    def params(self, name: str) -> dict[str, str]:
        """Return the flat parameters of a row if it were run now.

        Raises:
            UserError: the row needs one that is not finished.
        """
        return with_overrides(self.overrides(name))

    def finished(self, name: str) -> ResultRef | None:
        """Return a row's newest result with exactly the parameters that it would have if run now, or None.

        Results are cached until `forget`, since a long chain looks up its first rows many times.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def forget(self) -> None:
        """Drop the cached results of `finished`, because something has run."""
        self._found.clear()

    def _find(self, name: str) -> ResultRef | None:
        if not all(self.finished(part) for part in self.table.needs(name)):
            return None
        wanted_name = self.experiment_name(name)
        results = [ref for ref in refs_in_git() if ref.name == wanted_name and ref.key]
        wanted = self.params(name) if results else {}
        return max(
            (ref for ref in results if params_of(ref.commit) == wanted),
            key=lambda ref: ref.time_ms,
            default=None,
        )

    def _reference(self, name: str, part: str) -> str:
        if result := self.finished(part):
            return result.reference
        raise UserError(
            f"{name}: run {self.experiment_name(part)} first: it has no result with its current parameters"
        )


def _replaced(value: str | list[str] | None, references: dict[str, str]) -> str | list[str] | None:
    """Replace the name of a row, or a list of names, by references to their results."""
    if isinstance(value, list):
        return [references[part] for part in value]
    return references[value] if value else None


def _plan_rows(
    names: Sequence[str], options: RunOptions, extra: Sequence[str], seed: int | None
) -> tuple[Plan, list[str]]:
    """Return the plan and all rows in order, each checked; print which ones run first."""
    plan = Plan(read_experiments(), read_tree(Path("params.yaml")), extra, seed)
    order = plan.order(names)
    for name in order:
        plan.refuse_bad_params(name)
    _report_needed_rows(plan, list(dict.fromkeys(names)), options)
    return plan, order


def _report_needed_rows(plan: Plan, names: Sequence[str], options: RunOptions) -> None:
    """Print which rows run first though not requested; refuse a queue, which would not keep that order."""
    for position, name in enumerate(names):
        before = plan.order([] if options.is_queued else names[:position])
        for row in plan.order([name]):
            absent = [
                part for part in plan.table.needs(row) if part not in before and not plan.finished(part)
            ]
            named = " and ".join(map(plan.experiment_name, absent))
            if absent and options.is_queued:
                raise UserError(
                    f"{plan.experiment_name(row)} needs {named}, not yet finished with current parameters; "
                    f"a queue keeps no order, so run `{plan.command(*absent)}` first"
                )
            if absent and row not in before:
                run = "runs" if len(absent) == 1 else "run"
                relation = "starts from" if absent == [plan.table.start(row)] else "needs"
                print(f"{plan.experiment_name(row)} {relation} {named}, which {run} first", flush=True)


def _report_lost_folders() -> None:
    """Print the remedy if lost folders can be the cause of DVC's error, whose text only the terminal has."""
    if folders := folders_not_cached():
        print(
            f"If it says 'failed to load directory': dvc.lock names {', '.join(folders)}, which DVC's cache "
            f"lacks; {MAKE_FOLDERS}",
            file=sys.stderr,
            flush=True,
        )


def _bring_first_result(experiment: str) -> None:
    """Copy an experiment's dvc.lock, metrics and curves into a workspace without dvc.lock, as in a new clone.

    `dvc exp run` without `--temp` does the same; `dvc checkout` fails without any dvc.lock. That file comes
    last: if this is killed, the next result brings all.
    """
    if experiment and not Path("dvc.lock").exists():
        made = git("ls-tree", "-r", "--name-only", experiment, "--", *keep.MADE).splitlines()
        for name in sorted(made, key="dvc.lock".__eq__):
            with written_whole(Path(name)) as unfinished:
                unfinished.write_text(text_at(experiment, name), encoding="utf-8")


def run_experiment(
    name: str, overrides: Sequence[str], options: RunOptions, source: Snapshot, here: Workers
) -> int:
    """Run or queue one experiment, in a copy of the workspace, and return the exit status.

    Args:
        name: Name of the experiment.
        overrides: Overrides of the workspace's parameters, as `dvc exp run -S` takes them.
        options: How to run it.
        source: The workspace.
        here: Engine that runs it.
    """
    with overridden(overrides, source.params) as path:
        params = path.read_text(encoding="utf-8")
    force = ["--force"] if options.is_forced else []
    own = [name, source.head, *force]
    commands = [
        ["dvc", "checkout", "--quiet", "--force", "--allow-missing"],
        ["dvc", "repro", *force],
        [keep.__name__, *own],
    ]
    if options.is_queued:
        commands = [[enqueue.__name__, *own]]
    environment = {
        "DVC_ROOT": str(source.workspace),
        "DVC_EXP_NAME": name,
        "DVC_EXP_BASELINE_REV": source.head,
    }
    folders = str(source.workspace), str(source.copies)
    if not options.is_queued:
        print(f"{name}: running in a copy of the workspace", flush=True)
    return here.run(CopyJob(name, *folders, source.commit, params, "", commands, environment, "")).status


def first_seeds(count: int) -> list[int | None]:
    """Return the seed of params.yaml, as None, and the smallest others from 1."""
    own = read_full_tree()["seed"]
    return [None, *[seed for seed in range(1, count + 1) if seed != own][: count - 1]]


def _is_side_by_side(jobs: JobOptions) -> bool:
    return jobs.is_side_by_side(read_full_tree()["train"]["threads"])


def reproduce(jobs: JobOptions) -> int:
    """Run what is out of date in the workspace, stages of a matrix side by side; return the exit status."""
    if not _is_side_by_side(jobs) or _is_up_to_date():
        return dvc("repro")
    return run_side_by_side([Planned("workspace", (), list, lambda *_: dvc("repro"))], jobs)


def _is_up_to_date() -> bool:
    """Return whether `dvc repro` would run nothing but the stage that it always runs, which runs first."""
    if read_full_tree()["data"]["source"] != "demo" and dvc("repro", "--quiet", LISTING):
        return False
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    try:
        return all(found == ["always changed"] for found in json.loads(printed).values())
    except json.JSONDecodeError:  # dvc failed, and the stages will say why
        return False


def dvc(*arguments: str) -> int:
    """Run a dvc command, which prints its own output, and return the exit status.

    Ctrl-C reaches the command too; this waits until it has ended.
    """
    process = subprocess.Popen([sys.executable, "-m", "dvc", *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def show_rows(
    names: Sequence[str], options: RunOptions, extra: Sequence[str] = (), seed: int | None = None
) -> None:
    """Print what `run_rows` would run, one row with its overrides per line, results without their keys.

    Raises:
        UserError: as in `run_rows` before anything has run.
    """
    plan, order = _plan_rows(names, options, extra, seed)
    for name in order:
        if name in names or not plan.finished(name):
            is_forced = options.is_forced and name in names
            experiment = "" if is_forced else experiment_of(plan.experiment_name(name))
            if experiment and all(map(plan.finished, plan.table.needs(name))):
                plan.refuse_other_params(name, experiment)
            state = "exists on this commit" if experiment else "params.yaml unchanged"
            print(f"{plan.experiment_name(name)}:", *([] if experiment else plan.preview(name)) or [state])


def _as_text(overrides: Iterable[tuple[str, Any]]) -> list[str]:
    return [text for key, value in overrides for text in hydra_overrides(key, value)]


def experiment_of(name: str) -> str:
    """Return the commit of an experiment on the current commit; empty if no experiment has that name.

    Raises:
        GitError: there is no commit yet, or no repository.
    """
    ref = experiment_ref(git("rev-parse", "HEAD").strip(), name)
    return git_if_any("rev-parse", "--verify", "--quiet", ref).strip()


def with_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Return the workspace's flat parameters as `dvc exp run -S` would change them, with defaults."""
    with overridden(overrides) as wanted:
        return result_params(read_full_tree(wanted))


def experiment_row(table: ExperimentTable, name: str) -> TableRow:
    """Return the row of that name, which must be an experiment.

    Raises:
        UserError: the row does not exist, or is not an experiment.
    """
    row = table.row(name)
    if row.command:
        raise UserError(f"{name} is not an experiment; run `{row.command}`")
    return row
