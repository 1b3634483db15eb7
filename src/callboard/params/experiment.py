"""The whole of params.yaml, for `check` and for whoever must see an experiment at once."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from callboard.params.base import Seed, read_tree, validate
from callboard.params.data import DataParams
from callboard.params.features import FrontEndParams
from callboard.params.loss import LossParams
from callboard.params.model import ModelParams
from callboard.params.scoring import EvaluateParams, InferParams, PredictParams, PseudoParams
from callboard.params.split import SplitParams
from callboard.params.training import (
    AugmentParams,
    ClipParams,
    MixupParams,
    OptimParams,
    SchedParams,
    TrainParams,
)


class Experiment(FrontEndParams):
    """Every section; unknown ones are refused."""

    seed: Seed
    data: DataParams
    split: SplitParams
    clip: ClipParams
    augment: AugmentParams
    mixup: MixupParams
    model: ModelParams
    loss: LossParams
    optim: OptimParams
    sched: SchedParams
    train: TrainParams
    predict: PredictParams
    infer: InferParams
    evaluate: EvaluateParams
    pseudo: PseudoParams

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.predict.overlap_frames >= self.clip.n_frames:
            raise ValueError(
                f"predict.overlap_frames {self.predict.overlap_frames} must be below "
                f"clip.n_frames {self.clip.n_frames}"
            )
        demo_frames = int(self.data.demo.recording_length_s * self.frames_per_s)
        if self.data.source == "demo" and self.clip.n_frames > demo_frames:
            raise ValueError(
                f"clip.n_frames {self.clip.n_frames} is more than the {demo_frames} frames of "
                f"data.demo.recording_length_s {self.data.demo.recording_length_s}"
            )
        if self.augment.freq_mask > self.features.n_mels:
            raise ValueError(
                f"augment.freq_mask {self.augment.freq_mask} is more than "
                f"features.n_mels {self.features.n_mels}"
            )
        return self


def load_experiment(path: Path = Path("params.yaml")) -> Experiment:
    """All of params.yaml, checked.

    Raises:
        UserError: every problem found, one per line.
    """
    return validate(Experiment, read_tree(path), path)
