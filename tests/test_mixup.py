import numpy as np
import pytest
import torch

from callboard.losses import Targets
from callboard.mixup import MIXUP, Mixing, draw_mixing
from callboard.params.training import MixupParams


def targets(n_clips=3):
    rng = torch.Generator().manual_seed(0)
    return Targets(*(torch.rand(shape, generator=rng) for shape in [(n_clips, 2), (n_clips, 4, 2)] * 2))


def echo(image):
    """A network that says what it was shown."""
    return image


def test_mixing_by_hand():
    mixing = Mixing(0.25, torch.tensor([1, 2, 0]), frame_targets=True)
    image = torch.tensor([[4.0], [8.0], [0.0]])
    [(shown, mixed)] = MIXUP["input"](echo, image, targets(), mixing)
    assert shown.tolist() == [[0.25 * 4 + 0.75 * 8], [0.25 * 8], [0.75 * 4]]
    for plain, blended in zip(targets(), mixed, strict=True):
        torch.testing.assert_close(blended, 0.25 * plain + 0.75 * plain[[1, 2, 0]])


def test_a_share_of_one_is_no_mixup():
    mixing = Mixing(1.0, torch.tensor([1, 2, 0]), frame_targets=True)
    image = torch.rand(3, 5)
    [(shown, mixed)] = MIXUP["input"](echo, image, targets(), mixing)
    assert torch.equal(shown, image)
    assert all(torch.equal(a, b) for a, b in zip(mixed, targets(), strict=True))


def test_frame_targets_stay_unmixed_where_asked():
    mixing = Mixing(0.5, torch.tensor([1, 2, 0]), frame_targets=False)
    mixed = mixing.blend_targets(targets())
    assert torch.equal(mixed.frame, targets().frame)
    assert torch.equal(mixed.frame_labeled, targets().frame_labeled)
    assert not torch.equal(mixed.clip, targets().clip)


def test_mode_none_shows_the_clips_as_they_are():
    image = torch.rand(3, 5)
    [(shown, kept)] = MIXUP["none"](echo, image, targets(), Mixing(0.5, torch.tensor([1, 2, 0]), True))
    assert shown is image
    assert torch.equal(kept.clip, targets().clip)


def test_the_share_is_a_beta_draw_and_the_partners_a_permutation():
    params = MixupParams(mode="input", alpha=0.1, frame_targets=True)
    rng = np.random.default_rng(0)
    draws = [draw_mixing(params, 5, rng) for _ in range(2000)]
    assert all(sorted(draw.partner.tolist()) == [0, 1, 2, 3, 4] for draw in draws)
    shares = np.array([draw.share for draw in draws])
    # experiments with alpha 0.1: 64 % of the draws are within 0.01 of 0 or 1
    assert ((shares < 0.01) | (shares > 0.99)).mean() == pytest.approx(0.64, abs=0.03)


def test_every_mode_of_the_params_is_in_the_table():
    assert set(MIXUP) == set(MixupParams.model_fields["mode"].annotation.__args__)
