from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import torchaudio

from callboard.data import audio
from callboard.data.audio import BadRecording, open_recording, resample, resample_pieces, resampled_length
from callboard.params.features import AudioParams
from tests.toy_sounds import read_recording

RATE = 8000


def noise(n_samples: int = 2 * RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(n_samples)).astype(np.float32)


def refusal(
    path: Path, on_other_rate: str = "error", f_max: float = 0.0, channel: int | str | None = None
) -> str:
    with pytest.raises(BadRecording) as error:
        read_recording(path, RATE, on_other_rate, f_max, channel)
    assert error.value.recording_id == path.stem
    assert str(error.value) == f"recording {path.stem}: {error.value.reason}"
    return error.value.reason


def test_a_flac_comes_back_as_float32_of_its_integers(tmp_path: Path) -> None:
    levels = np.array([0, 1, -1, 12345, 32767, -32768], np.int16)
    sf.write(tmp_path / "a.flac", levels, RATE)
    waveform = read_recording(tmp_path / "a.flac", RATE, "error")
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, levels / 32768)


@pytest.mark.parametrize("n_kept", [0, 20, 100, 10000, -2])
def test_a_flac_cut_short_anywhere_is_refused(tmp_path: Path, n_kept: int) -> None:
    sf.write(tmp_path / "a.flac", noise(), RATE)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[:n_kept])
    assert "truncated" in refusal(tmp_path / "a.flac")


def test_fewer_samples_than_the_header_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sf.write(tmp_path / "a.flac", noise(), RATE)
    read = sf.SoundFile.read
    monkeypatch.setattr(sf.SoundFile, "read", lambda file, n, **form: read(file, 100, **form))
    assert refusal(tmp_path / "a.flac") == "truncated: 100 of the 16000 samples in its header"


def test_a_damaged_flac_is_refused(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.flac", noise(), RATE)
    damaged = bytearray((tmp_path / "a.flac").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 300] = bytes(300)
    (tmp_path / "a.flac").write_bytes(damaged)
    assert "unreadable" in refusal(tmp_path / "a.flac")


def test_a_flac_that_does_not_state_its_length_is_refused(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.flac", noise(), RATE)
    streamed = bytearray((tmp_path / "a.flac").read_bytes())
    streamed[21] &= 0xF0  # the 36-bit count of samples in STREAMINFO
    streamed[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(streamed)
    assert "does not state a length" in refusal(tmp_path / "a.flac")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.flac").write_text("not audio")
    (tmp_path / "folder.flac").mkdir()
    assert "unreadable" in refusal(tmp_path / "text.flac")
    assert "no such file" in refusal(tmp_path / "folder.flac")
    assert "no such file" in refusal(tmp_path / "absent.flac")


def test_stereo_is_refused_not_mixed_down(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.flac", np.stack([noise(), noise()], axis=1), RATE)
    assert refusal(tmp_path / "a.flac") == (
        "2 channels, expected one (mono); audio.channel=mean takes their mean, audio.channel=0 the first"
    )


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_a_constant_recording_is_silent(tmp_path: Path, level: float) -> None:
    sf.write(tmp_path / "a.flac", np.full(RATE, level), RATE)
    assert refusal(tmp_path / "a.flac") == f"silent: every sample is {level:g}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    waveform = noise()
    waveform[1234] = value
    sf.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    assert refusal(tmp_path / "a.wav") == "holds NaN or infinite samples"


def test_a_recording_without_samples_is_refused(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", noise(0), RATE)
    assert refusal(tmp_path / "a.wav") == "empty: no samples"


def test_another_rate_is_refused_with_both_rates_and_the_switch(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.flac", noise(), 11025)
    reason = refusal(tmp_path / "a.flac")
    assert "11025 Hz" in reason
    assert "audio.sample_rate 8000 Hz" in reason
    assert "audio.on_other_rate=resample" in reason


@pytest.mark.parametrize("on_other_rate", ["error", "resample"])
def test_a_rate_that_cannot_carry_f_max_is_refused_whichever(tmp_path: Path, on_other_rate: str) -> None:
    sf.write(tmp_path / "a.flac", noise(), 6000)
    reason = refusal(tmp_path / "a.flac", on_other_rate, f_max=3500.0)
    assert reason == "sample rate 6000 Hz carries up to 3000 Hz, but features.f_max is 3500 Hz"


@pytest.mark.parametrize("from_rate", [6000, 11025, 16000, 44100])
@pytest.mark.parametrize("n_samples", [4001, 10000])
def test_a_resampled_tone_keeps_its_pitch_level_and_expected_length(
    tmp_path: Path, from_rate: int, n_samples: int
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 700 * np.arange(n_samples) / from_rate)
    sf.write(tmp_path / "a.wav", tone, from_rate, subtype="FLOAT")
    waveform = read_recording(tmp_path / "a.wav", RATE, "resample", f_max=3000.0)
    assert waveform.dtype == np.float32
    assert len(waveform) == resampled_length(n_samples, from_rate, RATE)
    expected = 0.5 * np.sin(2 * np.pi * 700 * np.arange(len(waveform)) / RATE)
    inside = slice(50, len(waveform) - 50)
    np.testing.assert_allclose(waveform[inside], expected[inside], atol=5e-3)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48000, 24000), (44100, 24000), (16000, 24000)])
def test_resampling_equals_torchaudio_with_the_same_filter(from_rate: int, to_rate: int) -> None:
    waveform = noise()
    expected = torchaudio.functional.resample(
        torch.from_numpy(waveform), from_rate, to_rate, lowpass_filter_width=10, rolloff=1.0,
        resampling_method="sinc_interp_kaiser", beta=5.0,
    ).numpy()  # fmt: skip
    resampled = resample(waveform, from_rate, to_rate)
    # scipy brings the sum of the filter's taps to one, torchaudio leaves it 0.1 % off
    assert np.std(resampled - expected) < 1e-3 * np.std(resampled)


def test_resampled_length_is_that_of_the_resampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for n_samples, from_rate, to_rate in rng.integers(100, 5000, size=(40, 3)).tolist():
        assert len(resample(noise(n_samples), from_rate, to_rate)) == resampled_length(
            n_samples, from_rate, to_rate
        )


MADE_OF_PIECES = [
    *(("flac", RATE, n_samples) for n_samples in (20_001, 40_000)),
    *(("wav", rate, 31_113) for rate in (4000, 7999, 11_025, 12_000, 44_100)),
    *((suffix, rate, 30_001) for suffix in ("ogg", "mp3", "aiff") for rate in (8000, 24_000)),
]


@pytest.mark.parametrize(("suffix", "rate", "n_samples"), MADE_OF_PIECES)
@pytest.mark.parametrize("channel", [None, "mean", 1])
def test_pieces_are_the_whole_to_the_last_bit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    rate: int,
    n_samples: int,
    channel: int | str | None,
) -> None:
    sound = noise(n_samples)
    path = tmp_path / f"a.{suffix}"
    sf.write(path, sound if channel is None else np.stack([sound, sound[::-1]], axis=1), rate)
    with sf.SoundFile(path) as file:
        samples = file.read(dtype="float32", always_2d=True)
    expected = samples.mean(axis=1) if channel == "mean" else samples[:, channel or 0]
    if rate != RATE:
        expected = resample(expected, rate, RATE)
    for piece_samples in (20_000, 5557, 1000):
        monkeypatch.setattr(audio, "PIECE_SAMPLES", piece_samples)
        np.testing.assert_array_equal(read_recording(path, RATE, "resample", 0.0, channel), expected)
    settings = AudioParams(sample_rate=RATE, on_other_rate="resample", channel=channel)
    with open_recording(path, settings) as opened:
        pieces = [len(piece) for piece in opened.pieces]
    assert len(pieces) > 10 or rate == 7999  # every cut must be at a multiple of 7999 samples
    assert len(pieces) > 1
    assert sum(pieces) == opened.n_samples == len(expected)


def test_pieces_resampled_anywhere_are_the_whole() -> None:
    rng = np.random.default_rng(2)
    for from_rate, to_rate in rng.integers(20, 400, size=(60, 2)).tolist():
        waveform = noise(3000)
        cuts = np.sort(rng.integers(0, 3000, size=rng.integers(0, 9)))
        pieces = resample_pieces(np.split(waveform, cuts), 3000, from_rate, to_rate)
        expected = resample(waveform, from_rate, to_rate)
        np.testing.assert_array_equal(np.concatenate(list(pieces)), expected)


def damaged(path: Path, kind: str) -> None:
    waveform = noise(30_000)
    if kind.startswith("NaN"):
        waveform[100 if "early" in kind else 29_990] = np.nan
    if kind == "infinite":
        waveform[15_000] = -np.inf
    if kind == "silent":
        waveform[:] = 0.25
    if kind == "silent but for its end":
        waveform[:-1] = 0.0
    if kind == "truncated":
        sf.write(path, waveform, RATE, format="FLAC")
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        sf.write(path, waveform, RATE, format="CAF", subtype="FLOAT")


@pytest.mark.parametrize(
    "kind",
    [
        "NaN early",
        "NaN late",
        "infinite",
        "silent",
        "silent but for its end",
        "truncated",
        "NaN early, truncated",
    ],
)
def test_pieces_are_refused_as_the_whole_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "a.caf"
    damaged(path, kind)

    def outcome() -> str:
        try:
            return str(len(read_recording(path, RATE, "error")))
        except BadRecording as bad:
            return bad.reason

    whole = outcome()
    assert ("truncated" in whole) == (kind == "truncated")
    assert whole.isdigit() == (kind == "silent but for its end")
    for piece_samples in (20_000, 5557, 1000):
        monkeypatch.setattr(audio, "PIECE_SAMPLES", piece_samples)
        assert outcome() == whole


def test_a_channel_that_a_file_lacks_is_refused_by_the_parameters_name(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    sf.write(path, np.stack([noise(), -noise()], axis=1), RATE)
    assert refusal(path, channel=2) == "2 channels, but audio.channel is 2; the first is 0"
    assert refusal(path, channel="mean") == "silent: every sample is 0"
    sf.write(path, noise(), RATE)
    assert refusal(path, channel=1) == "1 channel, but audio.channel is 1; the first is 0"
    for channel in (None, "mean", 0):
        np.testing.assert_array_equal(
            read_recording(path, RATE, "error", 0.0, channel), read_recording(path, RATE, "error")
        )
