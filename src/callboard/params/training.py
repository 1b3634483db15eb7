"""The sections that `train` reads in addition to `model` and `loss`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params, Reference
from callboard.params.bounds import EPOCHS, FRAMES, MAX_FRAMES, MAX_MELS, MEL_ROWS, PROBABILITY, Within


class ClipParams(Params):
    """The `clip` section: the fixed-length cut that the model sees."""

    mode: Literal["event", "full"] = "event"
    """event: cut around a random annotation of the recording, slide over the recording when predicting.
    full: the whole recording, padded to the longest one; n_frames and offsets have no effect."""
    n_frames: Annotated[int, Within(1, MAX_FRAMES, "a batch of longer clips fits in no memory")] = 256
    offsets: Annotated[list[int], FRAMES] = Field([16, 32, 64, 128], min_length=1)
    """Frames from the clip's start to the event's centre; one is drawn per cut."""
    mel_rows: Annotated[tuple[int, int] | None, MEL_ROWS] = Field(None, strict=False)
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

    p: Annotated[float, PROBABILITY] = 0.5
    stage: Literal["before_norm", "after_norm"] = "before_norm"
    """Images that the chain acts on: those in [0, 1] (masks are black) or normalised ones (mean grey)."""
    time_mask: Annotated[int, FRAMES] = 0
    """Exclusive upper bound of the drawn width, frames, over the whole recording; 0 = off."""
    freq_mask: Annotated[int, MEL_ROWS] = 0
    """Exclusive upper bound of the drawn width, mel rows; 0 = off."""
    gamma: Annotated[float | None, Within(0.01, 100, "beyond, images become black or white")] = None
    """Exponent applied to the image; null = off."""
    brightness_contrast: Annotated[float, PROBABILITY] = 0.0
    """Probability of a random brightness and contrast change of up to 0.2, with its own coin flip."""
    freq_crop: Annotated[int | None, Within(1, MAX_MELS, "no image has more mel rows")] = None
    """Mel rows that a random crop along frequency keeps; null = off."""
    freq_crop_p: Annotated[float, PROBABILITY] = 0.5
    """Probability of that crop, one coin flip per batch, since a batch has one height."""


class MixupParams(Params):
    """The `mixup` section."""

    mode: Literal["none", "input", "last", "both"] = "none"
    """Arrays that are mixed. input: images. last: the backbone's feature maps. both: a pass of each."""
    alpha: Annotated[
        float, Within(0.001, 1000, "Beta draws only 0 and 1 below it, and only 0.5 above it")
    ] = 0.1
    """lambda ~ Beta(alpha, alpha), one draw per batch."""
    frame_targets: bool = True
    """Whether framewise and bandwise targets are mixed with the lambda and permutation of the images."""


class OptimParams(Params):
    """The `optim` section."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Annotated[
        float, Within(0, 10, "Adam moves each weight by about this much in a step", open_low=True)
    ] = 0.002
    weight_decay: Annotated[float, Within(0, 10, "more leaves only weights of 0")] = 0.0


class SchedParams(Params):
    """The `sched` section."""

    name: Literal["none", "cosine", "plateau"] = "none"
    t_max: Annotated[float, Within(0.01, 1e6, "no training has more epochs, nor so many periods")] = 20.0
    """Cosine: epochs of half a period; the rate rises again over the next t_max epochs."""
    eta_min: Annotated[float, Within(0, 10, "it is a learning rate, as optim.lr")] = 0.0
    """Cosine: the lowest rate."""
    factor: Annotated[float, Within(0, 1, "the rate falls, but not to 0", open_low=True, open_high=True)] = (
        0.5
    )
    """Plateau: factor applied to the rate when validation LWLRAP has stopped rising."""
    patience: Annotated[int, EPOCHS] = 3
    """Plateau: validations without a rise that do not lower the rate."""


AVERAGED_BY = {"ema": "ema_decay", "swa": "swa_epochs"}
"""Value of predict.weights to the key of `train` that must be above 0 for training to keep those weights."""


class TrainParams(Params):
    """The `train` section."""

    epochs: Annotated[int, Within(1, 10_000, "a training ends")] = 20
    batch_size: Annotated[
        int, Within(2, 4096, "batch normalisation needs two clips, and all of a batch are in memory")
    ] = 16
    threads: Annotated[int, Within(1, 1024, "no machine computes a step with more")] = 1
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
    fp_per_epoch: Annotated[int, Within(0, 1_000_000, "no data set has more FP recordings")] = 0
    """FP recordings drawn anew every epoch from the training folds; a rejected species is labelled absent.

    Assumes that a species rejected in a box is absent from the whole clip."""
    pseudo_weight: Annotated[
        float, Within(0, 1, "it is relative to annotations, which have 1", open_low=True)
    ] = 1.0
    """Label weight of pseudo-labels; TP and FP annotations have 1. It multiplies their targets, so where
    unlabelled cells count as absent (`loss.neg_mask` none), the rest of a positive counts as absent too."""
    labeled_share: Annotated[float | None, Within(0, 1, "it is a share of a batch", open_low=True)] = None
    """Minimum share of windows with a TP or FP annotation in each batch: all of them are shown, and of the
    others, which have only pseudo-labels, as many as fit are drawn anew every epoch. null = all."""
    ema_decay: Annotated[float, Within(0, 1, "a decay of 1 would never learn", open_high=True)] = 0.0
    """Decay of a moving average of the weights over steps, w ← decay · w + (1 - decay) · new, which
    `predict.weights` can select. It spans about 1 / (1 - decay) steps, and runs over all of them whatever
    epoch `select` keeps. 0 = no average."""
    swa_epochs: Annotated[int, EPOCHS] = 0
    """Number of last epochs whose final weights are averaged equally (stochastic weight averaging, Izmailov
    et al. 2018); the statistics of batch normalisation are then recomputed over an epoch of training images.
    0 = no average."""
    select: Literal["last", "best", "best_loss"] = "last"
    """best: keep the epoch with the best LWLRAP on the validation fold, which makes CV optimistic. best_loss:
    keep that with the lowest BCE of its recording scores there, which makes CV optimistic too."""
    validate_every: Annotated[int, EPOCHS] = 0
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
