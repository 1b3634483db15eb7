"""The sections after training: predict, infer, evaluate, pseudo."""

from collections.abc import Iterable
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params, Reference
from callboard.params.bounds import FRAMES, MAX_FRAMES, RELATIVE_WEIGHT, SOFTENING, THRESHOLD, Within

Head = Literal["attention", "max", "attention_max", "segment_max", "attention_max_frequency"]
"""Heads that a probability comes from. attention_max: mean of both probabilities. segment_max: largest
segmentwise probability. attention_max_frequency: 0.4 each of attention and max, 0.1 each of the frequency
head's."""

MAX_ROUNDS = 3
"""Maximum number of rounds of pseudo-labels, for which dvc.yaml has stages."""


class PredictParams(Params):
    """The `predict` section: running the network over whole recordings."""

    overlap_frames: Annotated[int, FRAMES] = 0
    """Frames that neighbouring windows share."""
    batch_size: Annotated[int, Within(1, 65_536, "all windows of a batch are in memory at once")] = 128
    """Windows per forward pass."""
    weights: Literal["last", "ema", "swa"] = "last"
    """Weights that predict: those of a network's last step (or selected epoch), their moving average over
    steps (`train.ema_decay`), or their mean over the last epochs (`train.swa_epochs`). To measure the gain,
    windows are also scored with `last`, in additional forward passes; likewise with `tta`."""
    tta: Annotated[int, Within(0, 100, "each pass takes as long as prediction without it")] = 0
    """Passes over each window under the time and frequency masks of `augment`, with logits averaged; 0 = one
    pass without masks. Masks are drawn anew for each forward pass, so they depend on batch_size."""


class InferParams(Params):
    """The `infer` section: from stored window scores to one score per recording and species."""

    head: Head = "attention_max"
    window_agg: Literal["max", "mean"] = "max"
    fold_agg: Literal["mean", "max"] = "mean"
    """Aggregation over the models of all folds, which score test recordings; training recordings have one
    model."""
    fold_weights: Annotated[list[float], RELATIVE_WEIGHT] = Field(default_factory=list)
    """Weight of each fold of `split.folds` if `fold_agg` is mean, with any sum; empty = equal."""
    temperature: Annotated[float, SOFTENING] = 1.0
    """Divisor of the logits of every head before they become probabilities. Like `smoothing`, it acts on this
    experiment's own networks: the parts of a blend have their own."""
    smoothing: Annotated[list[float], RELATIVE_WEIGHT] = Field(default_factory=list)
    """Weights of the probabilities of a window and its neighbours in the recording, an odd number of them;
    at a recording's ends, those inside, rescaled to the same sum. Acts before `window_agg`; empty = off."""
    blend: list[Reference] = Field(default_factory=list)
    """Finished experiments whose combined scores replace this one's own: their mean, weighted by
    `blend_weights`, or a `stack`. Empty = off."""
    blend_weights: Annotated[list[float], RELATIVE_WEIGHT] = Field(default_factory=list)
    """Weight of each part of `blend`, with any sum; empty = equal."""
    stack: bool = False
    """Whether logistic regressions on out-of-fold scores combine the parts of `blend`, species by species."""
    prevalence: Annotated[float, Within(0, 10, "it is an exponent, 1 for the ratio as estimated")] = 0.0
    """Exponent of the ratio of estimated prevalences, scored set to training set, which multiplies each
    species' odds; 0 = off. CV does not change: the ratio is 1 for out-of-fold scores of the training set."""

    @model_validator(mode="after")
    def _smoothing_has_a_middle(self) -> Self:
        weights = self.smoothing
        if weights and (len(weights) % 2 == 0 or not weights[len(weights) // 2]):
            raise ValueError(f"smoothing {weights} must be an odd number of weights, the middle one above 0")
        return self

    @model_validator(mode="after")
    def _weights_of_folds(self) -> Self:
        if not self.fold_weights:
            return self
        if self.fold_agg != "mean":
            raise ValueError(f"fold_weights weigh a mean, but fold_agg is {self.fold_agg}")
        if not any(self.fold_weights):
            raise ValueError(f"fold_weights {self.fold_weights} must not be all 0")
        return self

    @model_validator(mode="after")
    def _weights_of_parts(self) -> Self:
        if self.blend_weights and len(self.blend_weights) != len(self.blend):
            raise ValueError(
                f"blend_weights has length {len(self.blend_weights)}, but blend has {len(self.blend)} parts"
            )
        if self.blend_weights and not any(self.blend_weights):
            raise ValueError(f"blend_weights {self.blend_weights} must not be all 0")
        if self.stack and (not self.blend or self.blend_weights):
            raise ValueError("stack combines the parts of blend and finds their weights itself")
        return self

    @model_validator(mode="after")
    def _parts_once(self) -> Self:
        if len(set(self.blend)) < len(self.blend):
            raise ValueError(f"blend {self.blend} names an experiment twice")
        return self


class EvaluateParams(Params):
    """The `evaluate` section."""

    n_bootstrap: Annotated[int, Within(0, 100_000, "more resamples do not change an interval")] = 0
    """Resamples of recordings for the 95 % interval of CV, at least 100; 0 = no interval. With groups
    (`split.group`) nothing is drawn, but 0 means no interval too."""

    @model_validator(mode="after")
    def _enough_for_an_interval(self) -> Self:
        if 0 < self.n_bootstrap < 100:
            raise ValueError(
                f"n_bootstrap {self.n_bootstrap} is too few for an interval; use 0, or 100 and more"
            )
        return self


def held_out_sets(folds: Iterable[int], size: int) -> list[str]:
    """Return all sets of `size` folds, each as text such as `0-1`."""
    return ["-".join(map(str, chosen)) for chosen in combinations(sorted(folds), size)]


FIVE_FOLDS = range(5)
"""The folds in params.yaml."""


class HeldOutParams(Params):
    """The `pseudo.held_out` section: all sets of folds that nested networks hold out.

    dvc.yaml has a stage for each. They follow from `split.folds`, but DVC cannot derive them; the defaults
    are for five folds.
    """

    pairs: list[str] = held_out_sets(FIVE_FOLDS, 2)
    """Sets that one round of students needs."""
    triples: list[str] = held_out_sets(FIVE_FOLDS, 3)
    """Further sets for two rounds."""
    quadruples: list[str] = held_out_sets(FIVE_FOLDS, 4)
    """Further sets for three rounds."""


class PseudoParams(Params):
    """The `pseudo` section: pseudo-labels between rounds of training."""

    rounds: Annotated[int, Within(0, MAX_ROUNDS, "dvc.yaml has stages for no more")] = 0
    """Rounds of students: those of round 1 learn from labels by networks of round 0, and so on. predict,
    evaluate and infer use the last round; 0 = no students."""
    source: Literal["train", "train_fp", "test", "external", "train_test", "train_external"] = "train"
    """Which recordings get pseudo-labels. train: all training ones. train_fp: those without a TP annotation.
    test: test recordings, which are then trained on around their pseudo-labels. external: those of
    `data.external`, in the same way. train_test, train_external: both sets."""
    isolation: Literal["recording", "nested", "none"] = "recording"
    """Models that label a training recording. recording: only the one that has not seen it, whatever its own
    pseudo-labels came from. nested: for the student of each fold, models that have seen neither the recording
    nor that fold, not even through labels of other models; with five folds this takes ten more models in the
    first round and twenty in the second. none: the models of all folds vote, as the original author's did;
    the board marks this CV."""
    held_out: HeldOutParams
    head: Head = "attention_max"
    """Head whose probability decides, independent of `infer.head`: a change of how scores are pooled must not
    retrain students. If only the attention logit was trained (`loss.labeled`), attention is closest to the
    truth."""
    threshold: Annotated[float, THRESHOLD] = 0.6
    """Lowest probability that gives a positive pseudo-label."""
    negative_threshold: Annotated[float | None, THRESHOLD] = None
    """Highest probability that gives a negative one, for the whole window; null = no negatives."""
    min_votes: Annotated[int, Within(1, 100, "the model of each fold has a vote")] = 3
    """Models that must agree where the models of all folds vote: on test and external recordings, and without
    isolation. Otherwise a training recording has one vote."""
    labels: Literal["hard", "soft"] = "hard"
    """hard: a positive's target is 1. soft: σ(logit / temperature) ^ power."""
    temperature: Annotated[float, SOFTENING] = 1.0
    power: Annotated[float, SOFTENING] = 1.0
    n_frames: Annotated[int, Within(1, MAX_FRAMES, "no clip has more frames")] = 96
    """Length of a positive pseudo-annotation, centred on the highest segment of its window, frames."""

    @property
    def all_vote(self) -> bool:
        """Whether the models of all folds vote on some recordings."""
        return self.source not in ("train", "train_fp") or self.isolation == "none"

    @property
    def n_held_out(self) -> int:
        """Number of folds that a model of round 0 holds out for the last student, besides its own."""
        return self.rounds if self.isolation == "nested" else 0

    @property
    def sets_held_out(self) -> dict[str, list[str]]:
        """Key of `held_out` to the sets that the nested networks of all rounds hold out."""
        return dict(list(self.held_out.model_dump().items())[: self.n_held_out])

    @model_validator(mode="after")
    def _thresholds_in_order(self) -> Self:
        if self.negative_threshold is not None and self.negative_threshold >= self.threshold:
            raise ValueError(
                f"negative_threshold {self.negative_threshold} must be below threshold {self.threshold}"
            )
        return self
