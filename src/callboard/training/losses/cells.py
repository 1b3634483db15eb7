"""The losses of single cells of a batch, and which cells have one.

Notation: w_c class weights, y targets, σ the sigmoid, BCE(x, y) binary cross-entropy on logits.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from callboard.training.targets import CellWeights


def pos_weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """BCE of every cell with its positive half times w_c."""
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")


def weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """w_c · BCE of every cell."""
    return weights * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def positives_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """w_c · y · BCE of every cell: a negative has no loss, a mixed target counts by its share."""
    return weights * targets * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """w_c · (1 - p_t)^gamma · BCE of every cell, p_t = yσ + (1 - y)(1 - σ) (Lin et al. 2017, no alpha)."""
    probability = torch.sigmoid(logits)
    miss = targets * (1 - probability) + (1 - targets) * probability
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weights * miss.clamp(min=1e-12) ** gamma * bce


def every_cell(targets: Tensor, is_labeled: Tensor) -> float:
    """Unlabelled cells count as negatives."""
    return 1.0


def positive_cells(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Only positives count, by their target; the mean still runs over all cells."""
    return targets


def labeled_cells(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Only labelled cells count, and the mean runs over their weight (over 1 where it is less)."""
    return is_labeled * (is_labeled.numel() / is_labeled.sum().clamp(min=1))


def labeled_share(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """A target speaks of the labelled share of its cell alone."""
    return is_labeled


TargetReading = Callable[[Tensor, Tensor], Tensor]
"""(targets, is_labeled) to what cells are compared with."""


def blended_target(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """The target as it is: what mixup blends in from an unlabelled cell counts as absent."""
    return targets


def known_target(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """The target of the labelled share of a cell alone.

    Mixup of a present and an unlabelled cell at share 0.3 gives target 0.3 of label weight 0.3: present, as
    far as anybody knows. Read as 0.3 it would teach that the other 0.7 are absent.
    """
    return targets / torch.where(is_labeled > 0, is_labeled, 1)


class CellLoss(Protocol):
    """A loss of cells with class weights."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of every cell."""


class NegMask(NamedTuple):
    """Which negatives have a loss, part by part, and how a target that mixup blended is read.

    Cell weights are factors in a mean over all cells.
    """

    attention_bce: CellLoss = pos_weighted_bce
    segment_cells: CellWeights = every_cell
    cells: CellWeights = every_cell
    """Those of the attention, max and position terms."""
    target: TargetReading = blended_target
    known: CellWeights = every_cell
    """The share of a cell that its target speaks of; what smoothing adds is added to that share."""


NEG_MASKS: dict[str, NegMask] = {
    "none": NegMask(),
    "clip": NegMask(attention_bce=positives_bce),
    "seq": NegMask(segment_cells=positive_cells),
    "unlabeled": NegMask(
        segment_cells=labeled_cells, cells=labeled_cells, target=known_target, known=labeled_share
    ),
}


def no_extra(logits: Tensor, targets: Tensor) -> float:
    """Nothing on top."""
    return 0.0


def negatives_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """1[y != 1] · BCE of every cell: a positive that mixup or smoothing took below 1 has a loss here too."""
    return (targets != 1) * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


POS_MASKS: dict[str, Callable[[Tensor, Tensor], Tensor | float]] = {"none": no_extra, "aux": negatives_bce}
"""(logits, targets) to what a clipwise term gets on top of its own loss of every cell."""
