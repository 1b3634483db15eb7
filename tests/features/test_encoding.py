import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from callboard.core.errors import UserError
from callboard.data import audio
from callboard.data.audio import BadRecording
from callboard.data.content_digests import content_digest
from callboard.data.recordings import Recording, read_recordings
from callboard.features import embeddings, encoding, frame_cache, frame_spool
from callboard.features.encoding import (
    encode_recording,
    encode_recordings,
    file_bytes,
    frames_in,
    memory_of,
    warn_of_memory,
)
from callboard.features.frame_cache import EncodedRecording, IndexRow, is_whole_pack, write_pack
from callboard.features.frame_spool import SPOOL_BYTES
from callboard.features.front_ends import LogMelFrames, frames_of
from callboard.features.log_mel import log_mel, quantise
from callboard.params.features import FrontEndParams
from tests.toy_sounds import read_recording

FRONT_END = FrontEndParams.model_validate(
    {
        "audio": {"sample_rate": 8000, "on_other_rate": "resample"},
        "features": {
            "kind": "log_mel", "embedding_hop_s": 0.5,
            "n_fft": 256, "hop_length": 80, "n_mels": 12, "f_min": 50.0, "f_max": 3900.0, "top_db": 80.0
        },
    }
)  # fmt: skip


def recording(name: str, n_samples: int = 8000, sample_rate: int = 8000) -> Recording:
    return Recording(name, "train", Path(f"{name}.flac"), n_samples, sample_rate, "d1")


def encoded(name: str) -> EncodedRecording:
    return EncodedRecording(name, np.zeros((1, 12), np.uint8), -80.0, 0.0)


def test_a_file_is_in_the_folder_of_its_set(tmp_path: Path) -> None:
    (tmp_path / "recordings.csv").write_text(
        "recording_id,subset,file,n_samples,sample_rate,digest\n"
        "055088446,train,055088446.flac,2880000,48000,0e1\n"
        "1e5,test,1E5.WAV,100,44100,45\n"
    )
    folders = {"train": Path("here/train"), "test": Path("/elsewhere")}
    assert read_recordings(tmp_path, folders) == [
        Recording("055088446", "train", Path("here/train/055088446.flac"), 2880000, 48000, "0e1"),
        Recording("1e5", "test", Path("/elsewhere/1E5.WAV"), 100, 44100, "45"),
    ]


@pytest.mark.parametrize("file", ["../a.wav", "/a.wav", "site/../../a.wav"])
def test_a_file_outside_the_folder_of_its_set_is_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / "recordings.csv").write_text(
        f"recording_id,subset,file,n_samples,sample_rate,digest\na,train,{file},100,8000,0e1\n"
    )
    with pytest.raises(UserError, match=r"recordings\.csv row 2: path '.*' leaves its folder"):
        read_recordings(tmp_path, {"train": Path("train")})


@pytest.mark.parametrize(
    ("n_samples", "sample_rate", "expected"), [(7999, 8000, 100), (8000, 8000, 101), (11025, 11025, 101)]
)
def test_frames_are_counted_before_anything_is_decoded(
    n_samples: int, sample_rate: int, expected: int
) -> None:
    assert frames_in(recording("a", n_samples, sample_rate), FRONT_END) == expected


def test_recordings_come_out_in_order_whichever_is_done_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(recording: Recording, front_end: FrontEndParams, folder: Path) -> EncodedRecording:
        time.sleep(0.02 if int(recording.recording_id) % 3 == 0 else 0)
        return encoded(recording.recording_id)

    monkeypatch.setattr(encoding, "encode_recording", encode)
    names = [str(number) for number in range(20)]
    results = encode_recordings([recording(name) for name in names], FRONT_END, Path(), 4)
    assert [result.recording_id for result in results] == names


def test_a_slow_reader_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    lock = threading.Lock()

    def encode(recording: Recording, front_end: FrontEndParams, folder: Path) -> EncodedRecording:
        with lock:
            begun.append(recording.recording_id)
        return encoded(recording.recording_id)

    monkeypatch.setattr(encoding, "encode_recording", encode)
    results = encode_recordings([recording(str(number)) for number in range(50)], FRONT_END, Path(), 3)
    for n_read, _ in enumerate(results, start=1):
        time.sleep(0.002)
        assert len(begun) <= n_read + 6


def test_running_out_of_memory_names_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = made(tmp_path / "a.flac", 8000)._replace(n_samples=4 * 3600 * 8000)
    monkeypatch.setattr(LogMelFrames, "encode", lambda *arguments: np.ones(2**50))
    told = "recording a of 4.0 h: out of memory; set CALLBOARD_WORKERS=1"
    with pytest.raises(UserError, match=told):
        list(encode_recordings([long], FRONT_END, tmp_path, 1))


def made(path: Path, n_samples: int, sample_rate: int = 8000, seed: int = 0) -> Recording:
    noise = np.random.default_rng(seed).standard_normal(n_samples) * 0.1
    noise[n_samples // 3 :] *= 0.001
    soundfile.write(path, noise, sample_rate)
    return Recording(path.stem, "train", path, n_samples, sample_rate, content_digest(path))


@pytest.mark.parametrize(
    ("sample_rate", "features"),
    [(8000, {}), (8000, {"hop_length": 20, "n_mels": 24}), (16_000, {}), (16_000, {"hop_length": 16})],
    ids=["transform", "quantisation", "resampling", "quantisation of resampled"],
)
@pytest.mark.parametrize("piece_samples", [2**23, 2**17], ids=["whole", "pieces"])
def test_the_memory_of_a_recording_is_known_before_it_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample_rate: int,
    features: dict[str, int],
    piece_samples: int,
) -> None:
    for module in (audio, encoding):
        monkeypatch.setattr(module, "PIECE_SAMPLES", piece_samples)
    changed = FRONT_END.features.model_copy(update=features)
    front_end = FRONT_END.model_copy(update={"features": changed})
    found = made(tmp_path / "a.wav", 60 * sample_rate, sample_rate)
    encode_recording(found, front_end, tmp_path)  # what is made once and kept
    needed, peak = memory_of(found, front_end), peak_of(found, front_end)
    if piece_samples > found.n_samples:
        assert needed == pytest.approx(peak, rel=0.15)
    else:
        assert peak / 1.3 < needed < 2.5 * peak  # blocks of frames are not small against such pieces


def peak_of(recording: Recording, front_end: FrontEndParams) -> int:
    tracemalloc.start()
    try:
        encode_recording(recording, front_end, recording.path.parent)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_length_of_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "PIECE_SAMPLES", 2**17)
    monkeypatch.setattr(frame_spool, "SPOOL_BYTES", 2**16)
    short, long = made(tmp_path / "a.flac", 2**18), made(tmp_path / "b.flac", 2**22)
    encode_recording(short, FRONT_END, tmp_path)
    assert peak_of(long, FRONT_END) < 1.05 * peak_of(short, FRONT_END)
    assert {path.name for path in tmp_path.iterdir()} == {"a.flac", "b.flac"}


def loudness(window: np.ndarray) -> np.ndarray:
    return np.full(embeddings.N_NUMBERS, 50 * np.abs(window).mean(), np.float32)


@pytest.mark.parametrize("sample_rate", [8000, 11_025, 48_000])
@pytest.mark.parametrize("n_samples", [8197, 50_001, 81_920])
@pytest.mark.parametrize(
    "features",
    [{}, {"n_fft": 80}, {"n_fft": 1023, "top_db": 20.0}, {"kind": "birdnet"}],
    ids=["log-mel", "frames side by side", "clipped", "embeddings"],
)
def test_frames_made_in_pieces_are_those_of_the_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample_rate: int,
    n_samples: int,
    features: dict[str, Any],
) -> None:
    monkeypatch.setattr(embeddings, "birdnet", loudness)
    monkeypatch.setattr(embeddings, "read_network", lambda: b"")
    changed = FRONT_END.features.model_copy(update=features)
    front_end = FRONT_END.model_copy(update={"features": changed})
    one = made(tmp_path / "a.flac", n_samples, sample_rate)

    def pack(name: str) -> tuple[bytes, list[IndexRow]]:
        outcomes = encode_recordings([one, one], front_end, tmp_path, 2)
        rows = write_pack(tmp_path / name, outcomes, frames_of(front_end).n_rows)
        return (tmp_path / name).read_bytes(), rows

    whole = pack("whole.npy")
    waveform = read_recording(one.path, 8000, "resample")
    if changed.kind == "log_mel":
        decibels = log_mel(waveform, front_end)
        assert (whole[1][0].db_min, whole[1][0].db_max) == (decibels.min(), decibels.max())
        expected = quantise(decibels, float(decibels.min()), float(decibels.max()))
        np.testing.assert_array_equal(np.load(tmp_path / "whole.npy")[: len(expected)], expected)
    monkeypatch.setattr(frame_cache, "FRAMES_AT_ONCE", 37)
    for piece_samples, spool_bytes in ((40_000, 2**26), (5557, 4000), (801, 10)):
        monkeypatch.setattr(audio, "PIECE_SAMPLES", piece_samples)
        monkeypatch.setattr(frame_spool, "SPOOL_BYTES", spool_bytes)
        assert pack("pieces.npy") == whole
        assert is_whole_pack(tmp_path / "pieces.npy", whole[1])


def test_short_recordings_are_refused_for_what_is_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = made(tmp_path / "a.flac", 255)
    told = "255 samples are less than one window of 256 (features.n_fft)"
    for piece_samples in (2**23, 100):
        monkeypatch.setattr(audio, "PIECE_SAMPLES", piece_samples)
        refused = encode_recording(short, FRONT_END, tmp_path)
        assert isinstance(refused, BadRecording)
        assert refused.reason == told
    soundfile.write(short.path, np.zeros(255), 8000)
    silent = encode_recording(short._replace(digest=content_digest(short.path)), FRONT_END, tmp_path)
    assert isinstance(silent, BadRecording)
    assert silent.reason == "silent: every sample is 0"


def test_recordings_that_do_not_fit_in_memory_side_by_side_are_named_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [recording("short", 8000), recording("long", 8_000_000), recording("longer", 9_000_000_000)]
    needed = memory_of(found[-1], FRONT_END)
    assert 1e8 < needed < 2e8
    monkeypatch.setattr(encoding, "memory_limit", lambda: needed)
    warn_of_memory(found, FRONT_END, 1)
    assert capsys.readouterr().err == ""
    warn_of_memory(found, FRONT_END, 2)
    assert "2 recordings side by side need 0.2 GB of memory, of 0.2 GB in all" in capsys.readouterr().err


def test_the_disk_must_have_room_for_frames_while_they_are_made() -> None:
    short, long = recording("short", 80_000), recording("long", 80_000_000)
    assert file_bytes([short, short], FRONT_END, 2) == 0
    levels = 4 * 12 * frames_in(long, FRONT_END)
    assert file_bytes([short, long], FRONT_END, 1) == 0
    assert levels < SPOOL_BYTES
    longer = long._replace(n_samples=8_000_000_000)
    assert file_bytes([short, *[longer] * 5], FRONT_END, 2) == 4 * 4 * 12 * frames_in(longer, FRONT_END)
