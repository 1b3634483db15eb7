import numpy as np
import pytest
import torch

from callboard.core.errors import UserError
from callboard.model.heads import SedOutput
from callboard.params.loss import (
    ClipTermParams,
    LabeledTermParams,
    LossParams,
    PositionTermParams,
    PseudoTermParams,
)
from callboard.training.losses.cells import NEG_MASKS, POS_MASKS
from callboard.training.losses.terms import (
    CLASS_WEIGHTS,
    CLIP_KINDS,
    DIVISORS,
    HEAD_TERMS,
    POSITION_KINDS,
    TERMS,
    Loss,
    build_smoothing,
    reduce_to_segments,
    repeat_to_frames,
)
from callboard.training.mixup import Mixing
from callboard.training.targets import Targets
from callboard.training.validation import trained_heads
from tests.toy_training import loss_params

N_CLIPS, N_SEGMENTS, N_FRAMES, N_SPECIES = 3, 2, 8, 4
N_BANDS, N_MELS = 3, 6
COUNTS = torch.tensor([12, 6, 3, 8])
WEIGHTS = torch.tensor([1.0, 2.0, 4.0, 1.5])
"""Largest count over count."""


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bce(x, y):
    return np.logaddexp(0, x) - x * y


def random_head(n_segments, seed, frequency=None):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(N_CLIPS, n_segments, N_SPECIES, generator=rng) * 2
    weights = torch.rand(N_CLIPS, n_segments, N_SPECIES, generator=rng)
    attention = torch.randn(N_CLIPS, N_SPECIES, generator=rng) * 2
    columns = (attention, torch.flip(attention, (0,)), logits, weights, logits * 1.5)
    return SedOutput(*(column.clone().requires_grad_() for column in columns), frequency)


@pytest.fixture
def output():
    return random_head(N_SEGMENTS, seed=1)


@pytest.fixture
def two_heads():
    return random_head(N_SEGMENTS, seed=1, frequency=random_head(N_BANDS, seed=3))


def random_cells(n_rows, rng):
    """Targets of 0 and 0.75, and label weights of these and some more; nobody looked at one column."""
    draws = torch.rand(2, N_CLIPS, n_rows, N_SPECIES, generator=rng)
    draws[:, 0, :, 0] = 1
    target = (draws[0] < 0.2).float() * 0.75
    return target, torch.maximum(target, (draws[1] < 0.2).float())


@pytest.fixture
def targets():
    rng = torch.Generator().manual_seed(2)
    frame, labeled = random_cells(N_FRAMES, rng)
    return Targets(frame.amax(dim=1), frame, labeled.amax(dim=1), labeled, *random_cells(N_MELS, rng))


def numpy_of(*tensors):
    return [tensor.detach().double().numpy() for tensor in tensors]


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        ("none", [1.0, 1.0, 1.0, 1.0]),
        ("largest", [1.0, 1.0, 2.0, 8.0]),
        ("smallest", [0.125, 1.0, 0.25, 1.0]),
    ],
)
def test_class_weights_come_from_counts_and_a_species_without_annotations_weighs_one(rule, weights):
    assert CLASS_WEIGHTS[rule](torch.tensor([8.0, 0.0, 4.0, 1.0])).tolist() == weights


@pytest.mark.parametrize("rule", CLASS_WEIGHTS)
def test_without_any_annotation_every_species_weighs_one(rule):
    assert CLASS_WEIGHTS[rule](torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]


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
    total, terms = Loss(loss_params(), COUNTS)(output, targets)
    x, y, w = numpy_of(output.max, targets.clip, WEIGHTS)
    a, z, _ = numpy_of(output.attention_weights, output.framewise, output.segment)
    by_hand = {
        "attention": expected_attention(output, targets),
        "max": (w * y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)).mean(),
        "pseudo": (w * bce(a, (sigmoid(z) >= 0.7)).mean(axis=1)).mean(),
        "segment": expected_segment(output, targets, 1.0),
    }
    assert set(terms) == set(by_hand)
    for name, value in by_hand.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5)
    weighted = by_hand["attention"] + 0.5 * by_hand["max"] + by_hand["pseudo"] + 0.5 * by_hand["segment"]
    assert total.item() == pytest.approx(weighted, rel=1e-5)


def test_seq_keeps_annotated_frames_only_and_divides_by_all(output, targets):
    """The row exp0058: w_c / T · sum over t of y · BCE(seg, y)."""
    _, terms = Loss(loss_params(neg_mask="seq"), COUNTS)(output, targets)
    assert terms["segment"].item() == pytest.approx(
        expected_segment(output, targets, numpy_of(targets.frame)[0]), rel=1e-5
    )


def test_clip_keeps_positives_only_in_the_bce_part_of_attention(output, targets):
    """The row exp0057: mean of w_c · y · BCE(attention, y); its focal part and the other terms stay."""
    _, plain = Loss(loss_params(), COUNTS)(output, targets)
    _, terms = Loss(loss_params(neg_mask="clip"), COUNTS)(output, targets)
    x, y, w = numpy_of(output.attention, targets.clip, WEIGHTS)
    miss = y * (1 - sigmoid(x)) + (1 - y) * sigmoid(x)
    by_hand = ((w * y * bce(x, y) + w * miss**2 * bce(x, y)) / 2).mean()
    assert terms["attention"].item() == pytest.approx(by_hand, rel=1e-5)
    assert all(terms[name] == plain[name] for name in ("max", "pseudo", "segment"))


def leaves(output):
    """The tensors of both heads by name."""
    own = {name: column for name, column in output._asdict().items() if name != "frequency"}
    further = leaves(output.frequency) if output.frequency else {}
    return own | {f"frequency.{name}": column for name, column in further.items()}


def gradients(params, output, targets):
    columns = leaves(output)
    for column in columns.values():
        column.grad = None
    Loss(params, COUNTS)(output, targets)[0].backward()
    return {
        name: torch.zeros_like(column) if column.grad is None else column.grad.clone()
        for name, column in columns.items()
    }


def of_segments(cells, n_segments):
    return cells.unflatten(1, (n_segments, -1)).amax(dim=2) > 0


UNLABELED = {
    "attention": lambda t: t.clip_labeled > 0,
    "max": lambda t: t.clip_labeled > 0,
    "attention_weights": lambda t: of_segments(t.frame_labeled, N_SEGMENTS),
    "segment": lambda t: of_segments(t.frame_labeled, N_SEGMENTS),
    "frequency.attention": lambda t: t.clip_labeled > 0,
    "frequency.max": lambda t: t.clip_labeled > 0,
    "frequency.segment": lambda t: of_segments(t.band_labeled, N_BANDS),
}
CELLS_WITH_A_LOSS = {
    "none": {},
    "clip": {"attention": lambda t: t.clip > 0, "frequency.attention": lambda t: t.clip > 0},
    "seq": {
        "segment": lambda t: of_segments(t.frame, N_SEGMENTS),
        "frequency.segment": lambda t: of_segments(t.band, N_BANDS),
    },
    "unlabeled": UNLABELED,
}


@pytest.mark.parametrize("neg_mask", NEG_MASKS)
def test_a_masked_cell_has_no_gradient_and_every_other_one_has(two_heads, targets, neg_mask):
    params = loss_params(
        neg_mask=neg_mask,
        attention__kind="bce",
        pseudo__weight=0.0,
        position__weight=1.0,
        frequency__weight=0.25,
    )
    found = gradients(params, two_heads, targets)
    for name in UNLABELED:
        expected = torch.ones_like(found[name]) > 0
        if name in CELLS_WITH_A_LOSS[neg_mask]:
            expected = CELLS_WITH_A_LOSS[neg_mask][name](targets)
            assert 0 < expected.sum() < expected.numel()
        assert torch.equal(found[name] != 0, expected), name


def test_unlabeled_with_every_cell_labelled_is_none(two_heads, targets):
    targets = targets._replace(
        clip_labeled=torch.ones_like(targets.clip),
        frame_labeled=torch.ones_like(targets.frame),
        band_labeled=torch.ones_like(targets.band),
    )
    plain, masked = (
        Loss(loss_params(neg_mask=mask, position__weight=1.0, frequency__weight=0.25), COUNTS)(
            two_heads, targets
        )[0]
        for mask in ("none", "unlabeled")
    )
    torch.testing.assert_close(masked, plain)


SHARE = 0.5
BLENDED = Mixing(SHARE, torch.tensor([1, 0]), frame_targets=True)


def one_confirmed_and_one_unlabelled_clip():
    """Two clips of one species: there in the first, nobody looked in the second."""
    clip, frame = torch.tensor([[1.0], [0.0]]), torch.tensor([1.0, 0.0])[:, None, None].expand(2, N_FRAMES, 1)
    return Targets(clip, frame, clip, frame, frame, frame)


@pytest.mark.parametrize("name", ["attention", "max", "segment", "position"])
@pytest.mark.parametrize("pos_mask", POS_MASKS)
def test_mixup_with_a_clip_nobody_looked_at_teaches_no_absence(output, name, pos_mask):
    params = loss_params(neg_mask="unlabeled", pos_mask=pos_mask, attention__kind="bce", position__weight=1.0)
    output = SedOutput(*(column[:2, ..., :1].detach().clone().requires_grad_() for column in output[:5]))
    term = Loss(params, torch.ones(1)).terms[name]
    mixed = BLENDED.blend_targets(one_confirmed_and_one_unlabelled_clip())
    loss = term(output, mixed)
    loss.backward()
    logits = getattr(output, {"position": "attention_weights"}.get(name, name))
    assert (logits.grad <= 0).all()
    np.testing.assert_allclose(loss.item(), bce(numpy_of(logits)[0], 1).mean(), rtol=1e-5)


def test_a_lone_mixed_clip_has_its_share_of_the_loss_of_a_positive(output):
    mixed = BLENDED.blend_targets(one_confirmed_and_one_unlabelled_clip())
    mixed = Targets(*(column[:1] for column in mixed))
    first = SedOutput(*(column[:1, ..., :1] for column in output[:5]))
    params = loss_params(neg_mask="unlabeled", attention__kind="bce")
    loss = Loss(params, torch.ones(1)).terms["attention"](first, mixed)
    assert loss.item() == pytest.approx(SHARE * bce(first.attention.item(), 1), rel=1e-5)


@pytest.mark.parametrize("neg_mask", NEG_MASKS)
def test_a_mixup_share_of_one_changes_no_loss(output, targets, neg_mask):
    mixed = Mixing(1.0, torch.tensor([1, 2, 0]), frame_targets=True).blend_targets(targets)
    loss = Loss(loss_params(neg_mask=neg_mask), COUNTS)
    assert torch.equal(loss(output, mixed)[0], loss(output, targets)[0])


def test_the_pseudo_term_moves_attention_and_nothing_else(output, targets):
    Loss(loss_params(), COUNTS).terms["pseudo"](output, targets).backward()
    assert output.framewise.grad is None
    assert output.attention_weights.grad is not None


def test_the_pseudo_threshold_decides_what_is_believed(output, targets):
    believes_all, believes_none = (
        Loss(loss_params(pseudo__threshold=t, pseudo__weighted=False), COUNTS).terms["pseudo"](
            output, targets
        )
        for t in (1e-6, 1 - 1e-6)
    )
    a = output.attention_weights.detach()
    torch.testing.assert_close((believes_none - believes_all).detach(), a.mean())


def test_a_score_at_the_pseudo_threshold_is_believed(output, targets):
    """Every score is 0.5, so thresholds 0.5 and far below believe alike."""
    even = output._replace(framewise=torch.zeros_like(output.framewise))
    at, below = (
        Loss(loss_params(pseudo__threshold=t), COUNTS).terms["pseudo"](even, targets) for t in (0.5, 1e-6)
    )
    assert torch.equal(at, below)


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
    _, terms = Loss(params, COUNTS)(output, targets)
    _, equal = Loss(params, torch.ones(N_SPECIES))(output, targets)
    assert terms[name] == equal[name]


def test_a_term_of_weight_zero_is_not_computed(output, targets):
    total, terms = Loss(loss_params(pseudo__weight=0.0, max__weight=0.0), COUNTS)(output, targets)
    assert set(terms) == {"attention", "segment"}
    assert total.item() == pytest.approx((terms["attention"] + 0.5 * terms["segment"]).item())


def of_term(name, two_heads, targets):
    """Value of a term alone where only labelled cells count, and its gradient by head."""
    params = loss_params(neg_mask="unlabeled", **{f"{name}__weight": 1.0})
    weights = {rule: weigh(COUNTS.float()) for rule, weigh in CLASS_WEIGHTS.items()}
    value = TERMS[name](params, weights)(two_heads, targets)
    columns = leaves(two_heads)
    found = torch.autograd.grad(value, columns.values(), allow_unused=True)
    return value, {head: one for head, one in zip(columns, found, strict=True) if one is not None}


WITHOUT_TARGETS = {"pseudo"}
"""Terms that compare a network with itself, and so have a gradient everywhere."""


@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_a_finite_number_and_has_a_finite_gradient(two_heads, targets, name):
    value, found = of_term(name, two_heads, targets)
    assert value.shape == ()
    assert torch.isfinite(value)
    assert all(torch.isfinite(one).all() for one in found.values())
    assert any(one.any() for one in found.values())


@pytest.mark.parametrize("name", TERMS)
def test_no_term_of_weight_zero_is_there_and_any_other_adds_its_share(two_heads, targets, name):
    without, with_half = (
        Loss(loss_params(**{f"{name}__weight": weight}), COUNTS)(two_heads, targets) for weight in (0.0, 0.5)
    )
    assert name not in without[1]
    torch.testing.assert_close(with_half[0], without[0] + 0.5 * with_half[1][name])


@pytest.mark.parametrize("name", sorted(TERMS.keys() - WITHOUT_TARGETS))
def test_no_term_has_a_gradient_where_nobody_looked(two_heads, targets, name):
    _, found = of_term(name, two_heads, targets)
    for head in found.keys() & UNLABELED.keys():
        is_labeled = UNLABELED[head](targets)
        assert 0 < is_labeled.sum() < is_labeled.numel()
        assert not found[head][~is_labeled].any(), head


def test_every_kind_and_term_of_the_params_is_in_a_table():
    for table, section in (
        (CLIP_KINDS, ClipTermParams),
        (POSITION_KINDS, PseudoTermParams),
        (POSITION_KINDS, PositionTermParams),
    ):
        assert set(table) == set(section.model_fields["kind"].annotation.__args__)
    sections = {
        name: field.annotation
        for name, field in LossParams.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    assert set(TERMS) == {name for name, section in sections.items() if "weight" in section.model_fields}


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_every_kind_is_computed(output, targets, kind):
    total, _ = Loss(loss_params(attention__kind=kind, max__kind=kind), COUNTS)(output, targets)
    assert torch.isfinite(total)


def test_half_and_half_is_the_mean_of_bce_and_focal(output, targets):
    values = {
        kind: Loss(loss_params(attention__kind=kind), COUNTS)(output, targets)[1]["attention"]
        for kind in CLIP_KINDS
    }
    torch.testing.assert_close(values["bce_focal"], (values["bce"] + values["focal"]) / 2)


def test_the_focal_pseudo_term_equals_its_twin(output, targets):
    _, terms = Loss(loss_params(pseudo__kind="focal", focal_gamma=1.5), COUNTS)(output, targets)
    a, z, w = numpy_of(output.attention_weights, output.framewise, WEIGHTS)
    believed = sigmoid(z) >= 0.7
    miss = np.where(believed, 1 - sigmoid(a), sigmoid(a))
    assert terms["pseudo"].item() == pytest.approx((w * miss**1.5 * bce(a, believed)).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "loss"), [("bce", bce), ("focal", lambda x, y: abs(y - sigmoid(x)) ** 2 * bce(x, y))]
)
def test_the_position_term_by_hand(kind, loss):
    """The row exp0001: weights of two segments, the second one annotated from its second frame on."""
    weights = torch.tensor([0.25, 0.75])[None, :, None]
    frame = torch.tensor([0.0, 0.0, 0.0, 1.0])[None, :, None]
    blank = torch.zeros(1, 1)
    output = SedOutput(blank, blank, weights, weights, weights)
    targets = Targets(blank, frame, blank, frame, frame, frame)
    params = loss_params(position__weight=0.5, position__kind=kind)
    value = Loss(params, torch.tensor([7.0])).terms["position"](output, targets)
    assert value.item() == pytest.approx((loss(0.25, 0) + loss(0.75, 1)) / 2, rel=1e-5)


def test_the_position_term_moves_attention_and_nothing_else(output, targets):
    Loss(loss_params(position__weight=0.5), COUNTS).terms["position"](output, targets).backward()
    moved = {name for name, column in leaves(output).items() if column.grad is not None}
    assert moved == {"attention_weights"}


def test_a_segment_has_the_largest_of_the_frames_that_it_touches():
    frames = torch.rand(2, 7, 3)
    reduced = reduce_to_segments(frames, 3)
    for segment, touched in enumerate([slice(0, 3), slice(2, 5), slice(4, 7)]):
        assert torch.equal(reduced[:, segment], frames[:, touched].amax(dim=1))


@pytest.mark.parametrize(("start_s", "stop_s"), [(0.0, 0.7), (12.3, 14.9), (58.2, 60.0)])
def test_annotated_segments_of_a_whole_recording_are_those_of_its_seconds(start_s, stop_s):
    """The row exp0001: 118 segments of 60 s in 3751 frames, second t in segment int(118 t / 60)."""
    seconds = torch.arange(3751) * 512 / 32000
    frame = ((seconds >= start_s) & (seconds <= stop_s)).float()[None, :, None]
    annotated = reduce_to_segments(frame, 118)[0, :, 0].nonzero()[:, 0]
    assert abs(annotated[0].item() - int(118 * start_s / 60)) <= 1
    assert abs(annotated[-1].item() - min(int(118 * stop_s / 60), 117)) <= 1


def mirrored(targets):
    return targets._replace(frame=targets.band, frame_labeled=targets.band_labeled)


@pytest.mark.parametrize("neg_mask", NEG_MASKS)
def test_the_frequency_term_is_the_sum_of_the_others_on_its_head_and_rows(two_heads, targets, neg_mask):
    """The row exp0045: every term becomes time + 0.25 frequency."""
    plain = Loss(loss_params(neg_mask=neg_mask), COUNTS)
    over_time, _ = plain(two_heads, targets)
    over_frequency, _ = plain(two_heads.frequency, mirrored(targets))
    both = Loss(loss_params(neg_mask=neg_mask, frequency__weight=0.25), COUNTS)
    total, terms = both(two_heads, targets)
    torch.testing.assert_close(terms["frequency"], over_frequency.detach())
    torch.testing.assert_close(total, over_time + 0.25 * over_frequency)


def test_the_frequency_term_compares_bands_with_annotated_mel_rows(two_heads, targets):
    off = {f"{name}__weight": 0.0 for name in HEAD_TERMS if name != "segment"}
    params = loss_params(frequency__weight=0.25, segment__weight=0.5, **off)
    _, terms = Loss(params, COUNTS)(two_heads, targets)
    seg, y, w = numpy_of(two_heads.frequency.segment, targets.band, WEIGHTS)
    seg = np.repeat(seg, N_MELS // N_BANDS, axis=1)
    assert terms["frequency"].item() == pytest.approx(0.5 * (w * bce(seg, y)).mean(), rel=1e-5)


def test_the_position_term_has_no_twin_over_frequency(two_heads, targets):
    values = [
        Loss(loss_params(frequency__weight=0.25, position__weight=weight), COUNTS)(two_heads, targets)[1]
        for weight in (0.0, 1.0)
    ]
    assert values[0]["frequency"] == values[1]["frequency"]


def test_without_a_frequency_weight_the_second_head_has_no_loss(two_heads, targets):
    found = gradients(loss_params(), two_heads, targets)
    total, terms = Loss(loss_params(), COUNTS)(two_heads, targets)
    assert "frequency" not in terms
    assert total == Loss(loss_params(), COUNTS)(two_heads._replace(frequency=None), targets)[0]
    assert not any(found[name].any() for name in found if name.startswith("frequency."))


def test_a_network_without_frequency_head_is_refused(output, targets):
    with pytest.raises(UserError, match=r"no frequency head; set model\.frequency_head=true"):
        Loss(loss_params(frequency__weight=0.25), COUNTS)(output, targets)


@pytest.mark.parametrize("name", ["attention", "max"])
def test_aux_adds_the_unweighted_loss_of_all_but_whole_positives(output, targets, name):
    """The row exp0039; 0.75 is a mixed positive, which stays."""
    targets = targets._replace(clip=torch.tensor([[1.0, 0.75, 0.0, 0.0]]).expand(N_CLIPS, -1))
    plain, aux = (
        Loss(loss_params(pos_mask=mask), COUNTS)(output, targets)[1][name] for mask in ("none", "aux")
    )
    x, y = numpy_of(getattr(output, name), targets.clip)
    by_hand = np.hstack([np.zeros((N_CLIPS, 1)), bce(x, y)[:, 1:]]).mean()
    assert (aux - plain).item() == pytest.approx(by_hand, rel=1e-4)


def test_aux_changes_no_other_term(output, targets):
    plain, aux = (Loss(loss_params(pos_mask=mask), COUNTS)(output, targets)[1] for mask in ("none", "aux"))
    assert {name for name in plain if plain[name] != aux[name]} == {"attention", "max"}


def test_aux_has_no_loss_where_nobody_looked(output, targets):
    found = gradients(loss_params(neg_mask="unlabeled", pos_mask="aux"), output, targets)
    assert torch.equal(found["attention"] != 0, targets.clip_labeled > 0)


def test_smoothing_clips_changes_clip_terms_alone(output, targets):
    loss = Loss(loss_params(smoothing__target="clip"), COUNTS)
    plain, smoothed = loss(output, targets)[1], loss(output, loss.smooth(targets))[1]
    assert {name for name in plain if plain[name] != smoothed[name]} == {"attention", "max"}


def test_smoothing_frames_changes_the_terms_of_frames_alone(output, targets):
    loss = Loss(loss_params(smoothing__target="seq", position__weight=0.5), COUNTS)
    plain, smoothed = loss(output, targets)[1], loss(output, loss.smooth(targets))[1]
    assert {name for name in plain if plain[name] != smoothed[name]} == {"segment", "position"}


def test_smoothing_off_is_the_targets_as_they_are(targets):
    smoothed = build_smoothing(loss_params())(targets)
    assert all(torch.equal(*pair) for pair in zip(smoothed, targets, strict=True))


def test_negative_smoothing_brings_no_masked_frame_back(output, targets):
    """The row exp0064: clip targets are softened, frames without annotation stay without loss."""
    params = loss_params(neg_mask="seq", smoothing__target="clip", smoothing__mode="negative")
    found = gradients(params, output, build_smoothing(params)(targets))
    assert torch.equal(found["segment"] != 0, of_segments(targets.frame, N_SEGMENTS))


def test_cells_nobody_looked_at_are_softened_where_they_count_as_absent():
    smoothed = Loss(loss_params(smoothing__target="clip"), torch.ones(1)).smooth(
        one_confirmed_and_one_unlabelled_clip()
    )
    assert smoothed.clip[1].item() == pytest.approx(0.2)


@pytest.mark.parametrize("mode", ["uniform", "negative"])
def test_a_blend_with_a_clip_nobody_looked_at_keeps_the_softened_target(mode):
    params = loss_params(neg_mask="unlabeled", smoothing__target="clip", smoothing__mode=mode)
    smoothed = build_smoothing(params)(one_confirmed_and_one_unlabelled_clip())
    mixed = Mixing(0.01, torch.tensor([1, 0]), frame_targets=True).blend_targets(smoothed)
    read = NEG_MASKS["unlabeled"].target(mixed.clip, mixed.clip_labeled)
    torch.testing.assert_close(read, smoothed.clip[:1].expand(2, 1))


@pytest.mark.parametrize("name", ["clip", "seq"])
def test_smoothing_the_factors_of_a_mask_is_refused(name):
    with pytest.raises(ValueError, match=f"neg_mask {name} weights a cell by its target"):
        loss_params(neg_mask=name, smoothing__target=name)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pos_mask": "aux", "labeled__weight": 1.0}, "pos_mask aux acts on the attention and max terms"),
        (
            {"smoothing__target": "clip"},
            "smoothing.target clip acts on the attention, max and labeled terms, but all have weight 0",
        ),
    ],
)
def test_what_acts_on_clip_terms_is_refused_without_one(changes, name):
    with pytest.raises(ValueError, match=name):
        loss_params(attention__weight=0.0, max__weight=0.0, **changes)


ALONE = {f"{name}__weight": 0.0 for name in HEAD_TERMS} | {"labeled__weight": 1.0}


def labeled_loss(counts=COUNTS, **changes):
    """The loss with the labeled term alone, `gamma=2.0` changing labeled.gamma."""
    return Loss(
        loss_params(**ALONE, **{f"labeled__{name}": value for name, value in changes.items()}), counts
    )


@pytest.fixture
def soft():
    """Cells of every sort: present, absent, soft, of small weight, and two columns nobody looked at."""
    clip = torch.tensor([[1.0, 0.0, 0.4, 0.0], [0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    labeled = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.5, 0.0, 0.5, 0.0], [1.0, 0.0, 1.0, 0.0]])
    blank = torch.zeros(N_CLIPS, 1, N_SPECIES)
    return Targets(clip, blank, labeled, blank, blank, blank)


def naive_labeled(output, targets, params, weights):
    """Cell by cell, in plain numbers."""
    x, y, k = numpy_of(output.attention, targets.clip, targets.clip_labeled)
    sums, shares = {"positives": 0.0, "negatives": 0.0}, {"positives": 0.0, "negatives": 0.0}
    for clip in range(N_CLIPS):
        for species in range(N_SPECIES):
            logit, present, absent = x[clip, species], y[clip, species], k[clip, species] - y[clip, species]
            miss = (1 - sigmoid(logit)) ** params.focal_gamma
            sums["positives"] += weights[species] * present * miss * np.log1p(np.exp(-logit))
            sums["negatives"] += absent * np.log1p(np.exp(logit))
            shares["positives"] += present
            shares["negatives"] += absent
    return sum(sums[half] / (shares[half] if getattr(params, half) == "mean" else 1) for half in sums)


@pytest.mark.parametrize(
    ("rule", "weights"),
    [("none", [1, 1, 1, 1]), ("largest", [1, 2, 4, 1.5]), ("smallest", [0.25, 0.5, 1, 0.375])],
)
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("positives", DIVISORS)
@pytest.mark.parametrize("negatives", DIVISORS)
def test_the_labeled_term_equals_its_naive_twin(output, soft, rule, weights, gamma, positives, negatives):
    changes = {"positives": positives, "negatives": negatives, "focal_gamma": gamma, "class_weights": rule}
    total, terms = (loss := labeled_loss(**changes))(output, soft)
    params = loss_params(**{f"labeled__{name}": value for name, value in changes.items()}).labeled
    assert list(loss.terms) == list(terms) == ["labeled"]
    assert total.item() == pytest.approx(naive_labeled(output, soft, params, weights), rel=1e-5)


def test_the_labeled_term_of_wholly_labelled_cells_is_the_sum_of_their_bce(output, targets):
    everywhere = targets._replace(clip_labeled=torch.ones_like(targets.clip))
    total, _ = labeled_loss()(output, everywhere)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        output.attention, targets.clip, reduction="sum"
    )
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("neg_mask", NEG_MASKS)
def test_neg_mask_does_not_act_on_the_labeled_term(output, soft, neg_mask):
    off = {"segment__weight": 0.5} if neg_mask == "seq" else {}
    off |= {"attention__weight": 1.0} if neg_mask == "clip" else {}
    params = loss_params(**(ALONE | off), neg_mask=neg_mask)
    value = Loss(params, COUNTS).terms["labeled"](output, soft)
    assert torch.equal(value, labeled_loss()(output, soft)[0])


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_cell_nobody_labelled_has_no_gradient_in_the_labeled_term(output, soft, share, divisor, gamma):
    mixed = Mixing(share, torch.tensor([2, 1, 0]), frame_targets=False).blend_targets(soft)
    loss = labeled_loss(positives=divisor, negatives=divisor, focal_gamma=gamma)
    loss(output, mixed)[0].backward()
    assert torch.equal(output.attention.grad != 0, mixed.clip_labeled > 0)
    assert (mixed.clip_labeled[:, [1, 3]] == 0).all()


def test_the_labeled_term_of_a_blend_is_the_blend_of_its_halves_by_share(output, soft):
    """Summed without focal factor, it is linear in the two shares of every cell."""
    mixing = Mixing(0.3, torch.tensor([2, 0, 1]), frame_targets=False)
    partners = soft._replace(clip=soft.clip[mixing.partner], clip_labeled=soft.clip_labeled[mixing.partner])
    loss = labeled_loss()
    own, theirs, mixed = (loss(output, t)[0] for t in (soft, partners, mixing.blend_targets(soft)))
    torch.testing.assert_close(mixed, 0.3 * own + 0.7 * theirs)


def test_rounding_of_a_blend_makes_no_negative_share(output, soft):
    rounded = soft._replace(clip=soft.clip_labeled + 1e-7)
    total, _ = labeled_loss(negatives="mean")(output, rounded)
    assert total >= 0


@pytest.mark.parametrize(("divisor", "factor"), [("sum", 2.0), ("mean", 1.0)])
def test_a_sum_grows_with_the_batch_and_a_mean_does_not(output, soft, divisor, factor):
    twice = Targets(*(column.repeat(2, *[1] * (column.ndim - 1)) for column in soft))
    both = SedOutput(*(column.repeat(2, *[1] * (column.ndim - 1)) for column in output[:5]))
    loss = labeled_loss(positives=divisor, negatives=divisor)
    torch.testing.assert_close(loss(both, twice)[0], factor * loss(output, soft)[0])


@pytest.mark.parametrize("divisor", DIVISORS)
def test_without_a_label_the_labeled_term_is_zero(output, soft, divisor):
    blank = soft._replace(clip=torch.zeros_like(soft.clip), clip_labeled=torch.zeros_like(soft.clip))
    total, _ = labeled_loss(positives=divisor, negatives=divisor)(output, blank)
    total.backward()
    assert total.item() == 0
    assert not output.attention.grad.any()


def test_the_labeled_term_moves_the_attention_logit_and_nothing_else(two_heads, soft):
    labeled_loss()(two_heads, soft)[0].backward()
    assert {name for name, column in leaves(two_heads).items() if column.grad is not None} == {"attention"}


def test_smoothing_of_labelled_cells_is_no_label_for_the_others(output, soft):
    params = loss_params(**ALONE, neg_mask="unlabeled", smoothing__target="clip")
    smoothed = build_smoothing(params)(soft)
    assert (smoothed.clip <= soft.clip_labeled).all()
    Loss(params, COUNTS)(output, smoothed)[0].backward()
    assert torch.equal(output.attention.grad != 0, soft.clip_labeled > 0)


@pytest.mark.parametrize("neg_mask", ["none", "seq"])
def test_smoothing_that_would_invent_labels_for_the_labeled_term_is_refused(neg_mask):
    with pytest.raises(
        ValueError, match=f"smoothing.target clip with neg_mask {neg_mask} gives cells that nobody"
    ):
        loss_params(labeled__weight=1.0, neg_mask=neg_mask, smoothing__target="clip")


def test_a_frequency_term_without_a_term_to_repeat_is_refused():
    with pytest.raises(
        ValueError, match="frequency repeats the attention, max, pseudo and segment terms, but all"
    ):
        loss_params(**ALONE, frequency__weight=0.25)


def test_every_divisor_and_class_weight_of_the_params_is_in_its_table():
    fields = LabeledTermParams.model_fields
    for half in ("positives", "negatives"):
        assert set(DIVISORS) == set(fields[half].annotation.__args__)
    assert set(CLASS_WEIGHTS) == set(fields["class_weights"].annotation.__args__)


@pytest.mark.parametrize(
    ("changes", "heads"), [({}, ["attention"]), ({"max__weight": 0.5}, ["attention", "max"])]
)
def test_validation_looks_at_the_attention_that_the_labeled_term_trains(changes, heads):
    assert trained_heads(loss_params(**(ALONE | changes))) == heads
