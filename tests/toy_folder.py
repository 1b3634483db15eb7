"""A folder of one's own recordings of noise, with tables."""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import soundfile

from callboard.data.annotations import ANNOTATION_COLUMNS

Box = tuple[str, str, float, float, float, float]
"""recording_id, species_id, t_min, t_max (s), f_min, f_max (Hz)."""


def write_noise(path: Path, length_s: float, rate: int = 48000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(crc32(path.stem.encode())).standard_normal(int(length_s * rate))
    soundfile.write(path, 0.1 * noise, rate)


def write_boxes(folder: Path, name: str, boxes: Sequence[Box]) -> None:
    rows = [(recording, species, 1, t0, f0, t1, f1) for recording, species, t0, t1, f0, f1 in boxes]
    pd.DataFrame(rows, columns=ANNOTATION_COLUMNS).to_csv(folder / f"{name}.csv", index=False)


def make_folder(
    folder: Path,
    n_recordings: int = 12,
    length_s: float = 8.0,
    box: tuple[float, float, float, float] = (1.0, 2.0, 2000.0, 9000.0),
    rate: int = 48000,
    name: str = "rec{}",
) -> Path:
    """Recordings of two species, each with a box; and a rejected one and a test recording."""
    ids = [name.format(number) for number in range(n_recordings)]
    for recording_id in ids:
        write_noise(folder / f"train/{recording_id}.wav", length_s, rate)
    write_noise(folder / "test/later.wav", length_s, rate)
    write_boxes(folder, "train_tp", [(one, "ab"[k % 2], *box) for k, one in enumerate(ids)])
    write_boxes(folder, "train_fp", [(ids[0], "b", *box)])
    return folder
