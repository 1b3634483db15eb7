"""Experiments whose stages run side by side, each as soon as a processor is free.

DVC itself runs one stage after the other. But copies of the workspace share its cache, and a stage that has
run in one of them need not run again. So the stages of a matrix (folds, rounds, nested networks) run in
copies first; of several experiments, the stages that score their networks do too. Then `dvc repro`, in one
more copy, finds them in the cache and runs the rest. Shards of `crop` and `predict`, if wanted, run in copies
too and leave their parts in the main workspace for the stage itself.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from callboard.core.console import warn
from callboard.core.errors import UserError
from callboard.core.threads import ahead, n_workers
from callboard.core.workspace import main_workspace
from callboard.experiments.jobs import pending
from callboard.experiments.jobs.copies import Snapshot, snapshot
from callboard.experiments.jobs.engines import Engine, engine
from callboard.experiments.jobs.local import WorkerKilledError, Workers
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.remote import push_files
from callboard.experiments.jobs.schedule import Task, TaskError, run_tasks
from callboard.experiments.jobs.stage_progress import COMMANDS, StageProgress, progress_of
from callboard.experiments.jobs.start_files import Sections, files_to_start_from
from callboard.experiments.jobs.units import Unit, inputs_of, units_of
from callboard.experiments.jobs.worker import CopyJob, JobResult
from callboard.experiments.overrides import overridden
from callboard.params.defaults import read_full_tree
from callboard.results.dvc_cache import add_to_cache

SCORES_JOB = "scores"
"""Name of the job that runs `SCORING`."""

LOGS = Path(".cache/jobs")
"""Folder of the main workspace for what each stage printed."""

COMMON = "split"
"""Last of the stages that come before those of a matrix; they run first."""

SCORING = ("predict", "evaluate", "infer", "score")
"""Stages between those of a matrix and the last one. Of several experiments, they run side by side too."""

PREPARE_LANE, TRAIN_LANE, SCORE_LANE, FINISH_LANE = "prepare", "train", "score", "finish"
"""Lanes. Preparing one experiment at a time makes what several share once; MLflow has one writer."""

GRAPH = ["dvc", "dag", "--dot"]
"""Command that prints the graph of stages, for `inputs_of` and `units_of`."""

PREPARED = re.compile(r"^(?:prepare|crop|split|warning): .*(?<! left)$", re.MULTILINE)
"""Lines that the stages before those of a matrix print at their end, and their warnings."""

STOPPED = 130
"""Exit status after Ctrl-C, as in a shell."""

MOST_KILLS = 3
"""Times that a stage's process or machine may die; its training resumes where it was."""

TAIL = 12
"""Lines of a failed stage's output that are shown."""


@dataclass(frozen=True)
class Planned:
    """An experiment to be run."""

    name: str
    needs: Sequence[str]
    """Experiments of the same call whose results it needs."""
    overrides: Callable[[], list[str] | None]
    """Called once these are finished: overrides of params.yaml, or None if nothing is to be run."""
    finish: Callable[[list[str], Snapshot, Workers], int]
    """Runs the rest of it, with these overrides, in the workspace or in a copy of the snapshot through an
    engine of this machine, and returns the exit status."""


def run_side_by_side(planned: Sequence[Planned], options: JobOptions) -> int:
    """Run experiments, several stages at a time; one that fails leaves the others alone.

    Returns:
        0; 1 if an experiment failed, or could not run for lack of one that it needs; `STOPPED` after Ctrl-C.

    Raises:
        UserError: before anything has run, if the jobs cannot run where `options` say.
    """
    try:
        with _started(options) as (source, jobs):
            (source.workspace / LOGS).mkdir(parents=True, exist_ok=True)
            file = source.workspace / COMMANDS / source.copies.name
            with closing(StageProgress(jobs, file)) as progress:
                n_shards, is_many = options.shards or jobs.n_shards, len(planned) > 1
                return _run_on(jobs, planned, _Batch(source, Workers(), jobs, progress, n_shards, is_many))
    except KeyboardInterrupt:
        return stopped()


def stopped() -> int:
    """Tell what is left after Ctrl-C; return the exit status."""
    _say("stopped; the same command continues: finished stages are kept, trainings resume")
    return STOPPED


def describe_machines(options: JobOptions) -> list[str]:
    """Return lines about the machines that would run jobs, after checking that they can.

    Raises:
        UserError: as `run_side_by_side`.
    """
    with _started(options) as (_, jobs):
        return jobs.describe()


@contextmanager
def _started(options: JobOptions) -> Iterator[tuple[Snapshot, Engine]]:
    """Yield a snapshot of the workspace and an engine."""
    threads = read_full_tree()["train"]["threads"]
    with snapshot(main_workspace()) as source, engine(options, threads, source) as jobs:
        if jobs.is_apart and (options.shards or 1) > 1:
            raise UserError(f"--shards {options.shards} needs nodes that share the folder of the workspace")
        yield source, jobs


def _run_on(jobs: Engine, planned: Sequence[Planned], batch: "_Batch") -> int:
    tasks = [batch.first_task(experiment, position) for position, experiment in enumerate(planned)]
    widths = {PREPARE_LANE: 1, TRAIN_LANE: jobs.n_jobs, SCORE_LANE: n_workers(), FINISH_LANE: 1}
    failed = run_tasks(tasks, widths, _report, batch.stop)
    not_run = [experiment.name for experiment in planned if experiment.name in failed]
    if not_run:
        _say(f"error: not finished: {', '.join(not_run)}; stages that succeeded are kept")
    return int(bool(failed))


def _report(error: TaskError, task: Task) -> None:
    _say(f"error: {error}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class _Batch:
    """Everything that the experiments of one call share."""

    source: Snapshot
    here: Workers
    """Engine for what comes before the stages of a matrix."""
    jobs: Engine
    progress: StageProgress
    n_shards: int
    """Number of jobs that share `crop`, and `predict`."""
    is_many: bool
    """Whether there are several experiments."""

    def first_task(self, experiment: Planned, position: int) -> Task:
        run = _Run(self, experiment, position)
        return run.task("prepare", PREPARE_LANE, experiment.needs, run.prepare)

    def stop(self) -> None:
        self.here.stop()
        self.jobs.stop()


@dataclass
class _Run:
    """An experiment while it runs."""

    batch: _Batch
    experiment: Planned
    position: int
    overrides: list[str] = field(default_factory=list)
    params: str = ""
    threads: int = 1
    start_files: dict[str, str] = field(default_factory=dict)
    """As `CopyJob.needed`."""
    stages: dict[str, Any] = field(default_factory=dict)
    """Those of dvc.lock that are finished."""
    inputs: dict[str, list[str]] = field(default_factory=dict)
    """By stage, those whose outputs it reads."""
    units: list[Unit] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def task(
        self, what: str, lane: str, needs: Iterable[str], run: Callable[[], Iterable[Task]], order: int = 0
    ) -> Task:
        name = self.experiment.name
        key = name if lane == FINISH_LANE else f"{name} {what}"
        return Task(key, name, lane, (self.position, order), frozenset(needs), run)

    def prepare(self) -> list[Task]:
        """Run what comes before the stages of a matrix; return a task for each of these, and the last one."""
        try:
            overrides = self.experiment.overrides()
        except UserError as error:
            raise TaskError(str(error)) from error
        if overrides is None:
            return [self.task("", FINISH_LANE, (), lambda: ())]
        self.overrides = overrides
        with overridden(overrides, self.batch.source.params) as path:
            self.params = path.read_text(encoding="utf-8")
            sections = read_full_tree(path)
        self.threads = sections["train"]["threads"]
        name = self.experiment.name
        print(f"{name}: preparing recordings, frames and folds", flush=True)
        commands = [["dvc", "repro", COMMON], GRAPH]
        if self.batch.jobs.is_apart:
            self._send_start_files(sections)
            commands.append(["dvc", "push", "--quiet", "--with-deps", COMMON])
        self._make_parts("crop", ["dvc", "repro", "prepare"])
        outcome = self._run_before(COMMON, commands)
        self.inputs = inputs_of(outcome.printed)
        units = self.units = units_of(outcome.printed, COMMON)
        last = [SCORES_JOB] if self.batch.is_many else []
        self.batch.progress.expect(name, [*[unit.stage for unit in units], *last])
        tasks = [
            self.task(
                unit.stage,
                TRAIN_LANE,
                [f"{name} {stage}" for stage in unit.needs],
                partial(self.fit, unit),
                order,
            )
            for order, unit in enumerate(units)
        ]
        if self.batch.is_many:
            lane = SCORE_LANE if self.batch.jobs.is_apart else TRAIN_LANE
            tasks.append(self.task(SCORES_JOB, lane, [task.key for task in tasks], self.score, len(units)))
        return [*tasks, self.task("", FINISH_LANE, [task.key for task in tasks], self.finish)]

    def fit(self, unit: Unit) -> list[Task]:
        """Run one stage of a matrix."""
        commands = [
            ["dvc", "checkout", "--quiet", "--force", *unit.inputs],
            ["dvc", "repro", "--single-item", unit.stage],
        ]
        if self.batch.jobs.is_apart:
            commands = [
                ["dvc", "pull", "--quiet", "--force", *unit.inputs],
                ["dvc", "repro", "--pull", "--single-item", unit.stage],
                ["dvc", "push", "--quiet", "--run-cache", unit.stage],
            ]
        self._run_followed(unit.stage, commands, unit)
        return []

    def _make_parts(self, stage: str, before: list[str]) -> None:
        """Make the parts of a stage in shards, if there are to be any and DVC's cache lacks its output.

        Args:
            stage: Name of the stage.
            before: Command after which its inputs are there.
        """
        n_shards, jobs = self.batch.n_shards, self.batch.jobs
        if n_shards == 1:
            return
        commands = [before, GRAPH, [pending.__name__, stage]]
        outcome = self._run_before(f"before-{stage}", commands)
        command = pending.pending_command(outcome.printed)
        if not command:
            return
        checkout = ["dvc", "checkout", "--quiet", "--force", *inputs_of(outcome.printed)[stage]]
        shards = range(1, n_shards + 1)
        self.batch.progress.expect(self.experiment.name, [f"{stage}@{number}" for number in shards])

        def run(number: int) -> None:
            shard = [*command, "--shard", f"{number}/{n_shards}"]
            self._run_followed(f"{stage}@{number}", [checkout, shard])

        for _ in ahead(run, shards, jobs.n_jobs, n_ahead=n_shards):
            pass

    def _run_before(self, what: str, commands: list[list[str]]) -> JobResult:
        """Run what comes before the stages of a matrix, on this machine, with progress."""
        with progress_of(self._log(what), self.experiment.name):
            outcome = self._run_job(self.batch.here, what, commands, n_workers())
        for line in PREPARED.findall(outcome.printed):
            print(f"{self.experiment.name} {line}", flush=True)
        self._keep(outcome, None)
        return outcome

    def _run_followed(
        self, stage: str, commands: list[list[str]], unit: Unit | None = None, jobs: Engine | None = None
    ) -> None:
        """Run a stage of a matrix, a shard of a different stage, or several stages, with progress."""
        jobs, progress = jobs or self.batch.jobs, self.batch.progress
        with progress.running(self.experiment.name, stage):
            outcome = self._run_job(jobs, stage, commands, jobs.n_threads)
            if unit:
                self._keep(outcome, unit)
        progress.finished(self.experiment.name, stage, outcome)

    def score(self) -> list[Task]:
        """Run what comes between the stages of a matrix and the last one."""
        self._gather()
        batch = self.batch
        inputs = {stage for scoring in SCORING for stage in self.inputs[scoring]} - set(SCORING)
        commands = [
            ["dvc", "checkout", "--quiet", "--force", *sorted(inputs)],
            ["dvc", "repro", "--single-item", *SCORING],
        ]
        self._run_followed(SCORES_JOB, commands, jobs=batch.here if batch.jobs.is_apart else batch.jobs)
        return []

    def finish(self) -> list[Task]:
        """Make the experiment of what its stages left in DVC's cache."""
        if not self.batch.is_many:
            self._gather()
        if self.experiment.finish(self.overrides, self.batch.source, self.batch.here):
            raise TaskError(f"{self.experiment.name} failed")
        return []

    def _gather(self) -> None:
        """Bring what the stages of a matrix left into DVC's cache here; make parts of scores in shards."""
        if self.batch.jobs.is_apart:
            fetch = ["dvc", "fetch", "--quiet", "--run-cache", *(unit.stage for unit in self.units)]
            self._run_job(self.batch.here, "fetch", [fetch], n_workers())
        self._make_parts("predict", ["dvc", "checkout", "--quiet", "--force", *self.inputs["predict"]])

    def _run_job(self, jobs: Engine, stage: str, commands: list[list[str]], n_threads: int) -> JobResult:
        """Run commands in a copy of the workspace.

        Raises:
            TaskError: one failed; the message ends with the last lines of its output.
        """
        source, log = self.batch.source, self._log(stage)
        own = {key: value for key, value in os.environ.items() if key.startswith("CALLBOARD_")}
        environment = own | {
            "DVC_ROOT": str(source.workspace),
            "DVC_EXP_NAME": self.experiment.name,
            "CALLBOARD_WORKERS": str(n_threads),
            "OMP_NUM_THREADS": str(self.threads),
        }
        folders = str(source.workspace), str(source.copies)
        lock = self._lock_text()
        job = CopyJob(log.stem, *folders, source.commit, self.params, lock, commands, environment, str(log))
        if jobs.is_apart:
            job = job._replace(returned=stage, needed=self.start_files)
        outcome = _run_despite_kills(jobs, job)
        log.write_text(outcome.printed, encoding="utf-8")  # the machine may have written another file
        if outcome.status:
            tail = "\n".join(outcome.printed.splitlines()[-TAIL:])
            where = f" on {outcome.node}" if jobs.n_nodes > 1 else ""
            shown = log.relative_to(source.workspace)
            raise TaskError(f"{self.experiment.name}: {stage} failed{where}; the end of {shown}:\n{tail}")
        return outcome

    def _log(self, stage: str) -> Path:
        """Return the file for what a job prints; its name without suffix is that of the job."""
        name = f"{self.experiment.name}-{stage.replace('@', '-')}"
        return self.batch.source.workspace / LOGS / f"{name}.log"

    def _send_start_files(self, sections: Sections) -> None:
        """Bring what trainings start from within reach of machines without the workspace's folder."""
        workspace = self.batch.source.workspace
        try:
            self.start_files = files_to_start_from(sections, workspace)
            push_files(self.start_files, workspace)
            if sections["train"]["init_from"]:
                self.batch.jobs.carry_again()
        except UserError as error:
            raise TaskError(f"{self.experiment.name}: {error}") from error

    def _lock_text(self) -> str:
        """Return the text of a dvc.lock with the stages that are finished; empty before any is."""
        with self.lock:
            if not self.stages:
                return ""
            return yaml.safe_dump({"schema": "2.0", "stages": self.stages}, sort_keys=False)

    def _keep(self, outcome: JobResult, unit: Unit | None) -> None:
        """Keep what dvc.lock says of a unit, or of all stages."""
        for md5, content in outcome.small.items():
            add_to_cache(md5, content.encode("utf-8"))
        stages = yaml.safe_load(outcome.lock)["stages"]
        with self.lock:
            self.stages |= stages if unit is None else {unit.stage: stages[unit.stage]}


def _run_despite_kills(jobs: Engine, job: CopyJob) -> JobResult:
    """Run a job, again if its process or machine dies.

    Raises:
        TaskError: its commands could not be run, or it died `MOST_KILLS` times.
    """
    for _ in range(MOST_KILLS - 1):
        try:
            return jobs.run(job)
        except WorkerKilledError as error:
            warn(f"{error}; run once more")
    return jobs.run(job)
