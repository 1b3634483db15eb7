"""Rows of the table to DVC experiments of their names."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError
from callboard.experiments.overrides import hydra_overrides, overridden, with_signs
from callboard.experiments.table import ExperimentTable, TableRow, read_experiments
from callboard.params.base import read_tree
from callboard.params.defaults import flatten, read_full_tree
from callboard.params.references import REFERENCE_KEYS, referenced_results
from callboard.results.committed import params_of
from callboard.results.dvc_cache import MAKE_FOLDERS, folders_not_cached
from callboard.results.git import git, git_if_any
from callboard.results.refs import refs_in_git
from callboard.results.result import ResultRef, changes


@dataclass(frozen=True)
class RunOptions:
    """How experiments are run; each has a copy of the workspace to itself, which is left as it is.

    Only a workspace without dvc.lock is given that of its first result.

    In the workspace itself what one row sets alone, or the user adds, would stay in params.yaml for the next.
    """

    is_queued: bool = False
    """Left to `dvc queue start`."""
    is_forced: bool = False
    """Every stage is run again, and an experiment of that name replaced."""

    def arguments(self) -> list[str]:
        """Arguments of `dvc exp run`."""
        return ["--queue" if self.is_queued else "--temp", *(["--force"] if self.is_forced else [])]


def run_rows(
    names: Sequence[str], options: RunOptions, extra: Sequence[str] = (), seed: int | None = None
) -> int:
    """Run rows one after the other, each as an experiment of its name; stop at the first that fails.

    Rows whose results a row takes come before it, unless they are finished with the parameters that they have
    now. An experiment that the current commit has already is left alone, unless `options` is forced, which
    concerns the rows asked for. Extra overrides do not change its name: a whole table may be run at a smaller
    scale.

    Args:
        names: Rows, in the order to run them.
        options: How to run them.
        extra: Overrides of the user's, for every row, also for those that come first.
        seed: Of every row, also of those that come first; the experiments are then called `NAME-seedN`.

    Returns:
        Exit status of the run that failed, or 0.

    Raises:
        UserError: before anything has run, where a name is no row or a row no experiment, and where a row is
            queued that needs one which is not finished; later, where an experiment of that name is there with
            other parameters.
    """
    plan = Plan(read_experiments(), read_tree(Path("params.yaml")), extra, seed)
    order = plan.order(names)
    _tell_what_comes_first(plan, list(dict.fromkeys(names)), options)
    for position, name in enumerate(order):
        if name not in names and plan.finished(name):
            continue
        how = options if name in names else RunOptions()
        overrides, experiment_name = plan.overrides(name), plan.experiment_name(name)
        if not how.is_forced and (experiment := experiment_of(experiment_name)):
            plan.refuse_other_params(name, experiment)
            print(
                f"{experiment_name} is there on this commit; `{plan.command('--force', name)}` runs it anew",
                flush=True,
            )
            continue
        status = run_experiment(experiment_name, overrides, how)
        plan.forget()
        if status:
            left = ", ".join(map(plan.experiment_name, order[position + 1 :]))
            print(
                f"error: {experiment_name} failed{left and f'; not run: {left}'}", file=sys.stderr, flush=True
            )
            _tell_of_lost_folders()
            return status
        if not how.is_queued:
            _bring_first_result(experiment_of(experiment_name))
    return 0


@dataclass(frozen=True)
class Plan:
    """What rows of the table would be if they were run now."""

    table: ExperimentTable
    tree: dict[str, Any]
    """All that params.yaml lists."""
    extra: Sequence[str] = ()
    """Overrides of the user's, for every row."""
    seed: int | None = None
    """Of every row; None = params.yaml's, or what a row sets alone."""
    _found: dict[str, ResultRef | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `finished` has answered."""

    def experiment_name(self, name: str) -> str:
        """The name of a row's experiment."""
        return name if self.seed is None else f"{name}-seed{self.seed}"

    def command(self, *arguments: str) -> str:
        """`callboard run` with these arguments, and this plan's seed and overrides."""
        seed = [] if self.seed is None else ["--seed", str(self.seed)]
        extra = [word for override in self.extra for word in ("-S", override)]
        return shlex.join(["callboard", "run", *arguments, *seed, *extra])

    def refuse_other_params(self, name: str, experiment: str) -> None:
        """Refuse to take for a row of now what is an experiment of its name.

        Raises:
            UserError: it has other parameters, or the row needs one that is not finished.
        """
        if differences := changes(params_of(experiment), self.params(name)):
            raise UserError(
                f"{self.experiment_name(name)} is there on this commit with other parameters "
                f"({', '.join(differences)}); `{self.command('--force', name)}` replaces it"
            )

    def order(self, names: Sequence[str]) -> list[str]:
        """The rows and all that they need, each once and behind what it needs.

        Raises:
            UserError: a name is no row, or a row no experiment.
        """
        found: dict[str, None] = {}
        for name in names:
            row = experiment_row(self.table, name)
            found |= dict.fromkeys(self.order(self.table.needs(row.name)))  # they stand above it: this ends
            found[name] = None
        return list(found)

    def overrides(self, name: str) -> list[str]:
        """What `dvc exp run -S` takes to turn the workspace's parameters into a row's; the user's come last.

        Raises:
            UserError: the row needs one that is not finished.
        """
        return self._overrides(name, lambda part: self._reference(name, part))

    def preview(self, name: str) -> list[str]:
        """`overrides` with the names of experiments for the results that the row takes, run or not."""
        return self._overrides(name, self.experiment_name)

    def _overrides(self, name: str, refer: Callable[[str], str]) -> list[str]:
        """With what `refer` makes of each row that this one needs."""
        values = dict(self.table.overrides(name, self.tree))
        for key in REFERENCE_KEYS.keys() & values.keys():
            references = {part: refer(part) for part in referenced_results({key: values[key]})}
            values[key] = _replaced(values[key], references)
        own_seed = {} if self.seed is None else {"seed": self.seed}
        return with_signs([*_as_text((values | own_seed).items()), *self.extra], self.tree)

    def params(self, name: str) -> dict[str, str]:
        """Flat parameters that running a row now would give it.

        Raises:
            UserError: the row needs one that is not finished.
        """
        return with_overrides(self.overrides(name))

    def finished(self, name: str) -> ResultRef | None:
        """The newest result of a row that has the very parameters which running it now would give it.

        A long chain asks for its first rows again and again, so answers stand until `forget`.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def forget(self) -> None:
        """What is finished is looked up anew: something has run."""
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
            f"{name}: run {self.experiment_name(part)} first: "
            "it has no result with the parameters that it has now"
        )


def _replaced(value: str | list[str] | None, references: dict[str, str]) -> str | list[str] | None:
    """Names of rows, one or several, by references to their results."""
    if isinstance(value, list):
        return [references[part] for part in value]
    return references[value] if value else None


def _tell_what_comes_first(plan: Plan, names: Sequence[str], options: RunOptions) -> None:
    """Say which rows run before others though nobody asked for them there; refuse where they cannot."""
    for position, name in enumerate(names):
        before = plan.order([] if options.is_queued else names[:position])
        for row in plan.order([name]):
            absent = [
                part for part in plan.table.needs(row) if part not in before and not plan.finished(part)
            ]
            named = " and ".join(map(plan.experiment_name, absent))
            if absent and options.is_queued:
                raise UserError(
                    f"{plan.experiment_name(row)} needs {named}, "
                    "not finished with the parameters of now; a queue "
                    f"keeps no order, so run `{plan.command(*absent)}` first"
                )
            if absent and row not in before:
                come = "comes" if len(absent) == 1 else "come"
                relation = "starts from" if absent == [plan.table.start(row)] else "needs"
                print(f"{plan.experiment_name(row)} {relation} {named}, which {come} first", flush=True)


def _tell_of_lost_folders() -> None:
    """Say what heals DVC's error, where it can be the one of these folders; its text goes to the terminal."""
    if folders := folders_not_cached():
        print(
            f"If it says 'failed to load directory': dvc.lock names {', '.join(folders)}, which DVC's cache "
            f"lacks; {MAKE_FOLDERS}",
            file=sys.stderr,
            flush=True,
        )


def _bring_first_result(experiment: str) -> None:
    """Give a workspace without dvc.lock, as a fresh clone is, an experiment's, with its metrics and curves.

    `dvc exp run` without `--temp` leaves the same; without any dvc.lock `dvc checkout` fails.
    """
    if experiment and not Path("dvc.lock").exists():
        made = git("ls-tree", "--name-only", experiment, "--", "dvc.lock", "metrics", "plots").split()
        if made:
            git("restore", f"--source={experiment}", "--worktree", "--", *made)


def run_experiment(name: str, overrides: Sequence[str], options: RunOptions) -> int:
    """Exit status of running or queueing one experiment.

    Args:
        name: Of the experiment.
        overrides: Of the workspace's parameters, as `dvc exp run -S` takes them.
        options: How to run them.
    """
    settings = [argument for override in overrides for argument in ("-S", override)]
    return dvc("exp", "run", "--name", name, *options.arguments(), *settings)


def dvc(*arguments: str) -> int:
    """Exit status of a dvc command, which prints for itself.

    Ctrl-C reaches it too; it is waited for while it removes its copy of the workspace.
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
    """Print what `run_rows` would run, and override, one row a line; results without their keys.

    Raises:
        UserError: as there, before anything has run.
    """
    plan = Plan(read_experiments(), read_tree(Path("params.yaml")), extra, seed)
    order = plan.order(names)
    _tell_what_comes_first(plan, list(dict.fromkeys(names)), options)
    for name in order:
        if name in names or not plan.finished(name):
            is_forced = options.is_forced and name in names
            experiment = "" if is_forced else experiment_of(plan.experiment_name(name))
            if experiment and all(map(plan.finished, plan.table.needs(name))):
                plan.refuse_other_params(name, experiment)
            told = "is there on this commit" if experiment else "params.yaml as it is"
            print(f"{plan.experiment_name(name)}:", *([] if experiment else plan.preview(name)) or [told])


def _as_text(overrides: Iterable[tuple[str, Any]]) -> list[str]:
    return [text for key, value in overrides for text in hydra_overrides(key, value)]


def experiment_of(name: str) -> str:
    """The commit of the experiment of that name on the current commit; empty where there is none.

    Raises:
        GitError: there is no commit yet, or no repository.
    """
    commit = git("rev-parse", "HEAD").strip()
    return git_if_any(
        "rev-parse", "--verify", "--quiet", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    ).strip()


def with_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Flat parameters of the workspace, as `dvc exp run -S` would change them, with defaults."""
    with overridden(overrides) as wanted:
        return flatten(read_full_tree(wanted))


def experiment_row(table: ExperimentTable, name: str) -> TableRow:
    """The row of that name.

    Raises:
        UserError: there is none, or it is no experiment.
    """
    row = table.row(name)
    if row.command:
        raise UserError(f"{name} is no experiment; run `{row.command}`")
    return row
