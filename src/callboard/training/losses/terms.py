"""The loss: a weighted sum of terms, each a mean over cells.

Notation: w_c class weights, y targets, σ the sigmoid, BCE(x, y) binary cross-entropy on logits.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from callboard.core.errors import UserError
from callboard.model.heads import SedOutput
from callboard.params.loss import ClipTermParams, LossParams
from callboard.training.losses.cells import (
    NEG_MASKS,
    POS_MASKS,
    CellLoss,
    focal,
    pos_weighted_bce,
    weighted_bce,
)
from callboard.training.targets import Targets, smooth_targets


def largest_over_count(counts: Tensor) -> Tensor:
    """Return class weights w_c = largest count / count; 1 for a species without annotations."""
    return torch.where(counts > 0, counts.max() / counts.clamp(min=1), torch.ones_like(counts))


def smallest_over_count(counts: Tensor) -> Tensor:
    """Return class weights w_c = smallest count above 0 / count; 1 for a species without annotations."""
    present = counts[counts > 0]
    smallest = present.min() if len(present) else 1
    return torch.where(counts > 0, smallest / counts.clamp(min=1), torch.ones_like(counts))


ClassWeights = Mapping[str, Tensor]
"""(species,) weights by the name of their rule."""

CLASS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.ones_like,
    "largest": largest_over_count,
    "smallest": smallest_over_count,
}
"""Rules from the number of TP annotations of each species to weights."""


CLIP_KINDS: dict[str, tuple[str, ...]] = {"bce": ("bce",), "focal": ("focal",), "bce_focal": ("bce", "focal")}
"""Parts of a clipwise term, whose value is their mean."""

POSITION_KINDS: dict[str, Callable[[LossParams], CellLoss]] = {
    "bce": lambda params: weighted_bce,
    "focal": lambda params: partial(focal, gamma=params.focal_gamma),
}
"""Losses that compare attention weights with 0 and 1."""


class Term(Protocol):
    """One term of the loss."""

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the term's unweighted value, a scalar."""


class ClipTerm:
    """Comparison of a clipwise logit with the clip target: the mean over cells of the mean of its parts.

    `pos_mask` adds to the loss of every cell before that mean, so `neg_mask` applies to the addition too.
    """

    def __init__(
        self, head: str, term: ClipTermParams, params: LossParams, class_weights: ClassWeights
    ) -> None:
        mask = NEG_MASKS[params.neg_mask]
        bce = mask.attention_bce if head == "attention" else pos_weighted_bce
        parts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "bce": partial(bce, weights=class_weights["largest" if params.pos_weight else "none"]),
            "focal": partial(
                focal,
                weights=class_weights["largest" if term.focal_weighted else "none"],
                gamma=params.focal_gamma,
            ),
        }
        self.head = head
        self.cells, self.target = mask.cells, mask.target
        self.extra = POS_MASKS[params.pos_mask]
        self.parts = [parts[name] for name in CLIP_KINDS[term.kind]]

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the term's unweighted value."""
        logits = getattr(output, self.head)
        target = self.target(targets.clip, targets.clip_labeled)
        loss = torch.stack([part(logits, target) for part in self.parts]).mean(dim=0)
        loss = loss + self.extra(logits, target)
        return (self.cells(targets.clip, targets.clip_labeled) * loss).mean()


class PseudoTerm:
    """Comparison of attention weights, taken as logits, with the network's own thresholded scores.

    The targets 1[σ(z) ≥ threshold] carry no gradient: the term only draws attention to segments in which the
    network detects the species.
    """

    def __init__(self, params: LossParams, class_weights: ClassWeights) -> None:
        self.threshold = params.pseudo.threshold
        self.loss = POSITION_KINDS[params.pseudo.kind](params)
        self.weights = class_weights["largest" if params.pseudo.weighted else "none"]

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the mean over batch and species of w_c times the mean over time."""
        believed = (output.framewise.detach().sigmoid() >= self.threshold).float()
        return self.loss(output.attention_weights, believed, self.weights).mean()


class PositionTerm:
    """Comparison of attention weights, taken as logits, with annotated segments; no class weights."""

    def __init__(self, params: LossParams, class_weights: ClassWeights) -> None:
        mask = NEG_MASKS[params.neg_mask]
        self.cells, self.target = mask.cells, mask.target
        self.loss = POSITION_KINDS[params.position.kind](params)
        self.weights = class_weights["none"]

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the mean over batch, segments and species."""
        n_segments = output.attention_weights.shape[1]
        annotated = reduce_to_segments(targets.frame, n_segments)
        is_labeled = reduce_to_segments(targets.frame_labeled, n_segments)
        loss = self.loss(output.attention_weights, self.target(annotated, is_labeled), self.weights)
        return (self.cells(annotated, is_labeled) * loss).mean()


class SegmentTerm:
    """Comparison of segmentwise logits, repeated to frames, with annotated frames."""

    def __init__(self, params: LossParams, class_weights: ClassWeights) -> None:
        mask = NEG_MASKS[params.neg_mask]
        self.cells, self.target = mask.segment_cells, mask.target
        self.weights = class_weights["largest" if params.segment.weighted else "none"]

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the mean over batch and species of w_c times the mean over time."""
        logits = repeat_to_frames(output.segment, targets.frame.shape[1])
        target = self.target(targets.frame, targets.frame_labeled)
        loss = weighted_bce(logits, target, self.weights)
        return (self.cells(targets.frame, targets.frame_labeled) * loss).mean()


def repeat_to_frames(segments: Tensor, n_frames: int) -> Tensor:
    """Repeat segments to frames, (batch, frames, species): frame t is segment t · segments // frames."""
    n_segments = segments.shape[1]
    return segments[:, torch.arange(n_frames, device=segments.device) * n_segments // n_frames]


def reduce_to_segments(frames: Tensor, n_segments: int) -> Tensor:
    """Reduce frames to (batch, segments, species): the maximum over the frames that a segment touches.

    Segment s spans frames s · frames / segments to (s + 1) · frames / segments; where that is not a whole
    number, a frame belongs to both its segments.
    """
    return F.adaptive_max_pool1d(frames.transpose(1, 2), n_segments).transpose(1, 2)


class LabeledTerm:
    """Loss of the attention logit in labelled cells: positives and negatives, each summed by label weight.

    With P the share of a cell that is labelled present and N the share that is labelled absent:
    Σ w_c · P · (1 - p)^gamma · BCE(x, 1) + Σ N · BCE(x, 0), p = σ(x); for a mean, a sum is divided by ΣP or
    ΣN. An unlabelled cell has neither share, so `neg_mask` has no effect here; mixup blends both shares.
    Without a positive, or a negative, the mean of that half is 0.
    """

    def __init__(self, params: LossParams, class_weights: ClassWeights) -> None:
        self.gamma = params.labeled.focal_gamma
        self.weights = class_weights[params.labeled.class_weights]
        self.divisors = DIVISORS[params.labeled.positives], DIVISORS[params.labeled.negatives]

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the term's unweighted value."""
        logits, positive = output.attention, targets.clip
        negative = (targets.clip_labeled - positive).clamp(min=0)  # rounding in mixup can make it negative
        of_positives = focal(logits, torch.ones_like(logits), self.weights, self.gamma)
        of_negatives = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")
        divide_positives, divide_negatives = self.divisors
        return (positive * of_positives).sum() / divide_positives(positive) + (
            negative * of_negatives
        ).sum() / divide_negatives(negative)


DIVISORS: dict[str, Callable[[Tensor], Tensor | float]] = {
    "sum": lambda shares: 1.0,
    "mean": lambda shares: shares.sum().clamp(min=1e-8),
}
"""Divisors of the sum over cells, by `labeled.positives` and `labeled.negatives`."""


class FrequencyTerm:
    """HEAD_TERMS applied to the frequency head, with bands of mel rows in place of frames.

    Its value is their weighted sum, with the weights of the terms themselves.
    """

    def __init__(self, params: LossParams, class_weights: ClassWeights) -> None:
        self.mirrored = WeightedSum(HEAD_TERMS, params, class_weights)

    def __call__(self, output: SedOutput, targets: Targets) -> Tensor:
        """Return the term's unweighted value.

        Raises:
            UserError: the network has no frequency head.
        """
        if output.frequency is None:
            raise UserError(
                "loss.frequency.weight is above 0, but the network has no frequency head; "
                "set model.frequency_head=true"
            )
        rows = targets._replace(frame=targets.band, frame_labeled=targets.band_labeled)
        value, _ = self.mirrored(output.frequency, rows)
        return value


BuildTerm = Callable[[LossParams, ClassWeights], Term]
"""Builds a term from the `loss` section and class weights."""

HEAD_TERMS: dict[str, BuildTerm] = {
    "attention": lambda params, weights: ClipTerm("attention", params.attention, params, weights),
    "max": lambda params, weights: ClipTerm("max", params.max, params, weights),
    "pseudo": PseudoTerm,
    "segment": SegmentTerm,
}
"""Terms of either head, by the name of their section in `loss`."""

TERMS: dict[str, BuildTerm] = {
    **HEAD_TERMS,
    "position": PositionTerm,
    "frequency": FrequencyTerm,
    "labeled": LabeledTerm,
}
"""All terms, by the name of their section in `loss`."""


class WeightedSum:
    """Sum of a table's terms whose weight is not 0."""

    def __init__(self, table: dict[str, BuildTerm], params: LossParams, class_weights: ClassWeights) -> None:
        self.factors = {name: factor for name in table if (factor := getattr(params, name).weight)}
        self.terms = {name: table[name](params, class_weights) for name in self.factors}

    def __call__(self, output: SedOutput, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum, and each term's unweighted value without gradient."""
        values = {name: term(output, targets) for name, term in self.terms.items()}
        total = torch.stack([self.factors[name] * value for name, value in values.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}


class Loss(WeightedSum):
    """Sum of all terms whose weight is not 0, on targets that `smooth` softened before mixup."""

    def __init__(self, params: LossParams, n_annotations: Tensor) -> None:
        """Build the terms.

        Args:
            params: The `loss` section.
            n_annotations: (species,) TP annotations of the training part of a fold, on the device of the
                logits; class weights come from them.
        """
        counts = n_annotations.float()
        super().__init__(TERMS, params, {name: rule(counts) for name, rule in CLASS_WEIGHTS.items()})
        self._smoothing = build_smoothing(params)

    def smooth(self, targets: Targets) -> Targets:
        """Return targets softened by `loss.smoothing`; call this before clips are blended."""
        return self._smoothing(targets)


def build_smoothing(params: LossParams) -> Callable[[Targets], Targets]:
    """Return the function that softens the targets of a batch.

    Where unlabelled cells count as absent, they are softened like absent ones. With neg_mask unlabeled they
    are left unchanged: no term reads them, and blending with one must not change what a labelled cell says.
    The masks that take targets as factors (clip, seq) do not allow smoothing of those same targets.
    """
    known = NEG_MASKS[params.neg_mask].known
    return partial(smooth_targets, smoothing=params.smoothing, known=known)
