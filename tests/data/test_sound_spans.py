from pathlib import Path

import numpy as np
import pytest
import soundfile

from callboard.data import sound_spans
from callboard.data.audio import BadRecording
from callboard.data.sound_spans import read_span
from tests.toy_sounds import read_recording

RATE = 8000


def write(path: Path, seconds: float = 20.0, channels: int = 1, rate: int = RATE) -> Path:
    waves = 0.3 * np.random.default_rng(4).standard_normal((round(seconds * rate), channels))
    with soundfile.SoundFile(path, "w", rate, channels) as file:  # libsndfile crashes on long OGG at once
        for start in range(0, len(waves), 4096):
            file.write(waves[start : start + 4096])
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff"])
def test_a_span_is_that_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}")
    whole = read_recording(path, RATE, "resample")
    span = read_span(path, 11.0, 13.5)
    assert (span.start_s, span.stop_s, span.sample_rate) == (11.0, 13.5, RATE)
    np.testing.assert_allclose(span.waveform, whole[88_000:108_000], atol=2e-4)


def test_an_mp3_is_read_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp3")
    expected = read_span(path, 5.0, 7.0).waveform
    monkeypatch.setattr("callboard.data.audio.PIECE_SAMPLES", 7000)
    np.testing.assert_array_equal(read_span(path, 5.0, 7.0).waveform, expected)


def test_a_span_ends_where_the_recording_does(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", seconds=3.0)
    assert (read_span(path, -2.0, 1.0).start_s, read_span(path, -2.0, 1.0).stop_s) == (0.0, 1.0)
    assert read_span(path, 2.0, 9.0).stop_s == 3.0


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", channels=2)
    expected = read_recording(path, RATE, "resample", channel="mean")
    np.testing.assert_array_equal(read_span(path, 1.0, 2.0).waveform, expected[RATE : 2 * RATE])


def test_only_the_span_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac")
    n_read = []
    read = soundfile.SoundFile.read

    def counting(file: soundfile.SoundFile, frames: int, **options: object) -> np.ndarray:
        n_read.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    read_span(path, 15.0, 15.5)
    assert n_read == [4000]


def test_many_channels_or_a_high_rate_make_the_longest_span_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_spans, "MOST_SPAN_SAMPLES", 3 * RATE)
    assert read_span(write(tmp_path / "one.wav"), 1.0, 4.0).stop_s == 4.0
    two = write(tmp_path / "two.wav", channels=2)
    assert read_span(two, 1.0, 2.5).stop_s == 2.5
    with pytest.raises(BadRecording, match=r"1 to 4 s is too long; at most 1\.5 s are shown"):
        read_span(two, 1.0, 4.0)


def test_what_cannot_be_shown_is_refused_by_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.wav", seconds=3.0)
    with pytest.raises(BadRecording, match=r"is 3 s long, and ends before 5 s"):
        read_span(path, 5.0, 6.0)
    with pytest.raises(BadRecording, match="no such file"):
        read_span(tmp_path / "b.wav", 0, 1)
    monkeypatch.setattr(sound_spans, "LONGEST_SPAN_S", 2.0)
    with pytest.raises(BadRecording, match="0 to 3 s is too long; at most 2 s are shown"):
        read_span(path, 0, 3)
    (tmp_path / "c.flac").write_text("no sound")
    with pytest.raises(BadRecording, match=r"c\.flac: not a recording"):
        read_span(tmp_path / "c.flac", 0, 1)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(BadRecording, match="is truncated: "):
        read_span(path, 0, 1)
    soundfile.write(tmp_path / "d.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(BadRecording, match="has NaN or infinite samples"):
        read_span(tmp_path / "d.wav", 0, 1)
