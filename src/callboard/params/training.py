"""The sections that `train` reads in addition to `model` and `loss`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params, Reference


class ClipParams(Params):
    """The `clip` section: the fixed-length cut that the model sees."""

    mode: Literal["event", "full"] = "event"
    """event: cut around a random annotation of the recording, slide over the recording when predicting.
    full: the whole recording, padded to the longest one; n_frames and offsets have no effect."""
    n_frames: int = Field(256, gt=0)
    offsets: list[int] = Field([16, 32, 64, 128], min_length=1)
    """Frames from the clip's start to the event's centre; one is drawn per cut."""
    mel_rows: tuple[int, int] | None = Field(None, strict=False)
    """Half-open range of mel rows that the network sees, row 0 lowest; null = all."""

    @property
    def visible_mels(self) -> slice:
        """`mel_rows` as an index into the last axis of frames."""
        return slice(*self.mel_rows) if self.mel_rows else slice(None)

    @model_validator(mode="after")
    def _event_inside(self) -> Self:
        if bad := [offset for offset in self.offsets if not 0 < offset < self.n_frames]:
            raise ValueError(f"offsets {bad} put the event outside the clip of {self.n_frames} frames")
        return self

    @model_validator(mode="after")
    def _rows_in_order(self) -> Self:
        if self.mel_rows and not 0 <= self.mel_rows[0] < self.mel_rows[1]:
            raise ValueError(f"mel_rows must be [first, stop] with 0 <= first < stop, found {self.mel_rows}")
        return self


class AugmentParams(Params):
    """The `augment` section: one coin flip per clip for gamma, time mask and frequency mask together."""

    p: float = Field(0.5, ge=0, le=1)
    stage: Literal["before_norm", "after_norm"] = "before_norm"
    """Images that the chain acts on: those in [0, 1] (masks are black) or normalised ones (mean grey)."""
    time_mask: int = Field(0, ge=0)
    """Exclusive upper bound of the drawn width, frames, over the whole recording; 0 = off."""
    freq_mask: int = Field(0, ge=0)
    """Exclusive upper bound of the drawn width, mel rows; 0 = off."""
    gamma: float | None = Field(None, gt=0)
    """Exponent applied to the image; null = off."""
    brightness_contrast: float = Field(0.0, ge=0, le=1)
    """Probability of a random brightness and contrast change of up to 0.2, with its own coin flip."""
    freq_crop: int | None = Field(None, gt=0)
    """Mel rows that a random crop along frequency keeps; null = off."""
    freq_crop_p: float = Field(0.5, ge=0, le=1)
    """Probability of that crop, one coin flip per batch, since a batch has one height."""


class MixupParams(Params):
    """The `mixup` section."""

    mode: Literal["none", "input", "last", "both"] = "none"
    """Arrays that are mixed. input: images. last: the backbone's feature maps. both: a pass of each."""
    alpha: float = Field(0.1, gt=0)
    """lambda ~ Beta(alpha, alpha), one draw per batch."""
    frame_targets: bool = True
    """Whether framewise and bandwise targets are mixed with the lambda and permutation of the images."""


class OptimParams(Params):
    """The `optim` section."""

    name: Literal["adam", "adamw"] = "adam"
    lr: float = Field(0.002, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class SchedParams(Params):
    """The `sched` section."""

    name: Literal["none", "cosine", "plateau"] = "none"
    t_max: float = Field(20.0, gt=0)
    """Cosine: epochs of half a period; the rate rises again over the next t_max epochs."""
    eta_min: float = Field(0.0, ge=0)
    """Cosine: the lowest rate."""
    factor: float = Field(0.5, gt=0, lt=1)
    """Plateau: factor applied to the rate when validation LWLRAP has stopped rising."""
    patience: int = Field(3, ge=0)
    """Plateau: validations without a rise that do not lower the rate."""


AVERAGED_BY = {"ema": "ema_decay", "swa": "swa_epochs"}
"""Value of predict.weights to the key of `train` that must be above 0 for training to keep those weights."""


class TrainParams(Params):
    """The `train` section."""

    epochs: int = Field(20, gt=0)
    batch_size: int = Field(16, gt=1)
    threads: int = Field(1, gt=0)
    """Threads that a CPU computes a training step with. A different number rounds differently, which changes
    scores as much as a different seed. Small networks gain little from more: folds trained side by side, with
    one thread each, make better use of the processors."""
    init_from: Reference | None = None
    """Finished experiment that gives each fold its initial weights, from the same fold, with a new optimiser;
    data, folds and network must be equal. Replaces model.pretrained and model.weights. null = none."""

    items: Literal["annotations", "windows"] = "annotations"
    """Content of an epoch. annotations: one clip of each recording, around a random annotation; of FP
    recordings `fp_per_epoch`. windows: all windows of each recording, side by side, from a start that is
    random in every epoch."""
    skip_unlabeled: bool = True
    """Whether, with `items` windows, those without any label are left out: they have no loss where only
    labelled cells count. Batch normalisation, in training and in the running averages used for prediction,
    then has the statistics of labelled windows only."""
    labels: Literal["tp", "fp"] = "tp"
    """fp: a probe that trains on rejected boxes as if they were confirmed; CV is still on TP labels."""
    classes: Literal["species", "songtype"] = "species"
    """songtype: one class per song type; the score of a species is the largest of its song types'."""
    fp_per_epoch: int = Field(0, ge=0)
    """FP recordings drawn anew every epoch from the training folds; a rejected species is labelled absent.

    Assumes that a species rejected in a box is absent from the whole clip."""
    pseudo_weight: float = Field(1.0, gt=0, le=1)
    """Label weight of pseudo-labels; TP and FP annotations have 1. It multiplies their targets, so where
    unlabelled cells count as absent (`loss.neg_mask` none), the rest of a positive counts as absent too."""
    labeled_share: float | None = Field(None, gt=0, le=1)
    """Minimum share of windows with a TP or FP annotation in each batch: all of them are shown, and of the
    others, which have only pseudo-labels, as many as fit are drawn anew every epoch. null = all."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the weights over steps, w ← decay · w + (1 - decay) · new, which
    `predict.weights` can select. It spans about 1 / (1 - decay) steps, and runs over all of them whatever
    epoch `select` keeps. 0 = no average."""
    swa_epochs: int = Field(0, ge=0)
    """Number of last epochs whose final weights are averaged equally (stochastic weight averaging, Izmailov
    et al. 2018); the statistics of batch normalisation are then recomputed over an epoch of training images.
    0 = no average."""
    select: Literal["last", "best", "best_loss"] = "last"
    """best: keep the epoch with the best LWLRAP on the validation fold, which makes CV optimistic. best_loss:
    keep that with the lowest BCE of its recording scores there, which makes CV optimistic too."""
    validate_every: int = Field(0, ge=0)
    """Epochs between validations for the learning curve; 0 = none."""

    @model_validator(mode="after")
    def _epochs_to_average(self) -> Self:
        if self.swa_epochs > self.epochs:
            raise ValueError(f"swa_epochs {self.swa_epochs} is more than the {self.epochs} epochs")

        return self

    @model_validator(mode="after")
    def _best_needs_validation(self) -> Self:
        if self.select != "last" and self.validate_every == 0:
            raise ValueError(f"select {self.select} needs validate_every above 0")
        return self

    @model_validator(mode="after")
    def _share_of_windows(self) -> Self:
        if self.labeled_share is not None and self.items != "windows":
            raise ValueError("labeled_share acts on windows, but items is annotations")
        return self

    @model_validator(mode="after")
    def _unlabeled_windows_are_shown(self) -> Self:
        if not self.skip_unlabeled and self.items != "windows":
            raise ValueError(
                "skip_unlabeled false shows windows without a label too, but items is annotations; leave it "
                "true, or set items windows"
            )
        return self
