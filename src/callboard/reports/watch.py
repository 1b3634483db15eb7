"""Running and interrupted trainings as lines, or as a table that redraws itself."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from callboard.core.console import duration
from callboard.core.workspace import CHECKPOINTS, main_workspace
from callboard.experiments.jobs.stage_progress import stages_now
from callboard.training.progress import Progress, read_progress

REDRAW_EVERY_S = 1.0
PLAIN_EVERY_S = 5.0
BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 24
"""Maximum number of characters; longer curves show every n-th epoch."""

HOW_TO_START = """\
nothing is training in this workspace; start with: dvc repro, callboard run exp0058, dvc exp run -S seed=1
finished curves: dvc plots show, callboard ui"""


@dataclass(frozen=True)
class Trainings:
    """Trainings of a workspace and its temporary copies."""

    shown: tuple[Progress, ...]
    """Running ones, the longest-running first, each after the finished folds of the same round and recipe."""
    stopped: tuple[Progress, ...]
    """Interrupted ones with a checkpoint, the latest first."""
    stages: tuple[str, ...] = ()
    """Lines about the stages of running commands."""

    def notes(self) -> list[str]:
        """Return the lines below the trainings."""
        return [*self.stages, *left_behind(self.stopped)]


def find_trainings() -> Trainings:
    """Read the progress files of the main workspace."""
    workspace = main_workspace()
    found = read_progress(workspace / CHECKPOINTS)
    running = {path: progress for path, progress in found.items() if progress.is_running()}
    finished = {path: progress for path, progress in found.items() if progress.is_finished}
    shown: dict[Path, Progress] = {}
    for path, progress in sorted(running.items(), key=lambda item: (item[1].started, item[1].pid)):
        siblings = sorted(other for other in finished if _recipe(other) == _recipe(path))
        shown |= {other: finished[other] for other in siblings} | {path: progress}
    left = found.keys() - running.keys() - finished.keys()
    stopped = sorted((found[path] for path in left if path.exists()), key=lambda each: -each.updated)
    return Trainings(tuple(shown.values()), tuple(stopped), tuple(stages_now(workspace)))


def _recipe(checkpoint: Path) -> str:
    """Return the name of a checkpoint without its fold."""
    return checkpoint.stem.rpartition("-fold")[0]


@dataclass(frozen=True)
class Line:
    """A fold as shown: a text for each column."""

    experiment: str
    fold: str
    epoch: str
    loss: str
    lwlrap: str
    pace: str
    left: str
    curve: str

    def __str__(self) -> str:
        facts = [f"epoch {self.epoch}"]
        for label, text in (("loss", self.loss), ("LWLRAP", self.lwlrap)):
            facts += [f"{label} {text}"] if text else []
        facts += [f"{self.pace} per epoch"] if self.pace else []
        facts += [f"{self.left} left" if self.left[0].isdigit() else self.left] if self.left else []
        return f"{self.experiment} {self.fold}: {', '.join(facts)}  {self.curve}".rstrip()


def follow(*, once: bool) -> None:
    """Print the running trainings once, or again and again until interrupted."""
    trainings = find_trainings()
    if not trainings.shown and not trainings.stages:
        print("\n".join([HOW_TO_START, *trainings.notes()]))
        return
    console = Console()
    if once or not console.is_terminal:
        _print_lines(trainings, once=once)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(as_table(trainings), refresh=True)
            time.sleep(REDRAW_EVERY_S)
            trainings = find_trainings()


def _print_lines(trainings: Trainings, *, once: bool) -> None:
    while True:
        lines = [str(line_of(progress)) for progress in trainings.shown]
        print("\n".join([*lines, *trainings.notes()]), flush=True)
        if once:
            return
        time.sleep(PLAIN_EVERY_S)
        trainings = find_trainings()


def line_of(progress: Progress) -> Line:
    """Describe a training."""
    losses = [row["loss"] for row in progress.curve]
    validated = [row["val_lwlrap"] for row in progress.curve if row["val_lwlrap"] is not None]
    pace, left = progress.seconds_per_epoch, progress.left_s()
    remaining = "" if left is None else duration(left)
    return Line(
        progress.experiment or "workspace",
        progress.name if progress.host == socket.gethostname() else f"{progress.name} on {progress.host}",
        f"{len(progress.curve)} of {progress.n_epochs}",
        _number(losses),
        _number(validated),
        "" if pace is None else f"{pace:.1f} s",
        "finished" if progress.is_finished else remaining,
        sparkline([loss for loss in losses if loss is not None]),
    )


def _number(values: Sequence[float | None]) -> str:
    return "" if not values or values[-1] is None else f"{values[-1]:.3f}"


def sparkline(values: list[float]) -> str:
    """Draw values as a row of bars from their minimum to their maximum, without NaN."""
    values = [value for value in values if value == value]
    step = -(-len(values) // CURVE_WIDTH) or 1
    shown = values[::-1][::step][::-1]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)


def left_behind(stopped: Sequence[Progress]) -> list[str]:
    """Describe each interrupted training in a line."""
    now = time.time()
    return [
        f"stopped: {progress.experiment or 'workspace'} {progress.name} after epoch {len(progress.curve)}, "
        f"{duration(max(now - progress.updated, 0.0))} ago; the command that ran it continues from there"
        for progress in stopped
    ]


def as_table(trainings: Trainings) -> Table:
    """Build the table of trainings, with notes below."""
    notes = trainings.notes() or ["Ctrl-C stops watching, not training"]
    table = Table(box=None, caption="\n".join(notes))
    table.caption_justify = "left"
    for title in ("experiment", "fold", "epoch", "loss", "LWLRAP", "s/epoch", "left", "loss by epoch"):
        table.add_column(title, no_wrap=True)
    for line in map(line_of, trainings.shown):
        cells = (line.experiment, line.fold, line.epoch, line.loss, line.lwlrap, line.pace, line.left)
        table.add_row(*cells, line.curve)
    if not trainings.shown:
        table.add_row("nothing is training at the moment")
    return table
