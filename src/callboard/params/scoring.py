"""The sections behind training: predict, infer, evaluate, pseudo."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params


class PredictParams(Params):
    """The `predict` section: running the network over whole recordings."""

    overlap_frames: int = Field(ge=0)
    """Frames that neighbouring windows share."""
    batch_size: int = Field(gt=0)
    """Windows per forward pass."""
    tta: int = Field(ge=0)
    """Passes over each window under the time and frequency masks of `augment`, their logits averaged; 0 = one
    pass without. The masks are drawn for each forward pass anew, so they depend on batch_size."""


class InferParams(Params):
    """The `infer` section: from stored window scores to one score per recording and species."""

    head: Literal["attention", "max", "attention_max", "segment_max", "attention_max_frequency"]
    """attention_max: mean of both probabilities. segment_max: largest segmentwise probability.
    attention_max_frequency: 0.4 each of attention and max, 0.1 each of the frequency head's."""
    window_agg: Literal["max", "mean"]
    fold_agg: Literal["mean", "max"]
    blend: list[Annotated[str, Field(pattern=r"^.+@[0-9a-f]{16}$")]]
    """Finished experiments as `name@key`, whose mean replaces this one's own scores; empty = off."""

    @model_validator(mode="after")
    def _parts_once(self) -> Self:
        if len(set(self.blend)) < len(self.blend):
            raise ValueError(f"blend {self.blend} names an experiment twice")
        return self


class EvaluateParams(Params):
    """The `evaluate` section."""

    n_bootstrap: int = Field(ge=0)
    """Resamples of recordings for the 95 % interval of CV, at least 100; 0 = no interval."""

    @model_validator(mode="after")
    def _enough_for_an_interval(self) -> Self:
        if 0 < self.n_bootstrap < 100:
            raise ValueError(
                f"n_bootstrap {self.n_bootstrap} is too few for an interval; use 0, or 100 and more"
            )
        return self


class RoundParams(Params):
    """One pass of pseudo-labelling: who teaches, who learns."""

    teacher: int = Field(ge=0)
    student: int = Field(ge=1)


class PseudoParams(Params):
    """The `pseudo` section: pseudo-labels between rounds of training."""

    rounds: list[RoundParams]
    """In order, e.g. [{teacher: 0, student: 1}]; empty = no student."""
    final: int = Field(ge=0)
    """The round that predict, evaluate and infer use: the last student, or 0."""
    source: Literal["train", "train_fp", "test"]
    """Which recordings get pseudo-labels. train: all training ones. train_fp: those without a TP annotation.
    test: test recordings, which then are trained on around their pseudo-labels."""
    threshold: float = Field(gt=0, lt=1)
    """Lowest probability that makes a pseudo-label."""
    min_votes: int = Field(ge=1)
    """Test recordings: folds whose model must reach the threshold. A training recording has one vote, of the
    model that has not seen it."""
    n_frames: int = Field(gt=0)
    """Length of a pseudo-annotation, centred on the highest segment of its window, frames."""

    @model_validator(mode="after")
    def _rounds_form_a_chain(self) -> Self:
        expected = [RoundParams(teacher=k, student=k + 1) for k in range(len(self.rounds))]
        if self.rounds != expected:
            raise ValueError(
                f"rounds must go 0 → 1 → …, found {[(r.teacher, r.student) for r in self.rounds]}"
            )
        if self.final != len(self.rounds):
            raise ValueError(f"final is {self.final}, but the last student of rounds is {len(self.rounds)}")
        return self
