"""The stage of one nested network, on the toy world."""

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from callboard.data.clips import read_clips, write_clips
from callboard.data.folds import read_folds, write_folds
from callboard.model.weights import read_held_out
from callboard.training.progress import read_progress
from stages import network
from tests.toy_training import PARAMS, write_fold_inputs

ARGV = (
    "--round 0 --held-out 0-2 --mel mel --clips clips.csv --folds folds.csv --species species.csv --weights"
)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    write_fold_inputs(tmp_path)
    Path("params.yaml").write_text(json.dumps(PARAMS))


def train(path: str, *more: str) -> bytes:
    network.main([*shlex.split(ARGV), path, "--curve", path.replace(".pt", ".csv"), *more])
    return Path(path).read_bytes()


def test_weights_tell_what_the_network_holds_out_and_nothing_is_left_to_resume(capsys):
    first = train("networks/r0/2/0-2.pt")
    folds = read_folds(Path("folds.csv"))
    held_out = folds.loc[folds["fold"].isin([0, 2]), "recording_id"]
    assert read_held_out(Path("networks/r0/2/0-2.pt")) == (0, frozenset(held_out))
    (progress,) = read_progress(Path(".cache/checkpoints")).values()
    assert (progress.name, progress.is_finished) == ("r0/folds0-2", True)
    assert not list(Path(".cache/checkpoints").glob("*.pt"))
    *_, epochs, summary = capsys.readouterr().out.splitlines()
    assert epochs.startswith("network: r0/folds0-2, 3 epochs in ")
    assert summary.startswith("network: r0/folds0-2, on cpu")
    assert train("again.pt") == first
    curve = pd.read_csv("networks/r0/2/0-2.csv")
    assert list(curve["epoch"]) == [1, 2, 3]
    assert set(curve["device"]) == {"cpu"}


def test_pseudo_labels_of_another_set_are_learned_from():
    clips = read_clips(Path("clips.csv"))
    shutil.copytree("mel", "other")
    index = Path("other/index.csv")
    index.write_text(index.read_text().replace("r0", "t0").replace("r1", "t1"))
    of_others = clips.assign(recording_id=clips["recording_id"].str.replace("r", "t"), label_type="pseudo")
    of_others = of_others.assign(clip_id=range(100, 100 + len(clips)), round=1, teacher="r0/folds0-1-2")
    of_others = of_others.assign(score=0.9, votes=1, target=1.0, student="0-2")
    write_clips(of_others, Path("pseudo.csv"))
    plain = train("plain.pt")
    taught = train("taught.pt", "--pseudo", "pseudo.csv", "--mel-others", "other")
    assert read_held_out(Path("taught.pt")) == read_held_out(Path("plain.pt"))
    assert taught != plain


def test_a_nested_network_holds_out_whole_sites():
    folds = read_folds(Path("folds.csv"))
    folds["group"] = [f"site{fold}-{place % 2}" for place, fold in enumerate(folds["fold"])]
    plain = train("plain.pt")
    write_folds(folds, Path("folds.csv"))
    assert train("by_site.pt") == plain
    _, held_out = read_held_out(Path("by_site.pt"))
    is_held_out = folds["recording_id"].isin(held_out)
    assert is_held_out.any()
    assert not set(folds.loc[is_held_out, "group"]) & set(folds.loc[~is_held_out, "group"])
