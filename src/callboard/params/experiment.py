"""The whole of params.yaml, for code that needs all sections of an experiment at once."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from callboard.core.console import counted
from callboard.params.base import DEFAULT_SEED, Seed, read_tree, validate
from callboard.params.data import DataParams, SplitParams
from callboard.params.features import FrontEndParams
from callboard.params.loss import LossParams
from callboard.params.model import FRAMES_BACKBONE, ModelParams
from callboard.params.scale import ScaleParams
from callboard.params.scoring import (
    EvaluateParams,
    InferParams,
    PredictParams,
    PseudoParams,
    held_out_sets,
)
from callboard.params.training import (
    AVERAGED_BY,
    AugmentParams,
    ClipParams,
    MixupParams,
    OptimParams,
    SchedParams,
    TrainParams,
)


class Experiment(FrontEndParams):
    """All sections of params.yaml; unknown ones are refused."""

    seed: Seed = DEFAULT_SEED
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
    scale: ScaleParams

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
        return self

    @model_validator(mode="after")
    def _rows_exist(self) -> Self:
        n_mels, rows = self.features.n_mels, self.clip.mel_rows
        if rows and rows[1] > n_mels:
            raise ValueError(f"clip.mel_rows {list(rows)} reach beyond features.n_mels {n_mels}")
        n_rows = rows[1] - rows[0] if rows else n_mels
        for name, value in (
            ("freq_mask", self.augment.freq_mask),
            ("freq_crop", self.augment.freq_crop or 0),
        ):
            if value > n_rows:
                raise ValueError(f"augment.{name} {value} is more than the {n_rows} mel rows of a clip")
        return self

    @model_validator(mode="after")
    def _embeddings_are_no_images(self) -> Self:
        is_embedded, backbone = self.features.kind == "birdnet", self.model.backbone
        if is_embedded != (backbone == FRAMES_BACKBONE):
            raise ValueError(
                f"features.kind {self.features.kind} does not go with model.backbone {backbone}: embeddings "
                f"go with backbone {FRAMES_BACKBONE}, and nothing else does"
            )
        if not is_embedded:
            return self
        off = {
            "augment.time_mask": (self.augment.time_mask, 0),
            "augment.freq_mask": (self.augment.freq_mask, 0),
            "augment.gamma": (self.augment.gamma, None),
            "augment.brightness_contrast": (self.augment.brightness_contrast, 0),
            "augment.freq_crop": (self.augment.freq_crop, None),
            "predict.tta": (self.predict.tta, 0),
            "clip.mel_rows": (self.clip.mel_rows, None),
            "model.pretrained": (self.model.pretrained, False),
            "model.weights": (self.model.weights, None),
            "model.cbam": (self.model.cbam, False),
            "model.frequency_head": (self.model.frequency_head, False),
        }
        if on := [f"{name} {value}" for name, (value, neutral) in off.items() if value != neutral]:
            raise ValueError(
                f"{', '.join(on)}: for images only, but features.kind birdnet gives embeddings; turn off"
            )
        return self

    @model_validator(mode="after")
    def _frequency_head_where_needed(self) -> Self:
        is_there = self.model.frequency_head
        if self.loss.frequency.weight and not is_there:
            raise ValueError("loss.frequency.weight is above 0, but model.frequency_head is false")
        heads = {"infer.head": self.infer.head, "pseudo.head": self.pseudo.head}
        for name, head in heads.items():
            if head == "attention_max_frequency" and not self.loss.frequency.weight:
                raise ValueError(
                    f"{name} attention_max_frequency scores the frequency head, which "
                    "loss.frequency.weight 0 leaves untrained"
                )
        if is_there and self.augment.freq_crop:
            raise ValueError(
                "augment.freq_crop shifts mel rows, so model.frequency_head cannot learn where they are"
            )
        return self

    @model_validator(mode="after")
    def _votes_can_be_had(self) -> Self:
        n_folds, n_held_out = len(self.split.folds), self.pseudo.n_held_out
        if n_held_out > n_folds - 2:
            raise ValueError(
                f"pseudo.isolation nested with {counted(n_held_out, 'round')} holds out {n_held_out + 1} of "
                f"the {n_folds} folds, so none is left to train on; take fewer rounds or more folds"
            )
        if self.pseudo.min_votes > n_folds - n_held_out and self.pseudo.all_vote:
            without = f" without the {n_held_out} that pseudo.isolation nested holds out" * bool(n_held_out)
            raise ValueError(
                f"pseudo.min_votes {self.pseudo.min_votes} is more than the {n_folds} folds{without}"
            )
        return self

    @model_validator(mode="after")
    def _networks_hold_out_all_sets_of_folds(self) -> Self:
        for size, (name, found) in enumerate(self.pseudo.sets_held_out.items(), start=2):
            expected = held_out_sets(self.split.folds, size)
            if sorted(found) != sorted(expected):
                raise ValueError(
                    f"pseudo.held_out.{name} [{','.join(found)}] must be all sets of {size} of the "
                    f"{len(self.split.folds)} folds of split.folds, as pseudo.isolation nested needs each; "
                    f"set pseudo.held_out.{name}=[{','.join(expected)}]"
                )
        return self

    @model_validator(mode="after")
    def _external_recordings_are_there(self) -> Self:
        if "external" in self.pseudo.source and self.pseudo.rounds and not self.data.has_external:
            setting = "data.demo.n_external_recordings" if self.data.source == "demo" else "data.external"
            raise ValueError(
                f"pseudo.source {self.pseudo.source} labels external recordings, but there are none; "
                f"set {setting}"
            )
        return self

    @model_validator(mode="after")
    def _each_fold_has_a_weight(self) -> Self:
        n_weights, n_folds = len(self.infer.fold_weights), len(self.split.folds)
        if n_weights not in (0, n_folds):
            raise ValueError(
                f"infer.fold_weights has length {n_weights}, but split.folds has {n_folds} folds"
            )
        return self

    @model_validator(mode="after")
    def _averaged_weights_are_there(self) -> Self:
        name = AVERAGED_BY.get(self.predict.weights)
        if name and not getattr(self.train, name):
            raise ValueError(
                f"predict.weights {self.predict.weights} needs averaged weights, but train.{name} is 0"
            )
        return self

    @model_validator(mode="after")
    def _plateau_needs_validation(self) -> Self:
        if self.sched.name == "plateau" and self.train.validate_every == 0:
            raise ValueError("sched.name plateau follows validation, but train.validate_every is 0")
        return self

    @model_validator(mode="after")
    def _nested_networks_follow_no_validation(self) -> Self:
        settings = {
            f"train.select {self.train.select}": self.train.select != "last",
            f"sched.name {self.sched.name}": self.sched.name == "plateau",
        }
        following = [setting for setting, is_set in settings.items() if is_set]
        if self.pseudo.n_held_out and following:
            raise ValueError(
                f"{' and '.join(following)} follows validation, but pseudo.isolation nested validates "
                "networks on their student's fold too; set train.select last and a different sched.name"
            )
        return self


def load_experiment(path: Path = Path("params.yaml")) -> Experiment:
    """Load and check all of params.yaml.

    Raises:
        UserError: the message lists every problem, one per line.
    """
    return validate(Experiment, read_tree(path), path)
