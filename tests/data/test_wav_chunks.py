"""WAV files as soundfile writes them, and as recorders that lost power leave them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callboard.data.audio import BadRecording
from callboard.data.recording_files import read_header
from callboard.data.wav_chunks import wav_damage
from callboard.params.features import AudioParams
from tests.toy_sounds import read_recording

RATE = 8000
AUDIO = AudioParams(sample_rate=RATE, on_other_rate="error")
SAMPLES = np.sin(np.arange(RATE) / 5).astype(np.float32) / 2


def wav(path: Path, form: str = "WAV", subtype: str = "PCM_16", endian: str = "FILE") -> bytes:
    soundfile.write(path, SAMPLES, RATE, format=form, subtype=subtype, endian=endian)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_wav_of_any_kind_that_was_cut_is_truncated(
    tmp_path: Path, form: str, subtype: str, share: float
) -> None:
    path = tmp_path / "r.wav"
    content = wav(path, form, subtype)
    assert wav_damage(path) == ""
    path.write_bytes(content[: int(len(content) * share)])
    assert "is truncated: " in wav_damage(path)
    with pytest.raises(BadRecording, match=r"recording r: is truncated: \d+ of the \d+ bytes of sound"):
        read_recording(path, RATE, "error")
    assert read_header("r", "train", path, AUDIO).reason.startswith("train/r.wav is truncated: ")


def test_big_endian_files_are_understood(tmp_path: Path) -> None:
    content = wav(tmp_path / "r.wav", endian="BIG")
    assert content.startswith(b"RIFX")
    assert wav_damage(tmp_path / "r.wav") == ""
    (tmp_path / "r.wav").write_bytes(content[:-100])
    assert "is truncated: 15900 of the 16000 bytes" in wav_damage(tmp_path / "r.wav")


def with_stated(content: bytes, n_bytes: int) -> bytes:
    """Replace the length of the sound in the header."""
    place = content.index(b"data") + 4
    return content[:place] + struct.pack("<I", n_bytes) + content[place + 4 :]


@pytest.mark.parametrize(
    ("n_bytes", "message"),
    [
        (44, "states 44 bytes of sound in its header, but 15956 more bytes follow"),
        (0, "states 0 bytes of sound in its header, but 16000 more bytes follow"),
        (2**32 - 1, "does not state its length in its header; encode it again"),
    ],
)
def test_a_header_that_was_never_finished_is_damage(tmp_path: Path, n_bytes: int, message: str) -> None:
    path = tmp_path / "r.wav"
    content = wav(path)
    path.write_bytes(with_stated(content, n_bytes)[:-16000] + bytes(16000))
    assert wav_damage(path) == message
    assert read_header("r", "train", path, AUDIO).reason == f"train/r.wav {message}"


@pytest.mark.parametrize(
    "behind",
    [b"", b"\0", b"LIST" + struct.pack("<I", 9000) + bytes(9000), b"\0guan" + bytes(9000), bytes(512)],
    ids=["nothing", "padding", "chunk", "chunk after a byte", "rest of a block"],
)
def test_what_writers_put_behind_the_sound_is_no_damage(tmp_path: Path, behind: bytes) -> None:
    path = tmp_path / "r.wav"
    path.write_bytes(wav(path) + behind)
    assert wav_damage(path) == ""
    assert len(read_recording(path, RATE, "error")) == RATE


@pytest.mark.parametrize("content", [b"", b"RIFF", b"fLaC" + bytes(100), b"RIFF1234WAVEfmt "])
def test_what_is_not_a_wav_is_left_to_libsndfile(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.wav").write_bytes(content)
    assert wav_damage(tmp_path / "r.wav") == ""
