"""Trainings that run now: processes of `stages.train`, and what they and killed ones have left on disk.

Nothing is written for this and training knows nothing of it.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.params.defaults import read_full_tree
from callboard.reports.watch.checkpoints import (
    CHECKPOINTS,
    STAGE,
    UNREADABLE,
    Curve,
    checkpoint_names,
    read_history,
)
from callboard.results.git import text_at


@dataclass(frozen=True)
class Training:
    """A process that trains one fold."""

    pid: int
    experiment: str
    """DVC's name for it; empty under `dvc repro`."""
    folder: Path
    """Where it runs: the main workspace or a temporary copy."""
    name: str
    """Round and fold, as r0-fold1."""
    n_epochs: int | None
    """None where params.yaml cannot be read."""
    started: float
    """Unix time, s; so in all fields below."""
    run_started: float
    """When the dvc process began that runs the stage."""
    checkpoints: tuple[Path, ...]
    """Where it may leave its state."""

    def progress(self) -> tuple[Curve, float | None]:
        """Its curve so far and when the last epoch was written; an empty curve and None before the first."""
        for path in self.checkpoints:
            try:
                return read_history(path), path.stat().st_mtime
            except UNREADABLE:
                continue
        return [], None

    def finished_folds(self) -> dict[str, Curve]:
        """Curves of the folds that the same experiment has finished, by name.

        A curve counts if its weights are there and dvc began before it was written: others are of the run
        before. Into a temporary copy dvc first puts the results of the commit: those are no news either.
        """
        found = {}
        for path in sorted((self.folder / "plots" / "train").glob("r*-fold*.csv")):
            round_, fold = path.stem.split("-")
            has_weights = (self.folder / "models" / round_ / f"{fold}.pt").exists()
            is_new = path.stat().st_mtime >= self.run_started and path.read_text(encoding="utf-8") != text_at(
                "HEAD", f"plots/train/{path.name}", self.folder
            )
            if path.stem != self.name and has_weights and is_new:
                found[path.stem] = read_curve(path)
        return found


def running_trainings() -> list[Training]:
    """Those of this workspace and of experiments in temporary copies of it, the longest-running first."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if STAGE in process.cmdline() and (training := _training(process)):
                found.append(training)
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
    return sorted(found, key=lambda training: (training.started, training.pid))


def _training(process: Any) -> Training | None:
    arguments = process.cmdline()
    folder, environment, main = Path(process.cwd()), process.environ(), main_workspace()
    if Path(environment.get("DVC_ROOT") or folder).resolve() != main:
        return None
    parser = argparse.ArgumentParser(exit_on_error=False)
    for option in ("--clips", "--folds", "--species", "--mel", "--pseudo", "--curve"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--mel-others", type=Path, nargs="*", default=[])
    parser.add_argument("--fold", type=int)
    args, _ = parser.parse_known_args(arguments[arguments.index(STAGE) + 1 :])
    return Training(
        pid=process.pid,
        experiment=environment.get("DVC_EXP_NAME", ""),
        folder=folder,
        name=args.curve.stem,
        n_epochs=_n_epochs(folder),
        started=process.create_time(),
        run_started=_start_of_run(process),
        checkpoints=tuple(main / CHECKPOINTS / name for name in checkpoint_names(folder, args)),
    )


def _start_of_run(process: Any) -> float:
    """When the nearest dvc process above began; the process itself where there is none."""
    for parent in process.parents():
        if any(Path(word).name == "dvc" for word in parent.cmdline()[:3]):
            return float(parent.create_time())
    return float(process.create_time())


def _n_epochs(folder: Path) -> int | None:
    try:
        return int(read_full_tree(folder / "params.yaml")["train"]["epochs"])
    except (UserError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Interrupted:
    """A checkpoint that no running process goes on from."""

    fold: str
    n_epochs: int
    written: float
    """Unix time, s."""


def interrupted_trainings(running: Sequence[Training]) -> Iterator[Interrupted]:
    """What killed runs have left, the latest first."""
    claimed = {path for training in running for path in training.checkpoints}
    paths = set((main_workspace() / CHECKPOINTS).glob("*-fold*.pt")) - claimed
    found = []
    for path in paths:
        try:
            state = Interrupted(path.stem.rpartition("-")[2], len(read_history(path)), path.stat().st_mtime)
        except UNREADABLE:
            continue
        found.append(state)
    yield from sorted(found, key=lambda state: -state.written)


def read_curve(path: Path) -> Curve:
    """A finished learning curve; empty cells are None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(cell) if cell else None for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
