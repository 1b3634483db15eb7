import pytest
import torch

from callboard.params.loss import SmoothingParams
from callboard.training.losses.cells import every_cell, labeled_share
from callboard.training.targets import SMOOTHED_FIELDS, SMOOTHING_MODES, Targets, smooth_targets

N_SPECIES = 4


def smoothing(target="clip", mode="uniform", eps=0.2):
    return SmoothingParams(target=target, mode=mode, eps=eps)


@pytest.fixture
def targets():
    """Two clips of five frames and three mel rows: present, rejected, and a cell nobody looked at."""
    cell, is_labeled = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    shapes = [(2, N_SPECIES), (2, 5, N_SPECIES), (2, 3, N_SPECIES)]
    clip, frame, band = (cell.expand(shape) for shape in shapes)
    by_clip, by_frame, by_band = (is_labeled.expand(shape) for shape in shapes)
    return Targets(clip, frame, by_clip, by_frame, band, by_band)


def test_uniform_smoothing_takes_from_the_present_and_gives_to_all(targets):
    smoothed = smooth_targets(targets, smoothing(), every_cell)
    torch.testing.assert_close(smoothed.clip[0], torch.tensor([0.85, 0.05, 0.05, 0.85]))


def test_negative_smoothing_leaves_positives_at_one(targets):
    smoothed = smooth_targets(targets, smoothing(mode="negative"), every_cell)
    torch.testing.assert_close(smoothed.clip[0], torch.tensor([1.0, 0.05, 0.05, 1.0]))


def test_the_share_of_a_cell_is_that_of_24_species():
    """The row exp0027: positives 0.8083, negatives 0.0083."""
    clip = torch.eye(24)
    blank = torch.zeros(24, 2, 24)
    smoothed = smooth_targets(Targets(clip, blank, clip, blank, blank, blank), smoothing(), every_cell).clip
    assert smoothed[0, 0].item() == pytest.approx(0.80833, abs=1e-5)
    assert smoothed[0, 1].item() == pytest.approx(0.00833, abs=1e-5)


@pytest.mark.parametrize("mode", SMOOTHING_MODES)
@pytest.mark.parametrize("target", SMOOTHED_FIELDS)
@pytest.mark.parametrize("known", [every_cell, labeled_share])
def test_without_epsilon_smoothing_is_none(targets, target, mode, known):
    smoothed = smooth_targets(targets, smoothing(target, mode, 0.0), known)
    assert all(torch.equal(*pair) for pair in zip(smoothed, targets, strict=True))


@pytest.mark.parametrize(
    ("target", "softened"), [("none", set()), ("clip", {"clip"}), ("seq", {"frame", "band"})]
)
@pytest.mark.parametrize("mode", SMOOTHING_MODES)
def test_only_the_named_targets_are_softened_and_no_label_weight(targets, target, softened, mode):
    smoothed = smooth_targets(targets, smoothing(target, mode), every_cell)
    differing = {
        name for name in Targets._fields if not torch.equal(getattr(smoothed, name), getattr(targets, name))
    }
    assert differing == softened


@pytest.mark.parametrize("mode", SMOOTHING_MODES)
def test_where_targets_speak_of_labelled_cells_alone_the_others_stay_zero(targets, mode):
    smoothed = smooth_targets(targets, smoothing(mode=mode), labeled_share)
    everywhere = smooth_targets(targets, smoothing(mode=mode), every_cell)
    assert (smoothed.clip[targets.clip_labeled == 0] == 0).all()
    is_labeled = targets.clip_labeled == 1
    torch.testing.assert_close(smoothed.clip[is_labeled], everywhere.clip[is_labeled])


def test_every_kind_of_smoothing_of_the_params_is_in_a_table():
    fields = SmoothingParams.model_fields
    assert set(SMOOTHED_FIELDS) == set(fields["target"].annotation.__args__)
    assert set(SMOOTHING_MODES) == set(fields["mode"].annotation.__args__)
