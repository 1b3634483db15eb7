"""Validation of a network while it trains, and selection of the epoch to keep."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from callboard.features.normalisation import normalise, to_unit
from callboard.features.windows import clip_length, plan_windows
from callboard.model.class_axis import SpeciesModel
from callboard.model.detector import SedModel
from callboard.model.device import autocast
from callboard.params.loss import LossParams
from callboard.params.training import ClipParams
from callboard.scoring.metrics import lwlrap
from callboard.training.batches import gather_clips
from callboard.training.fold_data import FoldData

FRAMES_PER_PASS = 2**15
"""Frames of windows per forward pass, so that long windows take no more memory than short ones."""


class Validation(NamedTuple):
    """Quality of the recording scores of the TP recordings on the TP labels.

    NaN if there are no such recordings, or if a score is not finite.
    """

    lwlrap: float
    loss: float
    """Mean over (recording, species) of BCE, each logarithm bounded at -100 as in torch."""


SELECTIONS: dict[str, Callable[[Validation], float]] = {
    "best": lambda validation: validation.lwlrap,
    "best_loss": lambda validation: -validation.loss,
}
"""Measures by `train.select`: the epoch with the highest is kept; `last` needs no validation."""


def trained_heads(loss: LossParams) -> list[str]:
    """Return the clipwise outputs with a loss term of their own; attention if neither has one."""
    weights = {"attention": loss.attention.weight or loss.labeled.weight, "max": loss.max.weight}
    return [name for name, weight in weights.items() if weight] or ["attention"]


def validate_epoch(
    model: SedModel, data: FoldData, clip: ClipParams, heads: Sequence[str], device: torch.device
) -> Validation:
    """Compare `recording_probabilities` with the annotations: a quick estimate for the learning curve."""
    if not len(data.validation):
        return Validation(math.nan, math.nan)
    scores = recording_probabilities(model, data, clip, heads, device)
    if not np.isfinite(scores).all():
        return Validation(math.nan, math.nan)
    rank_score = lwlrap(data.is_present, scores)
    bce = F.binary_cross_entropy(torch.from_numpy(scores), torch.from_numpy(data.is_present).double())
    return Validation(rank_score, bce.item())


def recording_probabilities(
    model: SedModel, data: FoldData, clip: ClipParams, heads: Sequence[str], device: torch.device
) -> NDArray[np.float64]:
    """Return (validation recordings, species) probabilities: mean over heads, maximum over windows.

    Equals what predict and infer compute out of fold with windows side by side.

    Args:
        model: Network with any classes; a species is the maximum of its own in each head. Left in eval mode.
        data: Data of the fold.
        clip: The `clip` section.
        heads: Clipwise fields of SedOutput, weighted equally; training passes `trained_heads`.
        device: Device of the model.
    """
    n_species = data.is_present.shape[1]
    has_songtypes = data.n_classes > n_species
    speaking = (SpeciesModel(model, data.class_species) if has_songtypes else model).eval()
    n_frames = clip_length(clip, data.n_frames)
    windows = plan_windows(data.n_frames[data.validation], n_frames, overlap_frames=0)
    scores = np.zeros((len(data.validation), n_species))
    n_together = max(FRAMES_PER_PASS // n_frames, 1)
    for first in range(0, len(windows.recording), n_together):
        part = slice(first, first + n_together)
        row, start = windows.recording[part], windows.start_frame[part]
        recording = data.validation[row]
        first_frame, n_valid = data.first_frame[recording] + start, data.n_frames[recording] - start
        frames = gather_clips(data.frames, first_frame, n_valid, n_frames, device)
        np.maximum.at(scores, row, _probabilities(speaking, frames[..., clip.visible_mels], heads))
    return scores


@torch.inference_mode()
def _probabilities(
    model: SedModel | SpeciesModel, frames: Tensor, heads: Sequence[str]
) -> NDArray[np.float64]:
    """Return (windows, species) in double precision, in which high probabilities tie less early."""
    image = normalise(to_unit(frames))
    with autocast(image):
        output = model(image)
    logits = torch.stack([getattr(output, name) for name in heads]).double().cpu().numpy()
    mean: NDArray[np.float64] = expit(logits).mean(axis=0)
    return mean
