"""Recordings of one's own under real DVC: what changes in their folder is noticed, and nothing else is."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ruamel.yaml import YAML

from callboard.data.recordings import read_recordings
from tests.conftest import Workspace, merge, new_workspace, ran

pytestmark = pytest.mark.slow


@pytest.fixture
def own(finished: Workspace, tmp_path: Path) -> Workspace:
    """A workspace before its first result; beside it are the recordings of the soundscapes, as WAV."""
    source, folder = finished.root / "data/source", tmp_path / "recordings"
    for recording in read_recordings(source, {subset: source / subset for subset in ("train", "test")}):
        sound, rate = soundfile.read(recording.path)
        target = folder / recording.subset / f"{recording.recording_id}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, sound, rate)
    for name in ("train_tp.csv", "train_fp.csv"):
        shutil.copy(source / name, folder)
    workspace = new_workspace(tmp_path / "workspace")
    yaml, path = YAML(), workspace.root / "params.yaml"
    params = yaml.load(path)
    merge(params, {"data": {"source": "own", "root": "../recordings"}, "train": {"epochs": 1}})
    yaml.dump(params, path)
    workspace.commit()
    return workspace


def change_sound(path: Path) -> None:
    """Write other sound of the same length at the same time, as far as a program can set times."""
    times, sound = path.stat(), soundfile.read(path)[0]
    rate = soundfile.info(path).samplerate
    noise = 0.1 * np.random.default_rng(len(path.name)).standard_normal(len(sound))
    soundfile.write(path, noise, rate)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)


def test_changed_sound_of_equal_length_and_time_gives_another_cv_and_a_touch_runs_nothing(
    own: Workspace,
) -> None:
    folder = own.root.parent / "recordings"
    own.dvc("repro")
    before = own.read("metrics/cv.json")
    for path in folder.rglob("*.*"):
        path.touch()
    assert ran(own.dvc("repro")) == {"recordings"}

    for path in (folder / "train").iterdir():
        change_sound(path)
    assert {"recordings", "prepare", "crop", "train", "predict", "evaluate"} <= ran(own.dvc("repro"))
    assert own.read("metrics/cv.json") != before

    folder.rename(folder.with_name("elsewhere"))
    printed = own.dvc("repro")
    assert ran(printed) == {"recordings"}
    assert "folder does not exist" in printed
    own.dvc("repro", "--force", "--single-item", "train@0")
