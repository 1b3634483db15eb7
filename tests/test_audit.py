"""`callboard audit`, and doctor's check of the same, on results that are in git and DVC's cache only."""

import pandas as pd
import pytest

from callboard.cli import dispatch
from callboard.clips import write_clips
from callboard.doctor.findings import State
from callboard.doctor.teachers import leaking_teachers
from callboard.errors import UserError
from callboard.evaluation import relabeled_lwlrap
from callboard.finished import find_finished
from callboard.folds import read_folds
from callboard.runs.commits import committed_files
from tests.test_report_page import PARAMS, ToyResult
from tests.toy_models import random_out_of_fold, toy_clips

TEACHERS = {
    "sound": lambda k: f"r0/fold{k % 3}",
    "leaking": lambda k: f"r0/fold{(k + (k > 3)) % 3}",
    "voted": lambda k: "r0",
    "plain": None,
}
PARTS = [f"{name}@0123456789abcdef" for name in ("sound", "voted")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    toy = ToyResult(tmp_path_factory.mktemp("audit") / "main")
    made = toy.root.parent / "made"
    for name, teacher in TEACHERS.items():
        toy.outs |= {"scores/oof.csv": toy.cache_table(random_out_of_fold(len(name)))}
        params = PARAMS | {"infer": {"blend": []}, "pseudo": PARAMS["pseudo"] | {"isolation": "recording"}}
        if teacher is None:
            params |= {"pseudo": {"rounds": [], "final": 0}}
        else:
            table = toy_clips().head(6).assign(label_type="pseudo", round=1, score=0.9, votes=3, target=1.0)
            write_clips(table.assign(teacher=[teacher(k) for k in range(6)]), made / "pseudo.csv")
            toy.outs |= {"pseudo/r1.csv": toy.cache((made / "pseudo.csv").read_bytes())}
        if name == "voted":
            params["pseudo"] |= {"isolation": "none"}
        for folder in ("metrics", "plots"):
            assert not (toy.root / folder).exists()
        finish(toy, name, params)
    finish(toy, "blended", PARAMS | {"infer": {"blend": PARTS}, "pseudo": {"rounds": [], "final": 0}})
    return toy


def finish(toy, name, params, outs=None):
    (toy.root / "metrics").mkdir()
    (toy.root / "plots/train").mkdir(parents=True)
    for part, score in (("cv", "lwlrap"), ("lb", "public")):
        (toy.root / f"metrics/{part}.json").write_text(f'{{"{part}": {{"{score}": 0.7}}}}')
    for number in (0, 1):
        for fold in range(3):
            curve = toy.root / f"plots/train/r{number}-fold{fold}.csv"
            curve.write_text("epoch,loss\n1,2.0\n")
    toy.experiment(name, outs or toy.outs, params)


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    (repository.root / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(repository.root)


def test_the_lineage_of_a_sound_result_is_told(capsys):
    dispatch(["audit", "sound"])
    header, _, row, _, sentence, inflation = capsys.readouterr().out.splitlines()
    assert inflation.startswith("CV 0.")
    assert [cell.strip() for cell in header.split("|")[1:-1]][2:] == [
        "labels",
        "in no fold",
        "unseen",
        "inherited",
        "seen or unsure",
    ]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "r1",
        "r0/fold0 2, r0/fold1 2, r0/fold2 2",
        "6",
        "0",
        "6",
        "0",
        "0",
    ]
    assert sentence.startswith("round 1: isolated: no teacher had seen its recording (6 of 6); of 6 labels")


def test_a_leak_is_an_error_that_names_recording_fold_and_teacher(capsys):
    message = r"round 1: recording 004 \(fold 1\) was labelled by r0/fold2, which had trained on it \(and 1"
    with pytest.raises(UserError, match=message):
        dispatch(["audit", "leaking"])
    assert "NOT isolated: 2 of 6 labels" in capsys.readouterr().out


def test_votes_without_isolation_are_told_and_no_error(capsys):
    dispatch(["audit", "voted"])
    assert "NOT isolated: 6 of 6 labels had a vote of a model trained" in capsys.readouterr().out


def test_a_result_without_pseudo_labels_has_nothing_to_audit(capsys):
    dispatch(["audit", "plain"])
    assert capsys.readouterr().out.startswith("plain: no pseudo-labels")


def begin_from(toy, start, name, folds=None):
    """A result without pseudo-labels whose folds started from those of another."""
    params = PARAMS | {"infer": {"blend": []}, "pseudo": {"rounds": [], "final": 0}}
    params |= {"train": {"init_from": f"{start}@{find_finished(start).key}"}}
    outs = toy.outs | ({"data/folds.csv": toy.cache(folds)} if folds else {})
    finish(toy, name, params, outs)
    (toy.root / "dvc.yaml").write_text("stages: {}\n")


def test_what_weights_started_from_is_audited_too(repository, capsys):
    begin_from(repository, "sound", "begun")
    begin_from(repository, "begun", "begun_twice")
    dispatch(["audit", "begun_twice"])
    told = capsys.readouterr().out
    assert "begun_twice started from begun@" in told
    assert "begun started from sound@" in told
    assert (
        told.count("No network has trained on a recording of its own fold, as its weights file tells: yes, 3")
        == 2
    )
    assert "isolated: no teacher had seen its recording (6 of 6)" in told


def test_a_leak_is_handed_on_with_the_weights(repository, capsys):
    begin_from(repository, "leaking", "tainted")
    with pytest.raises(UserError, match=r"leak: pseudo-labels of round 1: recording 004 .* by r0/fold2"):
        dispatch(["audit", "tainted"])


def test_weights_that_had_seen_what_their_fold_holds_out_are_named(repository, capsys):
    moved = read_folds(repository.root.parent / "made/data/folds.csv")
    moved["fold"] = (moved["fold"] + (moved["recording_id"] == "004")) % 3
    begin_from(repository, "sound", "moved", moved.to_csv(index=False).encode())
    with pytest.raises(
        UserError, match=r"leak: sound: models/r1/fold2.pt has trained on 1 recordings of fold 2"
    ):
        dispatch(["audit", "moved"])
    assert "its weights file tells: NO, 3 networks" in capsys.readouterr().out


def test_pseudo_labels_as_truth_are_measured_beside_the_experts_labels():
    scores = pd.DataFrame(
        {"recording_id": ["a", "b"], "fold": [0, 1], "s3": [0.9, 0.1], "s7": [0.5, 0.8], "sx": [0.1, 0.6]}
    )
    clips = pd.DataFrame({"recording_id": ["a", "b"], "species_id": ["x", "7"], "label_type": ["tp", "fp"]})
    pseudo = pd.DataFrame(
        {"recording_id": ["a", "b", "b"], "species_id": ["3", "7", "3"], "target": [1, 1, 0]}
    )
    assert relabeled_lwlrap(scores, clips, pseudo.head(0)) == pytest.approx(1 / 3)  # x is third in a
    assert relabeled_lwlrap(scores, clips, pseudo) == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_doctor_finds_the_leak_and_remembers_it(repository):
    for _ in range(2):
        with committed_files(repository.root) as files:
            (finding,) = leaking_teachers(State(repository.root, files))
        assert finding.what.startswith(
            "experiment leaking: its CV leaks, recording 004 (fold 1) was labelled"
        )
        assert "callboard audit leaking" in finding.todo


def test_a_blend_names_its_parts_instead():
    words = f"blended is a blend, which has neither .* its parts: {', '.join(PARTS)}"
    with pytest.raises(UserError, match=words):
        dispatch(["audit", "blended"])
