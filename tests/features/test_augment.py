import pytest
import torch

from callboard.features.augment import (
    CHAIN,
    Augment,
    BrightnessContrast,
    Chain,
    FrequencyCrop,
    FrequencyMask,
    Gamma,
    Place,
    TimeMask,
    draw_spans,
    inside_spans,
)
from callboard.features.normalisation import normalise
from callboard.params.training import AugmentParams

OFF = {
    "p": 0.0,
    "stage": "before_norm",
    "time_mask": 0,
    "freq_mask": 0,
    "gamma": None,
    "brightness_contrast": 0.0,
    "freq_crop": None,
    "freq_crop_p": 0.5,
}


def params(**changes):
    return AugmentParams.model_validate(OFF | changes)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def place(n_clips, start=0, recording_frames=100):
    return Place(torch.full((n_clips,), start), torch.full((n_clips,), recording_frames))


@pytest.fixture
def image():
    return torch.rand(64, 40, 20, generator=generator(9)) * 0.8 + 0.1


def test_with_everything_off_the_image_is_only_normalised(image):
    torch.testing.assert_close(Augment(params())(image, place(64), generator()), normalise(image))


def test_the_image_handed_in_is_left_alone(image):
    before = image.clone()
    Augment(params(p=1.0, time_mask=20, freq_mask=9, gamma=2.0, brightness_contrast=1.0))(
        image, place(64), generator()
    )
    assert torch.equal(image, before)


def test_gamma_squares_and_clamps():
    image = torch.tensor([[[-3.0, -0.5, 0.0, 0.5, 1.0, 2.0]]])
    assert Gamma(2.0)(image, place(1), generator()).tolist() == [[[1.0, 0.25, 0.0, 0.25, 1.0, 1.0]]]


def test_spans_lie_in_their_range_and_are_a_quarter_of_the_bound_wide():
    size = torch.full((20_000,), 3751)
    start, stop = draw_spans(size, 40, generator())
    width = stop - start
    assert (start >= 0).all()
    assert (stop <= size).all()
    assert (width >= 0).all()
    assert width.max() == 38  # the widest draw is 39, of which the end is drawn before its last frame
    assert width.float().mean().item() == pytest.approx(sum((t - 1) / 2 for t in range(1, 40)) / 40, rel=0.03)


def test_spans_start_anywhere():
    start, _ = draw_spans(torch.full((20_000,), 50), 10, generator())
    assert set(start.tolist()) == set(range(50))


def test_spans_fit_into_a_recording_shorter_than_the_bound():
    start, stop = draw_spans(torch.full((500,), 3), 40, generator())
    assert (start >= 0).all()
    assert (start < 3).all()
    assert (stop >= start).all()


def test_inside_is_half_open():
    assert inside_spans(torch.tensor([1, 2]), torch.tensor([3, 2]), 4).tolist() == [
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]


def test_a_time_mask_hides_one_span_of_frames_in_all_rows(image):
    hidden = TimeMask(30)(image.clone(), place(64, recording_frames=40), generator()) == 0
    assert (hidden.all(dim=2) == hidden.any(dim=2)).all()
    edges = hidden[:, :, 0].int().diff(dim=1, prepend=torch.zeros(64, 1), append=torch.zeros(64, 1))
    assert ((edges == 1).sum(dim=1) <= 1).all()
    assert hidden.any()


def test_a_frequency_mask_hides_one_span_of_rows_in_all_frames(image):
    hidden = FrequencyMask(10)(image.clone(), place(64), generator()) == 0
    assert (hidden.all(dim=1) == hidden.any(dim=1)).all()
    assert 0 < hidden[:, 0].sum(dim=1).max() < 9


def test_a_time_mask_is_drawn_over_the_recording_and_shifted_into_the_clip():
    image = torch.ones(200, 40, 4)
    whole = TimeMask(30)(torch.ones(200, 1000, 4), place(200, 0, 1000), generator())
    clip = TimeMask(30)(image, place(200, 300, 1000), generator())
    assert torch.equal(clip, whole[:, 300:340])
    hit = (clip == 0).any(dim=(1, 2)).float().mean()
    assert 0 < hit < 0.12  # a 40-frame clip of a 1000-frame recording is rarely met


def test_one_coin_decides_for_the_whole_chain(image):
    changed = Chain(params(p=0.5, time_mask=40, freq_mask=20, gamma=2.0))(
        image.clone(), place(64, recording_frames=40), generator()
    )
    squared = (changed == 0) | torch.isclose(changed, image**2)
    untouched = (changed == image).all(dim=(1, 2))
    assert squared.all(dim=(1, 2)).logical_xor(untouched).all()
    assert 20 < untouched.sum() < 44


@pytest.mark.parametrize(("p", "n_changed"), [(0.0, 0), (1.0, 64)])
def test_a_certain_coin_never_or_always_changes(image, p, n_changed):
    changed = Chain(params(p=p, gamma=2.0))(image.clone(), place(64), generator())
    assert (changed != image).any(dim=2).any(dim=1).sum() == n_changed


def test_masks_are_black_before_and_grey_after_normalisation(image):
    settings = {"p": 1.0, "freq_mask": 15}
    before = Augment(params(stage="before_norm", **settings))(image, place(64), generator())
    after = Augment(params(stage="after_norm", **settings))(image, place(64), generator())
    hidden = after == 0
    assert hidden.any()
    torch.testing.assert_close(before[hidden], normalise(torch.zeros(int(hidden.sum()))))
    assert torch.equal(before[~hidden], after[~hidden])


def test_brightness_and_contrast_are_one_straight_line_per_clip_within_limits():
    image = torch.linspace(0.35, 0.65, 20).expand(500, 4, 20)
    changed = BrightnessContrast(0.5)(image, place(500), generator())
    slope = (changed[:, 0, -1] - changed[:, 0, 0]) / 0.3
    shift = changed[:, 0, 0] - slope * 0.35
    torch.testing.assert_close(changed, slope[:, None, None] * image + shift[:, None, None])
    assert 0.8 <= slope.min() < 0.85 < 1.15 < slope.max() <= 1.2001
    assert shift.abs().max() <= 0.2001
    assert 200 < ((slope - 1).abs() < 1e-5).sum() < 300  # about half keep their coin


def test_brightness_and_contrast_stay_in_the_unit_range():
    changed = BrightnessContrast(1.0)(torch.rand(50, 8, 8), place(50), generator())
    assert changed.min() >= 0
    assert changed.max() <= 1


def row_numbers(n_clips, n_rows=12):
    """Images that say in every cell which row it is."""
    return torch.arange(n_rows, dtype=torch.float32).expand(n_clips, 5, n_rows)


def test_a_frequency_crop_keeps_neighbouring_rows_that_each_clip_draws_on_its_own():
    cropped = FrequencyCrop(8, 1.0)(row_numbers(300), place(300), generator())
    first = cropped[:, :1, :1]
    assert torch.equal(cropped, (first + torch.arange(8)).expand(300, 5, 8))
    assert set(first.flatten().tolist()) == {0, 1, 2, 3, 4}


def test_one_coin_decides_on_the_frequency_crop_of_a_whole_batch():
    draws = generator()
    heights = [FrequencyCrop(8, 0.25)(row_numbers(3), place(3), draws).shape[2] for _ in range(2000)]
    assert set(heights) == {8, 12}
    assert heights.count(8) / 2000 == pytest.approx(0.25, abs=0.03)


def test_the_frequency_crop_comes_before_all_else(image):
    settings = {"p": 1.0, "freq_mask": 9, "gamma": 2.0, "brightness_contrast": 1.0}
    whole = Augment(params(freq_crop=12, freq_crop_p=1.0, **settings))(image, place(64), generator(3))
    draws = generator(3)
    cropped = FrequencyCrop(12, 1.0)(image, place(64), draws)
    assert torch.equal(whole, Augment(params(**settings))(cropped, place(64), draws))


def test_a_frequency_crop_that_is_off_draws_nothing(image):
    settings = {"p": 0.5, "time_mask": 20, "freq_mask": 9, "gamma": 2.0, "brightness_contrast": 0.5}
    draws = generator(5)
    off = Augment(params(freq_crop=None, freq_crop_p=1.0, **settings))(image, place(64), draws)
    twin, twin_draws = params(**settings), generator(5)
    bright = BrightnessContrast(0.5)(image, place(64), twin_draws)
    assert torch.equal(off, normalise(Chain(twin)(bright, place(64), twin_draws)))
    assert torch.equal(draws.get_state(), twin_draws.get_state())


def test_every_draw_comes_from_the_generator(image):
    settings = {"time_mask": 20, "freq_mask": 9, "gamma": 2.0, "brightness_contrast": 0.5}
    augment = Augment(params(p=0.5, freq_crop=12, freq_crop_p=1.0, **settings))
    state = torch.random.get_rng_state()
    first, same, other = (augment(image, place(64), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_every_step_is_switched_by_a_parameter():
    assert set(CHAIN) <= set(AugmentParams.model_fields)
    assert len(Chain(params(time_mask=1, freq_mask=1, gamma=1.5)).steps) == len(CHAIN)
    assert Chain(params()).steps == []
