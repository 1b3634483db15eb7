"""The stages of a running command: a printed line for each that ends, and a file for `callboard watch`."""

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from callboard.core.console import duration
from callboard.core.errors import UnreadableFileError, UserError
from callboard.core.files import written_whole
from callboard.core.reading import reading
from callboard.experiments.jobs.copies import left_over
from callboard.experiments.jobs.engines import Engine
from callboard.experiments.jobs.worker import JobResult

COMMANDS = Path(".cache/jobs/now")
"""Folder of the main workspace for a file of each running command, named like its folder of copies."""

SUMMARY = re.compile(r"^(?:train|network|pseudo_label|crop|predict): .*", re.MULTILINE)
"""Lines that a stage or a shard of one prints at the end of a training, and at its own."""

LEFT = re.compile(r"^\w+: \d+ of \d+ .* left$", re.MULTILINE)
"""Lines that a stage prints every few seconds, see `callboard.core.console.progress`."""


@dataclass
class ExperimentStages:
    """Stages of one experiment that run side by side."""

    name: str
    waiting: list[str]
    running: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        n_all = len(self.waiting) + len(self.running) + len(self.finished)
        text = f"{self.name}: {len(self.finished)} of {n_all} stages finished"
        for what, stages in (("running", self.running), ("waiting", self.waiting)):
            text += f", {what}: {' '.join(stages)}" if stages else ""
        return text


class StageProgress:
    """Keeps the stages of all experiments of a command."""

    def __init__(self, jobs: Engine, file: Path) -> None:
        self._jobs, self._file = jobs, file
        self._experiments: dict[str, ExperimentStages] = {}
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        for file_left in left_over(file.parent):
            file_left.unlink(missing_ok=True)

    def expect(self, experiment: str, stages: Sequence[str]) -> None:
        """Count stages, or shards of a stage, that will run."""
        with self._lock:
            known = self._experiments.setdefault(experiment, ExperimentStages(experiment, []))
            known.waiting += stages
            self._write()

    @contextmanager
    def running(self, experiment: str, stage: str) -> Iterator[None]:
        """Count a stage as running; if it fails, those of its experiment that wait will not run."""
        with self._lock:
            stages = self._experiments[experiment]
            stages.waiting.remove(stage)
            stages.running.append(stage)
            self._write()
        try:
            yield
        except BaseException:
            with self._lock:
                stages.running.remove(stage)
                stages.waiting.clear()
                self._write()
            raise

    def finished(self, experiment: str, stage: str, outcome: JobResult) -> None:
        """Print the end of a running stage."""
        with self._lock:
            stages = self._experiments[experiment]
            stages.running.remove(stage)
            stages.finished.append(stage)
            self._seconds.append(outcome.seconds)
            self._write()
            n_done, n_known = len(self._seconds), self._n_known()
            summary = SUMMARY.findall(outcome.printed) or [f"{stage} found in DVC's run-cache"]
            node = f" on {outcome.node}" if self._jobs.n_nodes > 1 else ""
            left = f", {duration(self._left_s())} left" if n_done < n_known else ""
            lines = [f"{experiment} {line}{node}" for line in summary]
            print("\n".join([*lines, f"{n_done} of {n_known} stages{left}"]), flush=True)

    def close(self) -> None:
        """Remove the file."""
        self._file.unlink(missing_ok=True)

    def _n_known(self) -> int:
        return sum(
            len(one.waiting) + len(one.running) + len(one.finished) for one in self._experiments.values()
        )

    def _left_s(self) -> float:
        """Return the time left, at the pace of the stages so far."""
        n_done = len(self._seconds)
        return sum(self._seconds) / n_done * (self._n_known() - n_done) / self._jobs.n_jobs

    def _write(self) -> None:
        left_s = self._left_s() if self._seconds else None
        content = {
            "experiments": [asdict(one) for one in self._experiments.values()],
            "ends": time.time() + left_s if left_s else None,
        }
        with suppress(UserError), written_whole(self._file) as unfinished:  # no stage fails for lack of it
            unfinished.write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def progress_of(log: Path, experiment: str) -> Iterator[None]:
    """Print the progress lines that a job on this machine meanwhile writes to its log."""
    log.unlink(missing_ok=True)  # of an earlier call
    ended = threading.Event()

    def follow() -> None:
        n_shown = 0
        while not ended.wait(1.0):
            lines = LEFT.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
            for line in lines[n_shown:]:
                print(f"{experiment} {line}", flush=True)
            n_shown = len(lines)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def stages_now(workspace: Path) -> list[str]:
    """Return lines about the stages of each running command of a workspace.

    A command of a different machine that was killed stays until the next one.
    """
    folder = workspace / COMMANDS
    gone = set(left_over(folder))
    lines = []
    for file in sorted(file for file in folder.glob("[!.]*") if file not in gone):
        with suppress(UnreadableFileError), reading(file):  # removed meanwhile, or of a different version
            content = json.loads(file.read_text(encoding="utf-8"))
            found = [str(ExperimentStages(**one)) for one in content["experiments"]]
            if content["ends"]:
                found.append(f"about {duration(max(content['ends'] - time.time(), 0.0))} left")
            lines += found
    return lines
