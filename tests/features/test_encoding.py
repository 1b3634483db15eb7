import threading
import time
from pathlib import Path

import numpy as np
import pytest

from callboard.core.errors import UserError
from callboard.data.recordings import Recording, read_recordings
from callboard.features import encoding
from callboard.features.encoding import encode_recordings, frames_in
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
    return Recording(name, "train", Path(f"{name}.flac"), n_samples, sample_rate, 1)


def encoded(name: str) -> EncodedRecording:
    return EncodedRecording(name, np.zeros((1, 12), np.uint8), -80.0, 0.0)


def test_relative_paths_start_at_the_source_and_absolute_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "recordings.csv").write_text(
        "recording_id,subset,path,n_samples,sample_rate,n_bytes\n"
        "055088446,train,train/055088446.flac,2880000,48000,123\n"
        "1e5,test,/elsewhere/1e5.flac,100,44100,45\n"
    )
    assert read_recordings(tmp_path) == [
        Recording("055088446", "train", tmp_path / "train/055088446.flac", 2880000, 48000, 123),
        Recording("1e5", "test", Path("/elsewhere/1e5.flac"), 100, 44100, 45),
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
    monkeypatch.setattr(encoding, "read_recording", lambda *arguments: np.ones(2**50))
    long = Recording("a", "train", path, 4 * 3600 * 8000, 8000, 1)
    told = (
        "recording a of 4.0 h: out of memory; set CALLBOARD_WORKERS=1 or cut the recording into shorter files"
    )
    with pytest.raises(UserError, match=told):
        list(encode_recordings([long], FRONT_END, 1))
