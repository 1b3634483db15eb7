import numpy as np
import pytest
import torch

from callboard.losses import (
    CLIP_KINDS,
    NEG_MASKS,
    TERMS,
    Loss,
    Targets,
    count_to_weights,
    focal,
    known_target,
    labeled_cells,
    pos_weighted_bce,
    positives_bce,
    repeat_to_frames,
)
from callboard.mixup import Mixing
from callboard.model import SedOutput
from callboard.params.loss import ClipTermParams, LossParams
from tests.toy_training import loss_params

N_CLIPS, N_SEGMENTS, N_FRAMES, N_SPECIES = 3, 2, 8, 4
WEIGHTS = torch.tensor([1.0, 2.0, 4.0, 1.5])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bce(x, y):
    return np.logaddexp(0, x) - x * y


@pytest.fixture
def output():
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(N_CLIPS, N_SEGMENTS, N_SPECIES, generator=rng) * 2
    weights = torch.rand(N_CLIPS, N_SEGMENTS, N_SPECIES, generator=rng)
    attention = torch.randn(N_CLIPS, N_SPECIES, generator=rng) * 2
    columns = (attention, torch.flip(attention, (0,)), logits, weights, logits * 1.5)
    return SedOutput(*(column.clone().requires_grad_() for column in columns))


@pytest.fixture
def targets():
    rng = torch.Generator().manual_seed(2)
    frame = (torch.rand(N_CLIPS, N_FRAMES, N_SPECIES, generator=rng) < 0.3).float() * 0.75
    labeled = torch.maximum(frame, (torch.rand(frame.shape, generator=rng) < 0.3).float())
    return Targets(frame.amax(dim=1), frame, labeled.amax(dim=1), labeled)


def numpy_of(*tensors):
    return [tensor.detach().double().numpy() for tensor in tensors]


def test_class_weights_are_the_largest_count_over_the_count():
    assert count_to_weights(np.array([8, 4, 1])).tolist() == [1.0, 2.0, 8.0]


def test_a_species_without_annotations_weighs_one():
    assert count_to_weights(np.array([6, 0, 3])).tolist() == [1.0, 1.0, 2.0]


def test_pos_weight_multiplies_the_positive_half_only():
    loss = pos_weighted_bce(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([3.0, 3.0]))
    np.testing.assert_allclose(loss, [[3 * np.log(2), np.log(2)]], rtol=1e-6)


def test_focal_by_hand():
    # p = 0.8: a positive misses by 0.2, a negative by 0.8
    logits = torch.full((1, 2), float(np.log(4)))
    loss = focal(logits, torch.tensor([[1.0, 0.0]]), torch.tensor([1.0, 5.0]), gamma=2.0)
    np.testing.assert_allclose(loss, [[0.04 * -np.log(0.8), 5 * 0.64 * -np.log(0.2)]], rtol=1e-5)


def test_focal_with_gamma_zero_is_bce():
    logits, targets = torch.randn(4, 3), torch.rand(4, 3)
    weights = torch.ones(3)
    torch.testing.assert_close(
        focal(logits, targets, weights, 0.0), pos_weighted_bce(logits, targets, weights)
    )


def test_focal_has_a_finite_gradient_where_nothing_is_missed():
    logits = torch.tensor([[200.0]], requires_grad=True)
    focal(logits, torch.ones(1, 1), torch.ones(1), gamma=0.5).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_without_negatives_a_mixed_target_counts_by_its_share():
    loss = positives_bce(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.25, 0.0]]), torch.tensor([2.0, 2.0]))
    np.testing.assert_allclose(loss, [[2 * 0.25 * bce(1.0, 0.25), 0.0]], rtol=1e-6)


def test_labelled_cells_are_averaged_over_their_weight():
    is_labeled = torch.tensor([[1.0, 0.0, 0.5, 0.0]])
    loss = torch.tensor([[3.0, 9.0, 6.0, 9.0]])
    assert (labeled_cells(loss, is_labeled) * loss).mean().item() == pytest.approx((3 + 0.5 * 6) / 1.5)


def test_nothing_labelled_is_no_loss():
    assert (labeled_cells(torch.ones(2, 2), torch.zeros(2, 2)) * torch.ones(2, 2)).mean().item() == 0


def test_frame_t_shows_segment_t_times_segments_over_frames():
    segments = torch.arange(3.0)[None, :, None]
    assert repeat_to_frames(segments, 8)[0, :, 0].tolist() == [t * 3 // 8 for t in range(8)]


def expected_attention(output, targets):
    x, y, w = numpy_of(output.attention, targets.clip, WEIGHTS)
    weighted_bce = w * y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    miss = y * (1 - sigmoid(x)) + (1 - y) * sigmoid(x)
    return ((weighted_bce + w * miss**2 * bce(x, y)) / 2).mean()


def expected_segment(output, targets, cells):
    seg, y, w = numpy_of(output.segment, targets.frame, WEIGHTS)
    seg = np.repeat(seg, N_FRAMES // N_SEGMENTS, axis=1)
    return (w * (cells * bce(seg, y)).mean(axis=1)).mean()


def test_every_term_follows_its_formula(output, targets):
    total, terms = Loss(loss_params(), WEIGHTS)(output, targets)
    x, y, w = numpy_of(output.max, targets.clip, WEIGHTS)
    a, z, _ = numpy_of(output.attention_weights, output.framewise, output.segment)
    by_hand = {
        "attention": expected_attention(output, targets),
        "max": (w * y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)).mean(),
        "pseudo": (w * bce(a, (sigmoid(z) >= 0.7)).mean(axis=1)).mean(),
        "segment": expected_segment(output, targets, 1.0),
    }
    for name, value in by_hand.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5)
    weighted = by_hand["attention"] + 0.5 * by_hand["max"] + by_hand["pseudo"] + 0.5 * by_hand["segment"]
    assert total.item() == pytest.approx(weighted, rel=1e-5)


def test_seq_keeps_annotated_frames_only_and_divides_by_all(output, targets):
    """The row exp0058: w_c / T · sum over t of y · BCE(seg, y)."""
    _, terms = Loss(loss_params(neg_mask="seq"), WEIGHTS)(output, targets)
    assert terms["segment"].item() == pytest.approx(
        expected_segment(output, targets, numpy_of(targets.frame)[0]), rel=1e-5
    )


def test_clip_keeps_positives_only_in_the_bce_part_of_attention(output, targets):
    """The row exp0057: mean of w_c · y · BCE(attention, y); its focal part and the other terms stay."""
    _, plain = Loss(loss_params(), WEIGHTS)(output, targets)
    _, terms = Loss(loss_params(neg_mask="clip"), WEIGHTS)(output, targets)
    x, y, w = numpy_of(output.attention, targets.clip, WEIGHTS)
    miss = y * (1 - sigmoid(x)) + (1 - y) * sigmoid(x)
    by_hand = ((w * y * bce(x, y) + w * miss**2 * bce(x, y)) / 2).mean()
    assert terms["attention"].item() == pytest.approx(by_hand, rel=1e-5)
    assert all(terms[name] == plain[name] for name in ("max", "pseudo", "segment"))


def gradients(params, output, targets):
    for column in output:
        column.grad = None
    Loss(params, WEIGHTS)(output, targets)[0].backward()
    return {
        name: torch.zeros_like(column) if column.grad is None else column.grad.clone()
        for name, column in output._asdict().items()
    }


def test_a_masked_cell_has_no_gradient(output, targets):
    seq = gradients(loss_params(neg_mask="seq"), output, targets)["segment"]
    has_frame = targets.frame.unflatten(1, (N_SEGMENTS, -1)).amax(dim=2) > 0
    assert torch.equal(seq != 0, has_frame)
    only_bce = {"neg_mask": "clip", "attention__kind": "bce"}
    assert torch.equal(
        gradients(loss_params(**only_bce), output, targets)["attention"] != 0, targets.clip > 0
    )


def test_unlabeled_cells_have_no_gradient_in_any_term_with_targets(output, targets):
    found = gradients(loss_params(neg_mask="unlabeled"), output, targets)
    assert torch.equal(found["attention"] != 0, targets.clip_labeled > 0)
    assert torch.equal(found["max"] != 0, targets.clip_labeled > 0)
    is_labeled = targets.frame_labeled.unflatten(1, (N_SEGMENTS, -1)).amax(dim=2) > 0
    assert torch.equal(found["segment"] != 0, is_labeled)


def test_unlabeled_with_every_cell_labelled_is_none(output, targets):
    targets = targets._replace(
        clip_labeled=torch.ones_like(targets.clip), frame_labeled=torch.ones_like(targets.frame)
    )
    plain, _ = Loss(loss_params(), WEIGHTS)(output, targets)
    masked, _ = Loss(loss_params(neg_mask="unlabeled"), WEIGHTS)(output, targets)
    torch.testing.assert_close(masked, plain)


SHARE = 0.5
BLENDED = Mixing(SHARE, torch.tensor([1, 0]), frame_targets=True)


def one_confirmed_and_one_unlabelled_clip():
    """Two clips of one species: there in the first, nobody looked in the second."""
    clip, frame = torch.tensor([[1.0], [0.0]]), torch.tensor([1.0, 0.0])[:, None, None].expand(2, N_FRAMES, 1)
    return Targets(clip, frame, clip, frame)


@pytest.mark.parametrize("name", ["attention", "max", "segment"])
def test_mixup_with_a_clip_nobody_looked_at_teaches_no_absence(output, name):
    params = loss_params(neg_mask="unlabeled", attention__kind="bce")
    output = SedOutput(*(column[:2, ..., :1].detach().clone().requires_grad_() for column in output))
    term = Loss(params, torch.ones(1)).terms[name]
    mixed = BLENDED.blend_targets(one_confirmed_and_one_unlabelled_clip())
    loss = term(output, mixed)
    loss.backward()
    logits = getattr(output, name)
    assert (logits.grad <= 0).all()
    np.testing.assert_allclose(loss.item(), bce(numpy_of(logits)[0], 1).mean(), rtol=1e-5)


def test_a_lone_mixed_clip_has_its_share_of_the_loss_of_a_positive(output):
    mixed = BLENDED.blend_targets(one_confirmed_and_one_unlabelled_clip())
    mixed = Targets(*(column[:1] for column in mixed))
    first = SedOutput(*(column[:1, ..., :1] for column in output))
    params = loss_params(neg_mask="unlabeled", attention__kind="bce")
    loss = Loss(params, torch.ones(1)).terms["attention"](first, mixed)
    assert loss.item() == pytest.approx(SHARE * bce(first.attention.item(), 1), rel=1e-5)


@pytest.mark.parametrize("neg_mask", NEG_MASKS)
def test_a_mixup_share_of_one_changes_no_loss(output, targets, neg_mask):
    mixed = Mixing(1.0, torch.tensor([1, 2, 0]), frame_targets=True).blend_targets(targets)
    loss = Loss(loss_params(neg_mask=neg_mask), WEIGHTS)
    assert torch.equal(loss(output, mixed)[0], loss(output, targets)[0])


def test_the_known_target_of_a_labelled_cell_without_mixup_is_the_target():
    targets, is_labeled = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    assert torch.equal(known_target(targets, is_labeled), targets)


def test_a_present_and_an_absent_clip_blend_as_they_are():
    targets = torch.tensor([0.3, 0.3])
    read = known_target(targets, torch.tensor([1.0, 0.3]))
    torch.testing.assert_close(read, torch.tensor([0.3, 1.0]))


def test_the_pseudo_term_moves_attention_and_nothing_else(output, targets):
    Loss(loss_params(), WEIGHTS).terms["pseudo"](output, targets).backward()
    assert output.framewise.grad is None
    assert output.attention_weights.grad is not None


def test_the_pseudo_threshold_decides_what_is_believed(output, targets):
    believes_all, believes_none = (
        Loss(loss_params(pseudo__threshold=t, pseudo__weighted=False), WEIGHTS).terms["pseudo"](
            output, targets
        )
        for t in (1e-6, 1 - 1e-6)
    )
    a = output.attention_weights.detach()
    torch.testing.assert_close((believes_none - believes_all).detach(), a.mean())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pos_weight": False}, "max"),
        ({"attention__kind": "focal", "attention__focal_weighted": False}, "attention"),
        ({"pseudo__weighted": False}, "pseudo"),
        ({"segment__weighted": False}, "segment"),
    ],
)
def test_without_class_weights_a_term_is_the_term_with_equal_ones(output, targets, changes, name):
    params = loss_params(**changes)
    _, terms = Loss(params, WEIGHTS)(output, targets)
    _, equal = Loss(params, torch.ones(N_SPECIES))(output, targets)
    assert terms[name] == equal[name]


def test_a_term_of_weight_zero_is_not_computed(output, targets):
    total, terms = Loss(loss_params(pseudo__weight=0.0, max__weight=0.0), WEIGHTS)(output, targets)
    assert set(terms) == {"attention", "segment"}
    assert total.item() == pytest.approx((terms["attention"] + 0.5 * terms["segment"]).item())


def test_every_mask_kind_and_term_of_the_params_is_in_a_table():
    fields = LossParams.model_fields
    assert set(NEG_MASKS) == set(fields["neg_mask"].annotation.__args__)
    assert set(CLIP_KINDS) == set(ClipTermParams.model_fields["kind"].annotation.__args__)
    assert set(TERMS) == {name for name, field in fields.items() if hasattr(field.annotation, "model_fields")}


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_every_kind_is_computed(output, targets, kind):
    total, _ = Loss(loss_params(attention__kind=kind, max__kind=kind), WEIGHTS)(output, targets)
    assert torch.isfinite(total)


def test_half_and_half_is_the_mean_of_bce_and_focal(output, targets):
    values = {
        kind: Loss(loss_params(attention__kind=kind), WEIGHTS)(output, targets)[1]["attention"]
        for kind in CLIP_KINDS
    }
    torch.testing.assert_close(values["bce_focal"], (values["bce"] + values["focal"]) / 2)
