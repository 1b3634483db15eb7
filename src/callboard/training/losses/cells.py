"""Losses of single cells of a batch, and masks of the cells that count.

Notation: w_c class weights, y targets, σ the sigmoid, BCE(x, y) binary cross-entropy on logits.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from callboard.training.targets import CellWeights


def pos_weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return BCE of every cell, with its positive half multiplied by w_c."""
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")


def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return w_c · BCE of every cell."""
    return weights * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def positives_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return w_c · y · BCE of every cell: a negative has no loss, a mixed target counts by its share."""
    return weights * targets * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Return w_c · (1 - p_t)^gamma · BCE of every cell (Lin et al. 2017, no alpha).

    p_t = yσ + (1 - y)(1 - σ).
    """
    probability = torch.sigmoid(logits)
    miss = targets * (1 - probability) + (1 - targets) * probability
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weights * miss.clamp(min=1e-12) ** gamma * bce


def every_cell(targets: Tensor, is_labeled: Tensor) -> float:
    """Count every cell: unlabelled ones are negatives."""
    return 1.0


def positive_cells(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Count only positives, weighted by their target; the mean still runs over all cells."""
    return targets


def labeled_cells(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Count only labelled cells; the mean becomes one over their weight (over 1 if that is less)."""
    return is_labeled * (is_labeled.numel() / is_labeled.sum().clamp(min=1))


def labeled_share(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Return the label weight: a target describes only the labelled share of its cell."""
    return is_labeled


TargetReading = Callable[[Tensor, Tensor], Tensor]
"""Maps (targets, is_labeled) to what cells are compared with."""


def blended_target(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Return the target unchanged: what mixup blends in from an unlabelled cell counts as absent."""
    return targets


def known_target(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Return the target of the labelled share of a cell.

    Mixup of a present and an unlabelled cell at share 0.3 gives target 0.3 with label weight 0.3: present, as
    far as is known. A target of 0.3 would teach that the other 0.7 are absent.
    """
    return targets / torch.where(is_labeled > 0, is_labeled, 1)


class CellLoss(Protocol):
    """Loss of cells with class weights."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of every cell."""


class NegMask(NamedTuple):
    """Masks of negatives for each part of the loss, and the reading of targets blended by mixup.

    Cell weights are factors in a mean over all cells.
    """

    attention_bce: CellLoss = pos_weighted_bce
    segment_cells: CellWeights = every_cell
    cells: CellWeights = every_cell
    """Cells of the attention, max and position terms."""
    target: TargetReading = blended_target
    known: CellWeights = every_cell
    """Share of a cell that its target describes; smoothing adds to that share."""


NEG_MASKS: dict[str, NegMask] = {
    "none": NegMask(),
    "clip": NegMask(attention_bce=positives_bce),
    "seq": NegMask(segment_cells=positive_cells),
    "unlabeled": NegMask(
        segment_cells=labeled_cells, cells=labeled_cells, target=known_target, known=labeled_share
    ),
}


def no_extra(logits: Tensor, targets: Tensor) -> float:
    """Return 0: nothing is added."""
    return 0.0


def negatives_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1[y != 1] · BCE of every cell, including positives that mixup or smoothing lowered below 1."""
    return (targets != 1) * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


POS_MASKS: dict[str, Callable[[Tensor, Tensor], Tensor | float]] = {"none": no_extra, "aux": negatives_bce}
"""Map (logits, targets) to what a clipwise term adds to its own loss of every cell."""
