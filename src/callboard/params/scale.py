"""The section `scale`: factors from sizes in experiments.yaml, the competition's, to those of other data."""

from typing import Annotated

from callboard.params.base import Params
from callboard.params.bounds import Within

FACTOR = Within(0.001, 1000, "beyond, nothing of a recipe for recordings of a minute is left")


class ScaleParams(Params):
    """The `scale` section. Only rows of experiments.yaml use it, when they are run; no stage reads it.

    null = what held before the section existed: the soundscapes' factors if data.source is demo, otherwise 1.
    """

    window: Annotated[float | None, FACTOR] = None
    """Length of a window as a factor of the competition's, 8.2 s: factor of clip.n_frames, clip.offsets,
    predict.overlap_frames and pseudo.n_frames. If it is set, numbers of frames and mel rows also follow
    `features`, and windows shorter than half of the competition's shorten augment.time_mask."""
    fp_per_epoch: Annotated[float | None, FACTOR] = None
    """Factor of train.fp_per_epoch."""
    learning_rate: Annotated[float | None, FACTOR] = None
    """Factor of optim.lr."""
    epochs: Annotated[float | None, FACTOR] = None
    """Factor of train.epochs and sched.t_max, where a row sets them."""
