from typing import Any

import numpy as np
import pytest
import torch
import torchaudio

from callboard.core.errors import UserError
from callboard.features.log_mel import log_mel, mel_centres, mel_filterbank, power_blocks, quantise
from callboard.params.features import FrontEndParams

SMALL = {
    "kind": "log_mel",
    "embedding_hop_s": 0.5,
    "n_fft": 256,
    "hop_length": 96,
    "n_mels": 12,
    "f_min": 100.0,
    "f_max": 3900.0,
    "top_db": 80.0,
}


def front_end(sample_rate: int = 8000, **features: Any) -> FrontEndParams:
    return FrontEndParams.model_validate(
        {"audio": {"sample_rate": sample_rate, "on_other_rate": "error"}, "features": SMALL | features}
    )


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(n_samples) * np.linspace(0.01, 1, n_samples)).astype(np.float32)


def mel_power(waveform: np.ndarray, params: FrontEndParams) -> np.ndarray:
    blocks = power_blocks([waveform], len(waveform), params.audio.sample_rate, params.features)
    return np.concatenate(list(blocks))


def naive_mel_power(waveform: np.ndarray, params: FrontEndParams) -> np.ndarray:
    """Frame by frame, bin by bin, triangle by triangle."""
    features, rate = params.features, params.audio.sample_rate
    n_fft, half = features.n_fft, features.n_fft // 2
    padded = np.concatenate([waveform[1 : half + 1][::-1], waveform, waveform[-half - 1 : -1][::-1]])
    corners = torchaudio_corners(features.f_min, features.f_max, features.n_mels)
    mel = np.zeros((len(waveform) // features.hop_length + 1, features.n_mels))
    for frame in range(len(mel)):
        samples = padded[frame * features.hop_length :][:n_fft].astype(np.float64)
        windowed = samples * np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
        for k in range(half + 1):
            phases = np.exp(-2j * np.pi * k * np.arange(n_fft) / n_fft)
            power = abs((windowed * phases).sum()) ** 2
            for m in range(features.n_mels):
                low, centre, high = corners[m : m + 3]
                hz = k * rate / n_fft
                height = min((hz - low) / (centre - low), (high - hz) / (high - centre))
                mel[frame, m] += max(0.0, height) * 2 / (high - low) * power
    return mel


def torchaudio_corners(f_min: float, f_max: float, n_mels: int) -> list[float]:
    """Slaney's scale, spelled out: 200/3 Hz per mel up to 1 kHz = 15 mel, then a factor 6.4 every 27 mel."""

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    low, high = to_mel(f_min), to_mel(f_max)
    return [float(to_hz(low + (high - low) * i / (n_mels + 1))) for i in range(n_mels + 2)]


def test_mel_power_equals_the_naive_twin() -> None:
    params = front_end(n_fft=64, hop_length=24, n_mels=5)
    waveform = noise(400)
    expected = naive_mel_power(waveform, params)
    np.testing.assert_allclose(mel_power(waveform, params), expected, rtol=1e-4)


@pytest.mark.parametrize("n_samples", [129, 5000, 96 * 300, 96 * 300 + 95])
@pytest.mark.parametrize("n_mels", [12, 16, 37])
def test_mel_power_equals_torchaudio(n_samples: int, n_mels: int) -> None:
    params = front_end(n_fft=512 if n_samples > 256 else 256, n_mels=n_mels if n_samples > 256 else 12)
    features = params.features
    transform = torchaudio.transforms.MelSpectrogram(
        8000, features.n_fft, hop_length=features.hop_length, f_min=features.f_min, f_max=features.f_max,
        n_mels=features.n_mels, power=2.0, center=True, pad_mode="reflect", norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    waveform = noise(n_samples)
    expected = transform(torch.from_numpy(waveform)).T.numpy()
    np.testing.assert_allclose(mel_power(waveform, params), expected, rtol=1e-3, atol=1e-9)


def test_the_filterbank_equals_torchaudio_at_the_rate_of_the_field() -> None:
    features = front_end(48000, n_fft=3072, n_mels=128, f_min=20.0, f_max=16000.0).features
    expected = torchaudio.functional.melscale_fbanks(
        1537, 20.0, 16000.0, 128, 48000, norm="slaney", mel_scale="slaney"
    )
    np.testing.assert_allclose(mel_filterbank(48000, features), expected.numpy(), atol=1e-7)


def test_the_tip_of_each_triangle_is_the_centre_of_its_row() -> None:
    features = front_end(n_fft=16384).features
    tips = mel_filterbank(8000, features).argmax(axis=0) * 8000 / 16384
    np.testing.assert_allclose(mel_centres(features), tips, atol=8000 / 16384)


def test_log_mel_equals_torchaudio_in_decibels() -> None:
    params = front_end(top_db=40.0)
    waveform = noise(20000)
    power = torch.from_numpy(mel_power(waveform, params))
    expected = torchaudio.functional.amplitude_to_DB(power[None, None], 10.0, 1e-10, 0.0, top_db=40.0)[0, 0]
    np.testing.assert_allclose(log_mel(waveform, params), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(("n_samples", "n_frames"), [(959, 10), (960, 11), (961, 11)])
def test_a_centred_stft_has_one_frame_more_than_hops(n_samples: int, n_frames: int) -> None:
    decibels = log_mel(noise(n_samples), front_end())
    assert decibels.shape == (n_frames, 12)
    assert decibels.dtype == np.float32


def test_a_tone_lights_the_mel_row_that_holds_it() -> None:
    params = front_end()
    corners = torchaudio_corners(100.0, 3900.0, 12)
    tone = np.sin(2 * np.pi * corners[6] * np.arange(8000) / 8000).astype(np.float32)
    assert (log_mel(tone, params)[5:-5].argmax(axis=1) == 5).all()


def test_twice_as_loud_is_six_decibels_more_everywhere() -> None:
    waveform = noise(5000)
    louder = log_mel(2 * waveform, front_end())
    np.testing.assert_allclose(louder - log_mel(waveform, front_end()), 20 * np.log10(2), atol=1e-3)


def test_nothing_is_more_than_top_db_below_the_recordings_maximum() -> None:
    waveform = noise(20000) * np.repeat(np.array([1e-6, 1], np.float32), 10000)
    decibels = log_mel(waveform, front_end(top_db=50.0))
    assert decibels.max() - decibels.min() == pytest.approx(50, abs=1e-4)


def test_log_mel_does_not_write_into_the_waveform() -> None:
    waveform = noise(5000)
    before = waveform.copy()
    log_mel(waveform, front_end())
    np.testing.assert_array_equal(waveform, before)


def test_a_mel_row_without_a_bin_is_refused_with_the_values() -> None:
    params = front_end(n_mels=300)
    with pytest.raises(
        UserError,
        match=r"of n_mels 300 rows from f_min 100 to f_max 3900 Hz .*first row 0: .* n_fft 256 at 8000 Hz",
    ):
        log_mel(noise(5000), params)


def test_a_waveform_of_half_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="128 samples cannot be reflected"):
        log_mel(noise(128), front_end())


@pytest.mark.parametrize("top_db", [20.0, 80.0, 120.0])
def test_quantised_decibels_are_off_by_half_a_level_at_most(top_db: float) -> None:
    decibels = log_mel(noise(50000), front_end(top_db=top_db))
    db_min, db_max = decibels.min(), decibels.max()
    levels = quantise(decibels, db_min, db_max)
    assert levels.dtype == np.uint8
    assert (levels.min(), levels.max()) == (0, 255)
    restored = db_min + levels / 255 * (db_max - db_min)
    assert np.abs(restored - decibels).max() <= top_db / 510 + 1e-4


def test_quantise_rounds_to_the_nearest_level() -> None:
    levels = quantise(np.array([[-300.0, -255.0, -254.6, -254.4, 0.0]], np.float32), -255.0, 0.0)
    assert levels.tolist() == [[0, 0, 0, 1, 255]]


def test_constant_decibels_become_zeros() -> None:
    assert not quantise(np.full((3, 2), -100.0, np.float32), -100.0, -100.0).any()
