import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, log_loss

from callboard.data.folds import read_folds
from callboard.features.frame_cache import MelCache
from callboard.features.normalisation import normalise, to_unit
from callboard.model.class_axis import SpeciesModel
from callboard.model.detector import build_model
from callboard.model.heads import SedOutput
from callboard.model.weights import LoadedModel
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import score_out_of_fold
from callboard.scoring.window_scores import recording_scores
from callboard.training import validation
from callboard.training.validation import recording_probabilities, trained_heads, validate_epoch
from tests.toy_scoring import infer_params, predict_params
from tests.toy_training import CPU, SPECIES, fit_params

BOTH = ("attention", "max")


class Loudness(torch.nn.Module):
    """A network to follow by eye: a class's logit is the mean of its mel band over the clip."""

    def __init__(self, shift=0.0, first_row=0):
        super().__init__()
        self.shift, self.first_row = shift, first_row
        self.n_frames_seen = []

    def forward(self, image):
        self.n_frames_seen.append(image.shape[0] * image.shape[1])
        lowest = [self.first_row + 10 * k for k in range(3)]
        bands = torch.stack([image[:, :, k : k + 8].mean(dim=(1, 2)) for k in lowest], dim=1) + self.shift
        return SedOutput(bands, bands + 1, bands[:, None], bands[:, None], bands[:, None])


def probabilities_by_hand(root, data, network, starts, n_frames):
    """(validation recordings, species) from the cache, window by window."""
    cache, scores = MelCache.open(root / "mel"), []
    for row in data.validation:
        frames = torch.from_numpy(cache.read(cache.recording_ids[row]))
        windows = torch.stack([frames[start : start + n_frames] for start in starts])
        output = network(normalise(to_unit(windows)))
        scores.append(((output.attention.sigmoid() + output.max.sigmoid()) / 2).amax(dim=0).numpy())
    return np.array(scores)


def test_recording_probabilities_are_those_of_the_loudest_of_windows_side_by_side(root, data):
    expected = probabilities_by_hand(root, data, Loudness(), (0, 64, 86), 64)
    found = recording_probabilities(Loudness(), data, fit_params().clip, BOTH, CPU)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_validation_is_lwlrap_and_log_loss_of_the_recording_probabilities(data):
    scores = recording_probabilities(Loudness(), data, fit_params().clip, BOTH, CPU)
    found = validate_epoch(Loudness(), data, fit_params().clip, BOTH, CPU)
    assert found.lwlrap == pytest.approx(label_ranking_average_precision_score(data.is_present, scores))
    assert found.lwlrap == 1.0
    assert found.loss == pytest.approx(log_loss(data.is_present.ravel(), scores.ravel()))


def test_a_present_species_of_no_probability_costs_100(data):
    found = validate_epoch(Loudness(shift=-1000.0), data, fit_params().clip, BOTH, CPU)
    assert found.loss == pytest.approx(100 / 3)  # one of three species is present in each recording


def test_the_whole_recording_is_one_window_in_mode_full(root, data):
    clip = fit_params(clip__mode="full").clip
    expected = probabilities_by_hand(root, data, Loudness(), [0], 150)
    np.testing.assert_allclose(
        recording_probabilities(Loudness(), data, clip, BOTH, CPU), expected, rtol=1e-6
    )


def test_in_mode_full_recordings_are_padded_to_the_longest_of_the_set(data):
    longest = replace(data, n_frames=np.where(np.arange(len(data.n_frames)) == data.validation[0], 150, 100))
    network = Loudness()
    recording_probabilities(network, longest, fit_params(clip__mode="full").clip, BOTH, CPU)
    assert network.n_frames_seen == [len(data.validation) * 150]


@pytest.mark.parametrize("mode", ["event", "full"])
@pytest.mark.parametrize("n_frames", [1, 200, 300])
def test_the_frames_of_a_forward_pass_are_bounded_and_change_nothing(data, monkeypatch, mode, n_frames):
    clip, network = fit_params(clip__mode=mode).clip, Loudness()
    expected = recording_probabilities(Loudness(), data, clip, BOTH, CPU)
    monkeypatch.setattr(validation, "FRAMES_PER_PASS", n_frames)
    np.testing.assert_allclose(recording_probabilities(network, data, clip, BOTH, CPU), expected, rtol=1e-6)
    assert max(network.n_frames_seen) <= max(n_frames, 150 if mode == "full" else 64)
    assert len(network.n_frames_seen) > 1


def test_sure_scores_do_not_tie(data):
    sure = Loudness(shift=20.0)
    scores = recording_probabilities(sure, data, fit_params().clip, BOTH, CPU)
    assert (scores.astype(np.float32) == 1).all()
    assert validate_epoch(sure, data, fit_params().clip, BOTH, CPU).lwlrap == 1.0


def test_only_the_mel_rows_of_the_clip_are_seen(data):
    params = fit_params(), fit_params(clip__mel_rows=[2, 32])
    whole = recording_probabilities(Loudness(first_row=2), data, params[0].clip, BOTH, CPU)
    part = recording_probabilities(Loudness(), data, params[1].clip, BOTH, CPU)
    np.testing.assert_allclose(part, whole, rtol=1e-6)
    assert not np.allclose(part, recording_probabilities(Loudness(), data, params[0].clip, BOTH, CPU))


@pytest.mark.parametrize(
    ("attention", "max_weight", "labeled", "heads"),
    [
        (1.0, 0.5, 0.0, ["attention", "max"]),
        (1.0, 0.0, 0.0, ["attention"]),
        (0.0, 0.5, 0.0, ["max"]),
        (0.0, 0.0, 0.0, ["attention"]),
        (0.0, 0.5, 1.0, ["attention", "max"]),
        (0.0, 0.0, 1.0, ["attention"]),
    ],
)
def test_heads_with_a_term_of_the_loss_are_validated_or_attention(attention, max_weight, labeled, heads):
    """The labeled term trains the attention logit too."""
    weights = {"attention": attention, "max": max_weight, "labeled": labeled}
    loss = fit_params(**{f"loss__{name}__weight": weight for name, weight in weights.items()}).loss
    assert trained_heads(loss) == heads


@pytest.mark.parametrize("class_species", [[0, 1, 2], [0, 0, 1, 1, 2, 2]])
@pytest.mark.parametrize(("head", "max_weight"), [("attention_max", 0.5), ("attention", 0.0)])
def test_validation_scores_are_those_of_cv_on_the_same_windows(root, data, head, max_weight, class_species):
    params = fit_params(loss__max__weight=max_weight, model__attention="tanh")  # heads prefer other classes
    torch.manual_seed(0)
    network = build_model(params.model, len(class_species))
    fold = replace(
        data, class_species=np.array(class_species), n_tp_annotations=np.ones(len(class_species), dtype=int)
    )
    found = recording_probabilities(network, fold, params.clip, trained_heads(params.loss), CPU)

    cache, folds = MelCache.open(root / "mel"), read_folds(root / "folds.csv")
    names = [cache.recording_ids[row] for row in data.validation]
    model = SpeciesModel(network, class_species).eval()
    loaded = LoadedModel(model, SPECIES, 0, params.clip, frozenset(names))
    predict = predict_params(batch_size=5)
    scoring = ScoreParams(seed=0, augment=params.augment, predict=predict)
    cv = score_out_of_fold([loaded], cache, folds[folds["recording_id"].isin(names)], scoring, CPU)
    infer = infer_params(head=head)
    assert cv.recording_ids == names
    np.testing.assert_allclose(found, recording_scores(cv, infer), rtol=1e-5)


def test_a_fold_without_tp_has_no_validation(data):
    nothing = replace(data, validation=np.arange(0), is_present=np.zeros((0, 3), dtype=bool))
    found = validate_epoch(Loudness(), nothing, fit_params().clip, BOTH, CPU)
    assert math.isnan(found.lwlrap)
    assert math.isnan(found.loss)
