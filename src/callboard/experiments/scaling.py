"""Factors from sizes in the table of experiments, which are the competition's, to those of other data."""

import math
from typing import Any

from callboard.params.features import FrontEndParams
from callboard.params.scale import ScaleParams

TIME_KEYS = ("clip.n_frames", "clip.offsets", "predict.overlap_frames", "pseudo.n_frames")
"""Numbers of frames that are shares of a window."""

TIME_MASK = "augment.time_mask"

MEL_ROW_KEYS = ("clip.mel_rows", "augment.freq_mask", "augment.freq_crop")
"""Numbers of mel rows."""

COMPETITION_FRAMES_PER_S = {"log_mel": 62.5, "birdnet": 2.0}
"""Kind of features to the frame rate, per second, at which the table counts frames."""

COMPETITION_N_MELS = 128

SHORT_WINDOW = 0.5
"""Factor of the window below which a time mask shrinks with it, so that it hides at most a sixth of a window
(40 of 256 frames); above, it keeps its length in seconds."""

SOUNDSCAPES = ScaleParams(window=0.5, fp_per_epoch=0.26, learning_rate=2.0, epochs=1.2)
"""The soundscapes' factors from before the section `scale` existed, which params.yaml now lists.

Recordings of 20 s, not 60: with windows half as long each still has several. 192 recordings with calls in
training, not 725: 30, 50 and 10 with rejected boxes become 8, 13 and 3. A small network that starts from
random weights learns at twice the rate. For presets, an epoch has a quarter of the clips."""

COMPETITION = ScaleParams(window=1.0, fp_per_epoch=1.0, learning_rate=1.0, epochs=1.0)
"""The competition's own sizes, which all other data had before the section existed."""


def factors(scale: ScaleParams, source: str, front_end: FrontEndParams) -> dict[str, float]:
    """Return the factor of each key of the table that is a size, by dotted key.

    Args:
        scale: The section of the workspace.
        source: `data.source`, on which the factors depended before the section existed.
        front_end: The features that the row runs with.
    """
    before = SOUNDSCAPES if source == "demo" else COMPETITION
    known: dict[str, float] = before.model_dump() | scale.model_dump(exclude_none=True)
    found = {
        "train.fp_per_epoch": known["fp_per_epoch"],
        "optim.lr": known["learning_rate"],
        "train.epochs": known["epochs"],
        "sched.t_max": known["epochs"],
    }
    if scale.window is None:
        return found | dict.fromkeys((*TIME_KEYS, *MEL_ROW_KEYS), known["window"])
    frame_rate = front_end.frames_per_s / COMPETITION_FRAMES_PER_S[front_end.features.kind]
    return (
        found
        | dict.fromkeys(TIME_KEYS, scale.window * frame_rate)
        | {TIME_MASK: min(1.0, scale.window / SHORT_WINDOW) * frame_rate}
        | dict.fromkeys(MEL_ROW_KEYS, front_end.features.n_mels / COMPETITION_N_MELS)
    )


def scaled(value: Any, factor: float) -> Any:
    """Return a number times `factor`, whole ones rounded half up; lists element by element, null as it is."""
    match value:
        case list():
            return [scaled(element, factor) for element in value]
        case int():
            return math.floor(value * factor + 0.5)
        case float():
            return value * factor
        case _:
            return value
