import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callboard.core import machine
from callboard.core.errors import UserError
from callboard.data.content_digests import content_digest
from callboard.data.recordings import Recording, read_recordings
from callboard.features import encoding
from callboard.features.encoding import (
    encode_recording,
    encode_recordings,
    frames_in,
    memory_of,
    refuse_too_long,
)
from callboard.features.frame_cache import EncodedRecording
from callboard.params.features import FrontEndParams

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


@pytest.mark.parametrize(
    ("n_samples", "sample_rate", "expected"), [(7999, 8000, 100), (8000, 8000, 101), (11025, 11025, 101)]
)
def test_frames_are_counted_before_anything_is_decoded(
    n_samples: int, sample_rate: int, expected: int
) -> None:
    assert frames_in(recording("a", n_samples, sample_rate), FRONT_END) == expected


def test_recordings_come_out_in_order_whichever_is_done_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(recording: Recording, front_end: FrontEndParams) -> EncodedRecording:
        time.sleep(0.02 if int(recording.recording_id) % 3 == 0 else 0)
        return encoded(recording.recording_id)

    monkeypatch.setattr(encoding, "encode_recording", encode)
    names = [str(number) for number in range(20)]
    results = encode_recordings([recording(name) for name in names], FRONT_END, 4)
    assert [result.recording_id for result in results] == names


def test_a_slow_reader_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    lock = threading.Lock()

    def encode(recording: Recording, front_end: FrontEndParams) -> EncodedRecording:
        with lock:
            begun.append(recording.recording_id)
        return encoded(recording.recording_id)

    monkeypatch.setattr(encoding, "encode_recording", encode)
    results = encode_recordings([recording(str(number)) for number in range(50)], FRONT_END, 3)
    for n_read, _ in enumerate(results, start=1):
        time.sleep(0.002)
        assert len(begun) <= n_read + 6


def test_running_out_of_memory_names_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"x")
    digest = content_digest(path)
    monkeypatch.setattr(encoding, "read_recording", lambda *arguments: np.ones(2**50))
    long = Recording("a", "train", path, 4 * 3600 * 8000, 8000, digest)
    told = (
        "recording a of 4.0 h: out of memory; set CALLBOARD_WORKERS=1 or cut the recording into shorter files"
    )
    with pytest.raises(UserError, match=told):
        list(encode_recordings([long], FRONT_END, 1))


@pytest.mark.parametrize(
    ("sample_rate", "features"),
    [(8000, {}), (8000, {"hop_length": 20, "n_mels": 24}), (16_000, {}), (16_000, {"hop_length": 16})],
    ids=["transform", "quantisation", "resampling", "quantisation of resampled"],
)
def test_the_memory_of_a_recording_is_known_before_it_is_read(
    tmp_path: Path, sample_rate: int, features: dict[str, int]
) -> None:
    changed = FRONT_END.features.model_copy(update=features)
    front_end = FRONT_END.model_copy(update={"features": changed})
    path, n_samples = tmp_path / "a.wav", 60 * sample_rate
    noise = np.random.default_rng(0).standard_normal(n_samples) * 0.1
    soundfile.write(path, noise, sample_rate, subtype="PCM_16")
    found = Recording("a", "train", path, n_samples, sample_rate, content_digest(path))
    encode_recording(found, front_end)  # what is made once and kept
    tracemalloc.start()
    try:
        encode_recording(found, front_end)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert memory_of(found, front_end) <= peak
    assert memory_of(found, front_end) == pytest.approx(
        peak, rel=0.15
    )  # blocks of frames are short only here


def test_a_recording_that_no_memory_holds_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [recording("short", 8000), recording("long", 8_000_000), recording("longer", 9_000_000)]
    needed = memory_of(found[-1], FRONT_END)
    assert needed > 8 * 9_000_000
    for module in (encoding, machine):
        monkeypatch.setattr(module, "memory_limit", lambda: needed)
    refuse_too_long(found, FRONT_END, 1)
    assert capsys.readouterr().err == ""
    refuse_too_long(found, FRONT_END, 2)
    assert "the 2 longest recordings need 0.1 GB of memory side by side" in capsys.readouterr().err
    for module in (encoding, machine):
        monkeypatch.setattr(module, "memory_limit", lambda: needed - 1)
    with pytest.raises(UserError, match=r"recording longer: needs 0.1 GB of memory, .*; cut it into"):
        refuse_too_long(found, FRONT_END, 2)
