import numpy as np
import pytest
import torch

from callboard.model.detector import build_model
from callboard.model.heads import SedOutput
from callboard.params.training import MixupParams
from callboard.training.mixup import MIXUP, Mixing, draw_mixing
from callboard.training.targets import Targets
from tests.toy_models import MODEL, tiny_network

N_CLIPS = 3
PARTNER = torch.tensor([1, 2, 0])
NOTHING = torch.zeros(0)


def targets():
    rng = torch.Generator().manual_seed(0)
    by_clip, by_frame, by_band = (N_CLIPS, 2), (N_CLIPS, 4, 2), (N_CLIPS, 5, 2)
    shapes = [by_clip, by_frame, by_clip, by_frame, by_band, by_band]
    return Targets(*(torch.rand(shape, generator=rng) for shape in shapes))


class Echo(torch.nn.Module):
    """A network to follow by eye: its features are the squares of the image, which its head gives out."""

    def features(self, image):
        return image**2

    def head(self, features):
        return SedOutput(features, NOTHING, NOTHING, NOTHING, NOTHING)

    def forward(self, image):
        return self.head(self.features(image))


def shown(mode, image, mixing):
    """What the network's head saw in each pass."""
    return [output.attention for output, _ in MIXUP[mode](Echo(), image, targets(), mixing)]


def test_input_mixup_by_hand():
    image = torch.tensor([[4.0], [8.0], [0.0]])
    [seen] = shown("input", image, Mixing(0.25, PARTNER, frame_targets=True))
    assert seen.tolist() == [[(0.25 * 4 + 0.75 * 8) ** 2], [(0.25 * 8) ** 2], [(0.75 * 4) ** 2]]


def test_last_mixup_by_hand():
    image = torch.tensor([[4.0], [8.0], [0.0]])
    [seen] = shown("last", image, Mixing(0.25, PARTNER, frame_targets=True))
    assert seen.tolist() == [[0.25 * 16 + 0.75 * 64], [0.25 * 64], [0.75 * 16]]


def test_both_are_a_pass_of_each_with_the_same_share_and_partners():
    image, mixing = torch.rand(N_CLIPS, 5), Mixing(0.3, PARTNER, frame_targets=True)
    of_both = shown("both", image, mixing)
    assert len(of_both) == 2
    for seen, mode in zip(of_both, ("input", "last"), strict=True):
        assert torch.equal(seen, shown(mode, image, mixing)[0])


@pytest.mark.parametrize("mode", ["input", "last", "both"])
def test_targets_are_blended_like_what_is_shown(mode):
    mixing = Mixing(0.25, PARTNER, frame_targets=True)
    for _, mixed in MIXUP[mode](Echo(), torch.rand(N_CLIPS, 5), targets(), mixing):
        for plain, blended in zip(targets(), mixed, strict=True):
            torch.testing.assert_close(blended, 0.25 * plain + 0.75 * plain[[1, 2, 0]])


@pytest.mark.parametrize("mode", ["input", "last", "both"])
def test_a_share_of_one_is_no_mixup(mode):
    image, mixing = torch.rand(N_CLIPS, 64, 32), Mixing(1.0, PARTNER, frame_targets=True)
    network = tiny_network(0)
    [(plain, _)] = MIXUP["none"](network, image, targets(), mixing)
    for output, mixed in MIXUP[mode](network, image, targets(), mixing):
        assert torch.equal(output.attention, plain.attention)
        assert all(torch.equal(a, b) for a, b in zip(mixed, targets(), strict=True))


def test_last_mixup_blends_the_map_that_cbam_has_weighted_and_reaches_every_head():
    network = build_model(MODEL.model_copy(update={"cbam": True, "frequency_head": True}), 3).eval()
    image, mixing = torch.rand(N_CLIPS, 64, 32), Mixing(0.3, PARTNER, frame_targets=True)
    [(output, _)] = MIXUP["last"](network, image, targets(), mixing)
    features = network.refine(network.backbone(image[:, None]))
    by_hand = network.head(0.3 * features + 0.7 * features[PARTNER])
    torch.testing.assert_close(output.attention, by_hand.attention)
    torch.testing.assert_close(output.frequency.attention, by_hand.frequency.attention)


def test_frame_and_band_targets_stay_unmixed_where_asked():
    mixed = Mixing(0.5, PARTNER, frame_targets=False).blend_targets(targets())
    for name in ("frame", "frame_labeled", "band", "band_labeled"):
        assert torch.equal(getattr(mixed, name), getattr(targets(), name)), name
    for name in ("clip", "clip_labeled"):
        plain = getattr(targets(), name)
        torch.testing.assert_close(getattr(mixed, name), (plain + plain[PARTNER]) / 2)


def test_mode_none_shows_the_clips_as_they_are():
    image, mixing = torch.rand(N_CLIPS, 5), Mixing(0.5, PARTNER, frame_targets=True)
    [(output, kept)] = MIXUP["none"](Echo(), image, targets(), mixing)
    assert torch.equal(output.attention, image**2)
    assert torch.equal(kept.clip, targets().clip)


def test_the_share_is_a_beta_draw_and_the_partners_a_permutation():
    params = MixupParams(mode="input", alpha=0.1, frame_targets=True)
    rng = np.random.default_rng(0)
    draws = [draw_mixing(params, 5, rng, torch.device("cpu")) for _ in range(2000)]
    assert all(sorted(draw.partner.tolist()) == [0, 1, 2, 3, 4] for draw in draws)
    shares = np.array([draw.share for draw in draws])
    # experiments with alpha 0.1: 64 % of the draws are within 0.01 of 0 or 1
    assert ((shares < 0.01) | (shares > 0.99)).mean() == pytest.approx(0.64, abs=0.03)


def test_every_mode_of_the_params_is_in_the_table():
    assert set(MIXUP) == set(MixupParams.model_fields["mode"].annotation.__args__)
