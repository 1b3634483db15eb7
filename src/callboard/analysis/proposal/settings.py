"""Rules that propose settings: exp0051 at the size of a folder's data, for the machine that trains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from callboard.analysis.proposal.survey import LOW_HZ, Survey
from callboard.core.console import counted
from callboard.core.errors import UserError
from callboard.experiments.presets import preset_path, read_preset, with_values
from callboard.experiments.scaling import COMPETITION_FRAMES_PER_S
from callboard.experiments.table import ExperimentTable, Values, read_experiments
from callboard.features.log_mel import mel_filterbank
from callboard.params.features import FeatureParams
from callboard.params.scoring import HeldOutParams, held_out_sets

PROPOSED_ROW = "exp0051"
PRESET_ROW = "stage1"
"""A row with the sizes that the original author's rows leave to the workspace."""

LEAST_FP_PER_EPOCH = 0.03
"""Factor from which on the 30 recordings of exp0051 and the 50 of exp0050 do not become the same number."""

BAND_MARGIN = 1.1
"""Factor by which the band is wider than the boxes', which annotators draw tight."""

LOWEST_RATE = 8000
"""Lowest sample rate to which recordings are reduced, Hz: lower ones save little."""

USUAL_BAND = (LOW_HZ, 16000.0)
"""Band in Hz if no box has one: most birds and frogs call in it."""

SHORTEST_HOP_S, LONGEST_HOP_S = 0.001, 0.016
"""Range of the hop, seconds; the longest is the competition's."""

FRAMES_OF_A_BOX = 16
"""Least number of frames of nine boxes in ten."""

HOPS_OF_N_FFT = 8 / 3
"""Least length of the STFT window, in hops; that of params.yaml."""

MOST_HOPS_OF_N_FFT = 8

SEGMENT_FRAMES = 32
"""Number of frames that the backbone reduces to one segment."""

FEWEST_WINDOW_FRAMES = 2 * SEGMENT_FRAMES

MOST_WINDOW_S = 12.0
"""Longest window, seconds: half as long again as the competition's."""

CONTEXT = 1.25
"""Length of a window in long boxes, as in the competition (8.2 s for 7) and the soundscapes (4.1 s for 3.25).
With windows of twice the box, the soundscapes' CV was no higher (0.712, not 0.722) at 1.6 times the cost."""

COMPETITION_WINDOW = 512
"""Frames of the competition's window."""

COMPETITION_RECORDINGS = 906
"""Training recordings with calls, of all folds."""

MOST_FOLDS, FEWEST_FOLDS = 5, 3
FEWEST_EPOCHS, MOST_EPOCHS = 10, 100
SMALLEST_BATCH = 4


@dataclass(frozen=True)
class Recipe:
    """Sizes of network and training for a kind of machine."""

    n_mels: int
    backbone_args: dict[str, Any]
    is_pretrained: bool
    batch_size: int
    n_steps: int
    """Training steps of a fold, in all epochs."""
    learning_rate: float
    """`scale.learning_rate`."""
    why: str


SMALL = Recipe(
    n_mels=64,
    backbone_args={
        "layers": [1, 1, 1, 1],
        "channels": [16, 32, 64, 128],
        "stem_type": "deep",
        "stem_width": 8,
    },
    is_pretrained=False,
    batch_size=16,
    n_steps=250,
    learning_rate=2.0,
    why="small network, as on the soundscapes: no GPU was found",
)
"""Sizes of params.yaml as committed, and the number of steps of a fold on its soundscapes."""


def large_recipe() -> Recipe:
    """Return the sizes of the preset, and the number of steps that it takes on the competition's data."""
    preset = read_preset(preset_path("rfcx"))
    return Recipe(
        n_mels=preset["features.n_mels"],
        backbone_args=preset["model.backbone_args"],
        is_pretrained=preset["model.pretrained"],
        batch_size=preset["train.batch_size"],
        n_steps=600,
        learning_rate=preset["scale.learning_rate"],
        why="full network, as for the competition: a GPU was found",
    )


class Proposed(NamedTuple):
    """A value for a parameter."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Proposal:
    """Settings for a folder, and the whole experiment that they make of params.yaml."""

    survey: Survey
    settings: list[Proposed]
    values: Values
    """Dotted key to value of everything to write: the settings, and what follows from them."""
    tree: dict[str, Any]
    """Nested sections of params.yaml with these values."""

    @property
    def n_steps(self) -> int:
        """Training steps of an epoch of a fold."""
        batch_size: int = self.tree["train"]["batch_size"]
        return math.ceil(_n_clips(self.survey, self.tree) / batch_size)

    @property
    def n_longer_than_window(self) -> int:
        """Number of boxes longer than a window, without those of whole recordings."""
        boxes, n_frames = self.survey.boxes, self.tree["clip"]["n_frames"]
        is_longer = boxes["length_s"] * _frames_per_s(self.tree) > n_frames
        return int((is_longer & ~boxes["is_whole"]).sum())

    @property
    def n_beyond_band(self) -> int:
        """Number of boxes with a band that reaches beyond the analysed one."""
        boxes, features = self.survey.boxes, self.tree["features"]
        is_beyond = (boxes["f_max"] > features["f_max"]) | (boxes["f_min"] < features["f_min"])
        return int((is_beyond & boxes["has_band"]).sum())


def propose(survey: Survey, tree: Mapping[str, Any], recipe: Recipe) -> Proposal:
    """Propose settings for a folder.

    Args:
        survey: The folder.
        tree: Nested sections of the workspace's params.yaml; what is not proposed stays.
        recipe: Size of network and training.

    Raises:
        UserError: experiments.yaml cannot be read.
    """
    table = read_experiments()
    settings = [*_source(survey), *_band(survey)]
    settings += [*_audio(survey, _with(tree, settings)["features"]["f_max"]), *_model(recipe)]
    settings += _resolution(survey, _with(tree, settings), recipe)
    settings += _window(survey, _with(tree, settings))
    settings += _folds(survey)
    settings += _training(survey, _with(tree, settings), recipe, table)
    values = {setting.key: setting.value for setting in settings}
    values |= _following(table, _with(tree, settings))
    return Proposal(survey, settings, values, with_values(tree, values))


def _with(tree: Mapping[str, Any], settings: Sequence[Proposed]) -> dict[str, Any]:
    return with_values(tree, {setting.key: setting.value for setting in settings})


def _following(table: ExperimentTable, tree: dict[str, Any]) -> Values:
    """Return the values of the row, and the sizes and sets that it leaves to the workspace."""
    sizes, folds = table.resolve(PRESET_ROW, tree), tree["split"]["folds"]
    left = {key: sizes[key] for key in ("augment.time_mask", "pseudo.n_frames")}
    sets = {
        f"pseudo.held_out.{name}": held_out_sets(folds, size)
        for size, name in enumerate(HeldOutParams.model_fields, start=2)
    }
    return table.resolve(PROPOSED_ROW, tree) | left | sets


def _source(survey: Survey) -> list[Proposed]:
    n_skipped = len(survey.tables.skipped)
    why = f"{counted(n_skipped, 'recording')} cannot be used" if n_skipped else "all recordings can be used"
    return [
        Proposed("data.source", "own", "a folder of recordings and tables"),
        Proposed("data.root", survey.root, "that folder"),
        Proposed("data.on_bad_recording", "skip" if n_skipped else "error", why),
    ]


def _band(survey: Survey) -> list[Proposed]:
    rates = survey.recordings["sample_rate"]
    ceiling = float(rates.min()) / 2
    boxes = survey.boxes[survey.boxes["has_band"]]
    if boxes.empty:
        low, high = USUAL_BAND
        why = "no box has a band; most birds and frogs call in this one"
    else:
        lowest, highest = boxes["f_min"].quantile(0.01), boxes["f_max"].quantile(0.99)
        low = max(0.0, math.floor(lowest / BAND_MARGIN / 10) * 10.0)
        high = math.ceil(highest * BAND_MARGIN / 100) * 100.0
        why = f"boxes are in {lowest:.0f}–{highest:.0f} Hz, except 1 % at each end; widened by a tenth"
    if high >= ceiling:
        high, why = ceiling, f"{why}; at most half of the lowest sample rate, {rates.min()} Hz"
    return [Proposed("features.f_min", low, why), Proposed("features.f_max", high, why)]


def _audio(survey: Survey, f_max: float) -> list[Proposed]:
    """Propose the lowest sample rate that carries f_max and divides the most common rate, and the channel."""
    rates = survey.recordings["sample_rate"]
    usual, needed = int(rates.mode().iloc[0]), max(2 * f_max, LOWEST_RATE)
    parts = [part for part in range(1, usual) if usual % part == 0 and usual / part >= needed]
    rate = usual // max(parts, default=1)
    n_others = int((rates != rate).sum())
    why_rate = "the most common rate of the recordings"
    if rate != usual:
        why_rate = f"{usual} Hz, the most common rate, / {usual // rate}; enough for {f_max:.0f} Hz"
    return [
        Proposed("audio.sample_rate", rate, why_rate),
        Proposed(
            "audio.on_other_rate",
            "resample" if n_others else "error",
            f"{n_others} of {len(rates)} recordings are not at {rate} Hz",
        ),
        Proposed(
            "audio.channel",
            "mean" if survey.n_several_channels else None,
            f"{counted(survey.n_several_channels, 'recording')} with several channels",
        ),
    ]


def _model(recipe: Recipe) -> list[Proposed]:
    return [
        Proposed("model.backbone_args", recipe.backbone_args, recipe.why),
        Proposed("model.pretrained", recipe.is_pretrained, "true: timm's weights, from a model hub"),
        Proposed("model.weights", None, "no weights from a file"),
        Proposed("scale.learning_rate", recipe.learning_rate, "times the competition's, for this network"),
    ]


def _resolution(survey: Survey, tree: Mapping[str, Any], recipe: Recipe) -> list[Proposed]:
    """Propose hop, STFT window and mel rows, so that no mel row is empty."""
    rate: int = tree["audio"]["sample_rate"]
    short_s = float(survey.partial_boxes["length_s"].quantile(0.1))
    why_hop = "the competition's"
    hop_s = min(LONGEST_HOP_S, max(short_s / FRAMES_OF_A_BOX, SHORTEST_HOP_S))
    if hop_s < LONGEST_HOP_S:
        why_hop = f"{short_s / hop_s:.0f} frames for a box of {short_s:.3g} s; one in ten is shorter"
    hop = max(1, round(rate * hop_s))
    n_fft, n_mels = 2 ** math.ceil(math.log2(hop * HOPS_OF_N_FFT)), recipe.n_mels
    band = {edge: tree["features"][edge] for edge in ("f_min", "f_max")}

    def is_filled() -> bool:
        try:
            mel_filterbank(rate, FeatureParams(**band, hop_length=hop, n_fft=n_fft, n_mels=n_mels))
        except UserError:
            return False
        return True

    while n_mels > 1 and not is_filled():
        if n_fft < MOST_HOPS_OF_N_FFT * hop:
            n_fft *= 2
        else:
            n_mels -= 1
    return [
        Proposed("features.kind", "log_mel", "docs/embeddings.md has an alternative, BirdNET's embeddings"),
        Proposed("features.hop_length", hop, f"{1000 * hop / rate:.3g} ms: {why_hop}"),
        Proposed("features.n_fft", n_fft, f"{1000 * n_fft / rate:.3g} ms, so that no mel row is empty"),
        Proposed("features.n_mels", n_mels, f"at most {recipe.n_mels} for this network, none empty"),
    ]


def _frames_per_s(tree: Mapping[str, Any]) -> float:
    return float(tree["audio"]["sample_rate"] / tree["features"]["hop_length"])


def _window(survey: Survey, tree: Mapping[str, Any]) -> list[Proposed]:
    """Propose the factor of the window, which is a multiple of SEGMENT_FRAMES."""
    rate = _frames_per_s(tree)
    long_s = float(survey.partial_boxes["length_s"].quantile(0.95))
    wanted_s, why = CONTEXT * long_s, f"{CONTEXT:g} times a long box of {long_s:.3g} s; 5 % are longer"
    if survey.boxes["is_whole"].all():
        wanted_s, why = MOST_WINDOW_S, "boxes are whole recordings, of which a window shows a part"
    most_s = min(MOST_WINDOW_S, float(survey.recordings["length_s"].quantile(0.05)))
    if wanted_s > most_s:
        wanted_s = most_s
        why = f"at most {MOST_WINDOW_S:g} s or a short recording, though boxes have up to {long_s:.3g} s"
    n_segments = math.ceil(wanted_s * rate / SEGMENT_FRAMES)
    n_frames = SEGMENT_FRAMES * n_segments
    if n_frames < FEWEST_WINDOW_FRAMES:
        n_frames, why = FEWEST_WINDOW_FRAMES, f"the shortest window, for boxes of up to {long_s:.3g} s"
    factor = n_frames / COMPETITION_WINDOW / rate * COMPETITION_FRAMES_PER_S["log_mel"]
    return [Proposed("scale.window", round(factor, 4), f"{n_frames / rate:.3g} s, {n_frames} frames: {why}")]


def _group(survey: Survey) -> Proposed:
    """Propose that recordings of a site share a fold, if there are enough sites."""
    n_sites = survey.tables.train_tp["recording_id"].map(survey.sites).nunique()
    if n_sites < MOST_FOLDS:
        why = f"calls are at {counted(n_sites, 'site')} only" if n_sites else "sites are not known"
        return Proposed("split.group", "recording", f"each recording alone: {why}")
    return Proposed("split.group", survey.site_group, f"recordings of one of {n_sites} sites share a fold")


def _folds(survey: Survey) -> list[Proposed]:
    """Propose as many folds as the rarest species has recordings; with too few, five without it in some."""
    group, tp = _group(survey), survey.tables.train_tp
    units, what = survey.tp_contents, "recording"
    if group.value != "recording":
        units, what = tp["recording_id"].map(survey.sites), "site"
    counts = units.groupby(tp["species_id"]).nunique().sort_values()
    least = int(counts.iloc[0])
    rare = f"species {counts.index[0]} is present in {counted(least, what)} only"
    wanted = least if FEWEST_FOLDS <= least < MOST_FOLDS else MOST_FOLDS
    n_folds = min(wanted, int(units.nunique()))
    why, rule = "as usual", ("error", "each fold has all species")
    if n_folds < MOST_FOLDS:
        why = rare if n_folds == least else f"calls are in {counted(n_folds, what)} only"
    if least < n_folds:
        rule = "allow", f"{rare}, so some folds lack it"
    return [
        group,
        Proposed("split.folds", list(range(n_folds)), why),
        Proposed("split.rare_species", *rule),
    ]


def _training(
    survey: Survey, tree: Mapping[str, Any], recipe: Recipe, table: ExperimentTable
) -> list[Proposed]:
    """Propose sizes of epochs and batches, and the number of epochs."""
    n_recordings = survey.n_tp_recordings
    settings = [
        Proposed(
            "scale.fp_per_epoch",
            max(LEAST_FP_PER_EPOCH, round(n_recordings / COMPETITION_RECORDINGS, 2)),
            f"{n_recordings} recordings with calls, not {COMPETITION_RECORDINGS}; "
            f"at least {LEAST_FP_PER_EPOCH}",
        ),
        Proposed(
            "scale.epochs",
            1.2 if n_recordings < COMPETITION_RECORDINGS / 2 else 1.0,
            "times the epochs of presets; more where an epoch is short",
        ),
    ]
    sized = _with(tree, settings)
    n_clips = _n_clips(survey, with_values(sized, table.resolve(PROPOSED_ROW, sized)))
    quarter = 2 ** math.floor(math.log2(max(n_clips / 4, SMALLEST_BATCH)))
    batch_size = min(recipe.batch_size, quarter)
    n_steps = math.ceil(n_clips / batch_size)
    epochs = min(max(math.ceil(recipe.n_steps / n_steps), FEWEST_EPOCHS), MOST_EPOCHS)
    why = f"an epoch shows {n_clips} clips"
    return [
        *settings,
        Proposed("train.batch_size", batch_size, f"{why}; at most {recipe.batch_size} for this network"),
        Proposed(
            "train.epochs", epochs, f"{counted(n_steps, 'step')} each, for about {recipe.n_steps} in all"
        ),
        Proposed("sched.t_max", float(epochs), "the learning rate falls over all epochs"),
    ]


def _n_clips(survey: Survey, tree: Mapping[str, Any]) -> int:
    """Return the number of clips of an epoch: one of each training recording with calls, and FP clips."""
    share = 1 - 1 / len(tree["split"]["folds"])
    n_tp, n_fp = (
        math.ceil(table["recording_id"].nunique() * share)
        for table in (survey.tables.train_tp, survey.tables.train_fp)
    )
    fp_per_epoch: int = tree["train"]["fp_per_epoch"]
    return n_tp + min(fp_per_epoch, n_fp)
