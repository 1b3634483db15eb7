"""The `loss` section: the terms of the loss and the treatment of unlabelled cells."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from callboard.params.base import Params
from callboard.params.bounds import THRESHOLD, WEIGHT, Within

FOCAL_GAMMA = Within(0, 20, "it is the exponent of a number below 1, and at 20 nothing is left of it")


class ClipTermParams(Params):
    """A clipwise term, which compares a pooled logit with the clip target."""

    weight: Annotated[float, WEIGHT] = 0.0
    """Factor in the sum; 0 = off."""
    kind: Literal["bce", "focal", "bce_focal"] = "bce"
    """bce_focal: the mean of both."""
    focal_weighted: bool = False
    """Whether the focal part has class weights; the BCE part follows `pos_weight`."""


class PseudoTermParams(Params):
    """The term that compares attention weights with the model's own thresholded framewise scores."""

    weight: Annotated[float, WEIGHT] = 0.0
    threshold: Annotated[float, THRESHOLD] = 0.7
    kind: Literal["bce", "focal"] = "bce"
    weighted: bool = True
    """Whether the term has class weights."""


class PositionTermParams(Params):
    """The term that compares attention weights with annotated segments."""

    weight: Annotated[float, WEIGHT] = 0.0
    kind: Literal["bce", "focal"] = "bce"


class SegmentTermParams(Params):
    """The term that compares segmentwise logits with framewise targets."""

    weight: Annotated[float, WEIGHT] = 0.0
    weighted: bool = True
    """Whether the term has class weights."""


class FrequencyTermParams(Params):
    """The term that repeats the attention, max, pseudo and segment terms on the frequency head."""

    weight: Annotated[float, WEIGHT] = 0.0


class LabeledTermParams(Params):
    """The term that compares the attention logit with labels and pseudo-labels; other cells have no gradient.

    It weights each cell by its labelled share, so `neg_mask` and `pos_mask` do not act on it. It is usually
    combined with weight 0 for every other term, weights of a first training (`train.init_from`), all windows
    (`train.items`) and all FP recordings.
    """

    weight: Annotated[float, WEIGHT] = 0.0
    positives: Literal["sum", "mean"] = "sum"
    """Reduction over the positives of a batch. sum: grows with the number of clips. mean: the sum divided by
    the positives' label weights (positive-sum decay)."""
    negatives: Literal["sum", "mean"] = "sum"
    """Likewise for negatives, divided by their label weights."""
    focal_gamma: Annotated[float, FOCAL_GAMMA] = 0.0
    """Exponent of the factor (1 - p)^gamma of positives; negatives have none. 0 = plain BCE."""
    class_weights: Literal["none", "largest", "smallest"] = "none"
    """Weights of positives, from counts of TP annotations in the training folds. largest: largest count /
    count, at least 1. smallest: smallest count / count, at most 1."""


class SmoothingParams(Params):
    """Label smoothing, applied before mixup."""

    target: Literal["none", "clip", "seq"] = "none"
    """Which targets are smoothed: clipwise (clip) or framewise ones (seq)."""
    mode: Literal["uniform", "negative"] = "uniform"
    """uniform: y (1 - eps) + eps / species. negative: y + (1 - y) eps / species, positives stay 1."""
    eps: Annotated[float, Within(0, 1, "it is the share of a label that is given away", open_high=True)] = 0.2


class LossParams(Params):
    """The `loss` section."""

    neg_mask: Literal["none", "clip", "seq", "unlabeled"] = "none"
    """Negatives left out of the loss. none: unlabelled cells count as negatives. clip: no negatives in the
    BCE part of the attention term. seq: no negatives in the segment term. unlabeled: in every term that has
    targets, only cells with a TP, FP or pseudo label count, in proportion to a mixup's labelled share."""
    pos_mask: Literal["none", "aux"] = "none"
    """aux: attention and max terms get a second BCE, over negatives only and without class weights, so that
    negatives count about twice. A positive that smoothing or mixup lowered below 1 is a negative there."""
    pos_weight: bool = False
    """Whether class weights (largest count / count of TP annotations in the training folds) multiply the
    positive half of clipwise BCE."""
    focal_gamma: Annotated[float, FOCAL_GAMMA] = 2.0
    attention: ClipTermParams
    max: ClipTermParams
    pseudo: PseudoTermParams
    position: PositionTermParams
    segment: SegmentTermParams
    frequency: FrequencyTermParams
    labeled: LabeledTermParams
    smoothing: SmoothingParams

    @model_validator(mode="after")
    def _mask_has_a_term(self) -> Self:
        if self.neg_mask == "seq" and self.segment.weight == 0:
            raise ValueError("neg_mask seq acts on the segment term, but segment.weight is 0")
        if self.neg_mask == "clip" and (self.attention.weight == 0 or self.attention.kind == "focal"):
            raise ValueError("neg_mask clip acts on the BCE part of the attention term, which is off")
        if self.smoothing.target == "seq" and self.segment.weight == 0:
            raise ValueError("smoothing.target seq acts on the segment term, but segment.weight is 0")
        has_clip_term = self.attention.weight or self.max.weight
        if self.pos_mask == "aux" and not has_clip_term:
            raise ValueError("pos_mask aux acts on the attention and max terms, but both have weight 0")
        if self.smoothing.target == "clip" and not (has_clip_term or self.labeled.weight):
            raise ValueError(
                "smoothing.target clip acts on the attention, max and labeled terms, but all have weight 0"
            )
        if self.frequency.weight and not any(
            term.weight for term in (self.attention, self.max, self.pseudo, self.segment)
        ):
            raise ValueError(
                "frequency repeats the attention, max, pseudo and segment terms, but all have weight 0"
            )
        if not any(term.weight for term in (self.attention, self.max, self.segment, self.labeled)):
            raise ValueError(
                "attention, max, segment and labeled all have weight 0: nothing would be learned"
            )
        return self

    @model_validator(mode="after")
    def _smoothing_invents_no_label(self) -> Self:
        if self.labeled.weight and self.smoothing.target == "clip" and self.neg_mask != "unlabeled":
            raise ValueError(
                f"smoothing.target clip with neg_mask {self.neg_mask} gives cells that nobody labelled a "
                "target, which the labeled term would treat as a label; set neg_mask unlabeled"
            )
        return self

    @model_validator(mode="after")
    def _masked_negatives_stay_masked(self) -> Self:
        if self.neg_mask == self.smoothing.target in ("clip", "seq"):
            raise ValueError(
                f"neg_mask {self.neg_mask} weights a cell by its target, but smoothing.target "
                f"{self.smoothing.target} gives every negative a target above 0: the mask would be undone"
            )
        return self
