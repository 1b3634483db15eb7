"""Recordings of one's own under real DVC: what changes in their folder is noticed, and nothing else is."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from ruamel.yaml import YAML

from callboard.data.folds import read_folds
from callboard.data.recording_folders import recording_folders
from callboard.data.recordings import read_recordings
from callboard.data.score_tables import read_score_table
from callboard.data.sources import prepare_source
from callboard.params.experiment import load_experiment
from tests.conftest import Workspace, merge, new_workspace, ran

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path: Path) -> Workspace:
    """A workspace before its first result; beside it are the soundscapes of the toy world, as WAV."""
    workspace = new_workspace(tmp_path / "workspace")
    params = load_experiment(workspace.root / "params.yaml")
    made, folder = tmp_path / "made", tmp_path / "recordings"
    prepare_source(params.data, params.audio, made)
    for recording in read_recordings(made, recording_folders(params.data, made)):
        target = folder / recording.subset / f"{recording.recording_id}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, *soundfile.read(recording.path))
    for name in ("train_tp.csv", "train_fp.csv"):
        shutil.copy(made / name, folder)
    path, ruamel = workspace.root / "params.yaml", YAML()
    tree = ruamel.load(path)
    merge(tree, {"data": {"source": "own", "root": "../recordings"}})
    ruamel.dump(tree, path)
    workspace.commit()
    return workspace


def change_sound(path: Path) -> None:
    """Write other sound of the same length, and set the time of the last write back."""
    before, info = path.stat(), soundfile.info(path)
    noise = 0.1 * np.random.default_rng(before.st_ino).standard_normal(info.frames)
    soundfile.write(path, noise, info.samplerate)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def frames(workspace: Workspace) -> str:
    """md5 of the frames, on which everything that trains or predicts depends."""
    (out,) = [
        out
        for out in yaml.safe_load(workspace.read("dvc.lock"))["stages"]["crop"]["outs"]
        if out["path"] == "data/mel"
    ]
    return str(out["md5"])


def test_changed_sound_is_cropped_again_and_neither_a_touch_nor_a_missing_folder_runs_anything(
    own: Workspace,
) -> None:
    folder = own.root.parent / "recordings"
    own.dvc("repro", "split")
    before = frames(own)
    for path in folder.rglob("*.*"):
        path.touch()
    assert ran(own.dvc("repro", "split")) == {"recordings"}

    for path in (folder / "train").iterdir():
        change_sound(path)
    assert {"recordings", "prepare", "crop"} <= ran(own.dvc("repro", "split"))
    assert frames(own) != before

    folder.rename(folder.with_name("elsewhere"))
    printed = own.dvc("repro", "split")
    assert ran(printed) == {"recordings"}
    assert "folder does not exist" in printed


def test_sites_in_the_table_of_recordings_reach_cv_and_leave_the_data_as_they_are(own: Workspace) -> None:
    folder = own.root.parent / "recordings"
    own.dvc("repro", "split")
    before = frames(own)
    ids = sorted(path.stem for path in (folder / "train").iterdir())
    site_of = {recording_id: f"site{place % 7}" for place, recording_id in enumerate(ids)}
    rows = "".join(f"{recording_id},{site}\n" for recording_id, site in site_of.items())
    (folder / "recordings.csv").write_text(f"recording_id,site\n{rows}")
    assert ran(own.dvc("repro", "split")) == {"recordings", "prepare", "split"}
    assert frames(own) == before

    path, ruamel = own.root / "params.yaml", YAML()
    tree = ruamel.load(path)
    tree["split"] |= {"group": "site", "rare_species": "allow"}
    ruamel.dump(tree, path)
    own.dvc("repro")
    folds = read_folds(own.root / "data/folds.csv").set_index("recording_id")
    assert folds["group"].to_dict() == {recording_id: site_of[recording_id] for recording_id in folds.index}
    assert read_score_table(own.root / "scores/oof.csv")["group"].nunique() == 7
    assert json.loads(own.read("metrics/cv.json"))["cv"]["n_groups"] == 7
