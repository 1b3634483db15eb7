"""The loss: a weighted sum of terms, each a mean over cells, and what becomes of cells that nobody labelled.

Notation: w_c class weights, y targets, σ the sigmoid, BCE(x, y) binary cross-entropy on logits.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from callboard.model import SedOutput
from callboard.params.loss import ClipTermParams, LossParams


class Targets(NamedTuple):
    """What a batch of clips is compared with; all float in [0, 1], fractions come from mixup."""

    clip: Tensor
    """(batch, species): the species has an annotated frame in the clip."""
    frame: Tensor
    """(batch, frames, species): the frame is annotated."""
    clip_labeled: Tensor
    """(batch, species): weight of a TP, FP or pseudo label in the clip; 0 = nobody looked.

    Assumes that a box rejected for a species says: the species is absent from that clip. The expert said so
    of the box alone.
    """
    frame_labeled: Tensor
    """(batch, frames, species): the same for each frame."""


def count_to_weights(n_annotations: NDArray) -> Tensor:  # type: ignore[type-arg]
    """Class weights w_c = largest count / count; 1 for a species without any.

    Args:
        n_annotations: (species,) TP annotations of the training part of a fold.
    """
    counts = torch.as_tensor(n_annotations, dtype=torch.float32)
    return torch.where(counts > 0, counts.max() / counts.clamp(min=1), torch.ones_like(counts))


def pos_weighted_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """BCE of every cell with its positive half times w_c."""
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")


def positives_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """w_c · y · BCE of every cell: a negative has no loss, a mixed target counts by its share."""
    return weights * targets * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """w_c · (1 - p_t)^gamma · BCE of every cell, p_t = yσ + (1 - y)(1 - σ) (Lin et al. 2017, no alpha)."""
    probability = torch.sigmoid(logits)
    miss = targets * (1 - probability) + (1 - targets) * probability
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weights * miss.clamp(min=1e-12) ** gamma * bce


CellWeights = Callable[[Tensor, Tensor], Tensor | float]
"""(targets, is_labeled) to the factors of cells in a mean over all of them."""


def every_cell(targets: Tensor, is_labeled: Tensor) -> float:
    """Unlabelled cells count as negatives."""
    return 1.0


def positive_cells(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Only positives count, by their target; the mean still runs over all cells."""
    return targets


def labeled_cells(targets: Tensor, is_labeled: Tensor) -> Tensor:
    """Only labelled cells count, and the mean runs over their weight (over 1 where it is less)."""
    return is_labeled * (is_labeled.numel() / is_labeled.sum().clamp(min=1))


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


class WeightedBce(Protocol):
    """A BCE of cells with class weights."""

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of every cell."""


class NegMask(NamedTuple):
    """Which negatives have a loss, part by part, and how a target that mixup blended is read."""

    attention_bce: WeightedBce = pos_weighted_bce
    clip_cells: CellWeights = every_cell
    segment_cells: CellWeights = every_cell
    target: TargetReading = blended_target


NEG_MASKS: dict[str, NegMask] = {
    "none": NegMask(),
    "clip": NegMask(attention_bce=positives_bce),
    "seq": NegMask(segment_cells=positive_cells),
    "unlabeled": NegMask(clip_cells=labeled_cells, segment_cells=labeled_cells, target=known_target),
}

CLIP_KINDS: dict[str, tuple[str, ...]] = {"bce": ("bce",), "focal": ("focal",), "bce_focal": ("bce", "focal")}
"""The parts of a clipwise term; it is their mean."""


class Term(Protocol):
    """One term of the loss."""

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """The term's unweighted value, a scalar."""


class ClipTerm:
    """A clipwise logit against the clip target: the mean over cells of the mean of its parts."""

    def __init__(self, head: str, term: ClipTermParams, params: LossParams, class_weights: Tensor) -> None:
        mask = NEG_MASKS[params.neg_mask]
        no_weights = torch.ones_like(class_weights)
        bce = mask.attention_bce if head == "attention" else pos_weighted_bce
        parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "bce": partial(bce, weights=class_weights if params.pos_weight else no_weights),
            "focal": partial(
                focal,
                weights=class_weights if term.focal_weighted else no_weights,
                gamma=params.focal_gamma,
            ),
        }
        self.head = head
        self.cells, self.target = mask.clip_cells, mask.target
        self.parts = [parts[name] for name in CLIP_KINDS[term.kind]]

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """The term's unweighted value."""
        logits = getattr(output, self.head)
        target = self.target(targets.clip, targets.clip_labeled)
        loss = torch.stack([part(logits, target) for part in self.parts]).mean(dim=0)
        return (self.cells(targets.clip, targets.clip_labeled) * loss).mean()


class PseudoTerm:
    """Attention weights, taken as logits, against the network's own thresholded scores 1[σ(z) ≥ threshold].

    The targets carry no gradient: the term only draws attention to segments that the network believes in.
    """

    def __init__(self, params: LossParams, class_weights: Tensor) -> None:
        self.threshold = params.pseudo.threshold
        self.weights = class_weights if params.pseudo.weighted else torch.ones_like(class_weights)

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """The mean over batch and species of w_c times the mean over time."""
        believed = (output.framewise.detach().sigmoid() >= self.threshold).float()
        loss = F.binary_cross_entropy_with_logits(output.attention_weights, believed, reduction="none")
        return (self.weights * loss).mean()


class SegmentTerm:
    """Segmentwise logits, repeated to frames, against annotated frames."""

    def __init__(self, params: LossParams, class_weights: Tensor) -> None:
        mask = NEG_MASKS[params.neg_mask]
        self.cells, self.target = mask.segment_cells, mask.target
        self.weights = class_weights if params.segment.weighted else torch.ones_like(class_weights)

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """The mean over batch and species of w_c times the mean over time."""
        logits = repeat_to_frames(output.segment, targets.frame.shape[1])
        target = self.target(targets.frame, targets.frame_labeled)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (self.cells(targets.frame, targets.frame_labeled) * self.weights * loss).mean()


def repeat_to_frames(segments: Tensor, n_frames: int) -> Tensor:
    """(batch, segments, species) as (batch, frames, species): frame t is segment t · segments // frames."""
    n_segments = segments.shape[1]
    return segments[:, torch.arange(n_frames, device=segments.device) * n_segments // n_frames]


TERMS: dict[str, Callable[[LossParams, Tensor], Term]] = {
    "attention": lambda params, weights: ClipTerm("attention", params.attention, params, weights),
    "max": lambda params, weights: ClipTerm("max", params.max, params, weights),
    "pseudo": PseudoTerm,
    "segment": SegmentTerm,
}
"""Every term by the name of its section in `loss`."""


class Loss:
    """The sum of the terms whose weight is not 0."""

    def __init__(self, params: LossParams, class_weights: Tensor) -> None:
        self.factors = {name: factor for name in TERMS if (factor := getattr(params, name).weight)}
        self.terms = {name: TERMS[name](params, class_weights) for name in self.factors}

    def __call__(self, output: SedOutput, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each term's unweighted value without gradient."""
        values = {name: term(output, targets) for name, term in self.terms.items()}
        total = torch.stack([self.factors[name] * value for name, value in values.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}
