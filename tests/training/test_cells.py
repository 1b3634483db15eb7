import numpy as np
import pytest
import torch

from callboard.params.loss import LossParams
from callboard.training.losses.cells import (
    NEG_MASKS,
    POS_MASKS,
    focal,
    known_target,
    labeled_cells,
    labeled_share,
    negatives_bce,
    pos_weighted_bce,
    positives_bce,
    weighted_bce,
)


def bce(x, y):
    return np.logaddexp(0, x) - x * y


def test_pos_weight_multiplies_the_positive_half_only():
    loss = pos_weighted_bce(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([3.0, 3.0]))
    np.testing.assert_allclose(loss, [[3 * np.log(2), np.log(2)]], rtol=1e-6)


def test_weighted_bce_multiplies_both_halves():
    loss = weighted_bce(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([3.0, 5.0]))
    np.testing.assert_allclose(loss, [[3 * np.log(2), 5 * np.log(2)]], rtol=1e-6)


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


def test_the_known_target_of_a_labelled_cell_without_mixup_is_the_target():
    targets, is_labeled = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    assert torch.equal(known_target(targets, is_labeled), targets)


def test_a_present_and_an_absent_clip_blend_as_they_are():
    targets = torch.tensor([0.3, 0.3])
    read = known_target(targets, torch.tensor([1.0, 0.3]))
    torch.testing.assert_close(read, torch.tensor([0.3, 1.0]))


def test_a_positive_that_mixup_took_below_one_keeps_its_second_loss():
    loss = negatives_bce(torch.full((1, 3), 2.0), torch.tensor([[1.0, 0.999, 0.0]]))
    np.testing.assert_allclose(loss, [[0.0, bce(2.0, 0.999), bce(2.0, 0.0)]], rtol=1e-5)


def test_targets_speak_of_whole_cells_unless_unlabelled_ones_are_masked():
    is_labeled = torch.tensor([[0.0, 0.5, 1.0]])
    for name, mask in NEG_MASKS.items():
        known = mask.known(torch.zeros(1, 3), is_labeled)
        assert known is is_labeled if name == "unlabeled" else known == 1.0
    assert NEG_MASKS["unlabeled"].known is labeled_share


def test_every_mask_of_the_params_is_in_a_table():
    fields = LossParams.model_fields
    assert set(NEG_MASKS) == set(fields["neg_mask"].annotation.__args__)
    assert set(POS_MASKS) == set(fields["pos_mask"].annotation.__args__)
