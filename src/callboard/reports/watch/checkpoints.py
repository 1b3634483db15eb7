"""Checkpoints of unfinished trainings, seen from outside: what they are called, and the curve inside them.

Named as `stages.train` names them, and read without their tensors: neither needs torch, whose import is slow.
"""

import argparse
import hashlib
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.errors import UserError
from callboard.params.experiment import load_experiment

STAGE = "stages.train"
CHECKPOINTS = Path(".cache/checkpoints")
SECTIONS = {"seed", "clip", "augment", "mixup", "train", "model", "loss", "optim", "sched"}
"""Of params.yaml, that training reads."""

Curve = list[dict[str, float | None]]
"""A row per epoch, as in plots/train; see `curve.CURVE_COLUMNS`."""

UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    StopIteration,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What is raised for a file that is gone, cut short or of another kind."""


def checkpoint_names(folder: Path, args: argparse.Namespace) -> list[str]:
    """Those that `stages.train` may write to; none where an input is gone or refused.

    Args:
        folder: Where the training runs.
        args: Its arguments; paths relative to the folder.
    """
    tables = [args.clips, *([args.pseudo] if args.pseudo else [])]
    try:
        params = load_experiment(folder / "params.yaml").model_dump(include=SECTIONS)
        code = code_fingerprint(folder, STAGE)
        names = []
        n_others = range(len(args.mel_others) + 1)
        for others in chain.from_iterable(combinations(args.mel_others, count) for count in n_others):
            # other sets than the training set are opened where an annotation lies there
            indices = [cache / "index.csv" for cache in (args.mel, *others)]
            inputs = [folder / path for path in (*tables, args.folds, args.species, *indices)]
            names.append(f"{_digest(params, [*inputs, code])}-fold{args.fold}.pt")
    except (UserError, OSError):
        return []
    return names


def read_history(path: Path) -> Curve:
    """The learning curve inside a checkpoint, whose tensors are not read.

    Raises:
        One of UNREADABLE: no such file, or none that torch wrote.
    """
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        state = _WithoutTensors(io.BytesIO(archive.read(name))).load()
    history: Curve = state["history"]
    return history


def _digest(params: dict[str, Any], inputs: Iterable[Path | str]) -> str:
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode())
    for each in inputs:
        content = each.read_bytes() if isinstance(each, Path) else each.encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]


class _Nothing:
    """What stands where a checkpoint has a tensor."""

    def __init__(self, *args: object) -> None:
        pass


class _WithoutTensors(pickle.Unpickler):
    """Reads plain values; nothing that a file names is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _Nothing

    def persistent_load(self, pid: Any) -> Any:
        return None
