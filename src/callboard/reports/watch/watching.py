"""Running trainings as lines and as a table that is drawn again and again."""

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from callboard.reports.watch.checkpoints import Curve
from callboard.reports.watch.trainings import Training, interrupted_trainings, running_trainings

LOOK_EVERY_S = 1.0
PLAIN_EVERY_S = 5.0
BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 24
"""Characters; longer curves show every n-th epoch."""

HOW_TO_START = """\
nothing trains in this workspace. To start: dvc repro, callboard run exp0058, dvc exp run -S loss.neg_mask=seq
finished curves: dvc plots show, callboard ui"""


@dataclass
class Pace:
    """Seconds per epoch: between writes that were seen; before there are two, since the process began."""

    seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By process: epochs and time of the first write that was seen."""

    def seconds(self, training: Training, n_epochs: int, written: float | None) -> float | None:
        """None before the first epoch. A first look counts the start-up, and misjudges a resumed training."""
        if written is None or written < training.started:
            return None
        first, at = self.seen.setdefault(training.pid, (n_epochs, written))
        if n_epochs > first:
            return (written - at) / (n_epochs - first)
        return (written - training.started) / n_epochs


@dataclass(frozen=True)
class Line:
    """A fold, as shown."""

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
    """Print what trains now, once or until interrupted."""
    trainings = running_trainings()
    if not trainings:
        print("\n".join([HOW_TO_START, *left_behind(trainings)]))
        return
    pace, console = Pace(), Console()
    if once or not console.is_terminal:
        _print_lines(trainings, pace, once=once)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(as_table(lines(trainings, pace), left_behind(trainings)), refresh=True)
            time.sleep(LOOK_EVERY_S)
            trainings = running_trainings()


def _print_lines(trainings: list[Training], pace: Pace, *, once: bool) -> None:
    while True:
        print("\n".join([*map(str, lines(trainings, pace)), *left_behind(trainings)]), flush=True)
        if once:
            return
        time.sleep(PLAIN_EVERY_S)
        trainings = running_trainings()


def lines(trainings: list[Training], pace: Pace) -> list[Line]:
    """A line per running fold, below those that its experiment has finished."""
    found: dict[tuple[str, str], Line] = {}
    for training in trainings:
        experiment = training.experiment or "workspace"
        for name, curve in training.finished_folds().items():
            found.setdefault((str(training.folder), name), _line(experiment, name, curve, left="finished"))
        curve, written = training.progress()
        seconds = pace.seconds(training, len(curve), written)
        left = ""
        if seconds is not None and written is not None and training.n_epochs:
            remaining = seconds * (training.n_epochs - len(curve)) - (time.time() - written)
            left = duration(max(remaining, 0.0))
        line = _line(experiment, training.name, curve, training.n_epochs, seconds, left)
        found[str(training.folder), training.name] = line
    return list(found.values())


def _line(
    experiment: str,
    name: str,
    curve: Curve,
    n_epochs: int | None = None,
    seconds: float | None = None,
    left: str = "",
) -> Line:
    losses = [row["loss"] for row in curve]
    validated = [row["val_lwlrap"] for row in curve if row.get("val_lwlrap") is not None]
    return Line(
        experiment,
        name,
        f"{len(curve)} of {n_epochs}" if n_epochs else str(len(curve)),
        _number(losses),
        _number(validated),
        "" if seconds is None else f"{seconds:.1f} s",
        left,
        sparkline([loss for loss in losses if loss is not None]),
    )


def _number(values: list[float | None]) -> str:
    return "" if not values or values[-1] is None else f"{values[-1]:.3f}"


def sparkline(values: list[float]) -> str:
    """Values as a row of bars between their minimum and maximum; NaN is left out."""
    values = [value for value in values if value == value]
    step = -(-len(values) // CURVE_WIDTH) or 1
    shown = values[::-1][::step][::-1]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def left_behind(trainings: list[Training]) -> list[str]:
    """A line per checkpoint of a run that was stopped."""
    now = time.time()
    return [
        f"stopped: {state.fold} after epoch {state.n_epochs}, {duration(max(now - state.written, 0.0))} ago; "
        "the command that ran it goes on from there"
        for state in interrupted_trainings(trainings)
    ]


def as_table(shown: list[Line], notes: list[str]) -> Table:
    """The lines as a table, the notes below."""
    table = Table(box=None, caption="\n".join(notes or ["Ctrl-C ends the watching, not the training"]))
    table.caption_justify = "left"
    for title in ("experiment", "fold", "epoch", "loss", "LWLRAP", "s/epoch", "left", "loss by epoch"):
        table.add_column(title, no_wrap=True)
    for line in shown:
        cells = (line.experiment, line.fold, line.epoch, line.loss, line.lwlrap, line.pace, line.left)
        table.add_row(*cells, line.curve)
    if not shown:
        table.add_row("nothing trains at the moment")
    return table
