import torch
from torch.nn import functional as F

from callboard.features.normalisation import MEAN, STD, normalise, to_unit


def test_the_cache_range_becomes_the_unit_range():
    unit = to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit, torch.tensor([0.0, 0.2, 1.0]))


def test_the_statistics_are_those_of_imagenet_averaged_over_channels():
    assert abs(MEAN - (0.485 + 0.456 + 0.406) / 3) < 1e-12
    assert abs(STD - (0.229 + 0.224 + 0.225) / 3) < 1e-12
    torch.testing.assert_close(normalise(torch.tensor([MEAN, MEAN + STD])), torch.tensor([0.0, 1.0]))


def test_one_channel_through_summed_weights_is_three_equal_channels():
    image, weights = torch.rand(2, 1, 9, 9), torch.randn(4, 3, 3, 3)
    one = F.conv2d(normalise(image), weights.sum(dim=1, keepdim=True))
    three = F.conv2d(normalise(image.expand(-1, 3, -1, -1)), weights)
    torch.testing.assert_close(one, three)
