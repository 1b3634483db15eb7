"""`callboard audit`, and doctor's check of the same, on results that are in git and DVC's cache only."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from callboard.analysis.doctor.findings import State
from callboard.analysis.doctor.results import leaking_teachers
from callboard.cli import dispatch
from callboard.core.errors import UserError
from callboard.data.clips import write_clips
from callboard.data.folds import read_folds, write_folds
from callboard.results.git import committed_files
from callboard.results.lookup import find
from callboard.scoring.evaluation import relabeled_lwlrap
from tests.reports.test_result_page import PARAMS, ToyResult
from tests.toy_models import TOY_FOLDS, TRAIN, random_out_of_fold, toy_clips

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
            params |= {"pseudo": {"rounds": 0}}
        else:
            table = toy_clips().head(6).assign(label_type="pseudo", round=1, score=0.9, votes=3, target=1.0)
            write_clips(table.assign(teacher=[teacher(k) for k in range(6)]), made / "pseudo.csv")
            toy.outs |= {"pseudo/r1.csv": toy.cache((made / "pseudo.csv").read_bytes())}
        if name == "voted":
            params["pseudo"] |= {"isolation": "none"}
        for folder in ("metrics", "plots"):
            assert not (toy.root / folder).exists()
        finish(toy, name, params)
    finish(toy, "blended", PARAMS | {"infer": {"blend": PARTS}, "pseudo": {"rounds": 0}})
    return toy


def finish(toy, name, params, outs=None):
    (toy.root / "metrics").mkdir()
    (toy.root / "plots/train").mkdir(parents=True)
    for part, score in (("cv", "lwlrap"), ("lb", "public")):
        (toy.root / f"metrics/{part}.json").write_text(f'{{"{part}": {{"{score}": 0.7}}}}')
    for number in range(params["pseudo"]["rounds"] + 1):
        for fold in params["split"]["folds"]:
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
    header, _, row, _, sentence, inflation, _, *legend = capsys.readouterr().out.splitlines()
    words = ["in no fold", "unseen", "inherited", "seen or unsure"]
    assert [line.partition(":")[0] for line in legend] == words
    assert inflation.startswith("CV 0.")
    assert [cell.strip() for cell in header.split("|")[1:-1]][2:] == [
        "labels",
        *words,
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
    assert sentence.startswith("round 1: isolated: no teacher had seen its recording (6 of 6); for 6 labels")


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


def begin_from(toy, start, name, outs=None):
    """A result without pseudo-labels whose folds started from those of another."""
    params = PARAMS | {"infer": {"blend": []}, "pseudo": {"rounds": 0}}
    params |= {"train": {"init_from": f"{start}@{find(start).key}"}}
    finish(toy, name, params, toy.outs | (outs or {}))
    (toy.root / "dvc.yaml").write_text("stages: {}\n")


def moved_folds(toy):
    """Folds with recording 004 in fold 2, of which only networks of fold 1 have not seen it."""
    moved = read_folds(toy.root.parent / "made/data/folds.csv")
    moved["fold"] = (moved["fold"] + (moved["recording_id"] == "004")) % 3
    return {"data/folds.csv": toy.cache(moved.to_csv(index=False).encode())}


def test_what_weights_started_from_is_audited_too(repository, capsys):
    begin_from(repository, "sound", "begun")
    begin_from(repository, "begun", "begun_twice")
    dispatch(["audit", "begun_twice"])
    told = capsys.readouterr().out
    assert "begun_twice started from begun@" in told
    assert "begun started from sound@" in told
    claim = "No network has trained on a recording of its own fold, according to its weights file"
    assert told.count(f"{claim}: yes, 3") == 2
    assert "isolated: no teacher had seen its recording (6 of 6)" in told


def test_a_leak_is_handed_on_with_the_weights(repository, capsys):
    begin_from(repository, "leaking", "tainted")
    with pytest.raises(UserError, match=r"leak: pseudo-labels of round 1: recording 004 .* by r0/fold2"):
        dispatch(["audit", "tainted"])


def test_weights_that_had_seen_what_their_fold_holds_out_are_named(repository, capsys):
    begin_from(repository, "sound", "moved", moved_folds(repository))
    with pytest.raises(
        UserError, match=r"leak: sound: models/r1/fold2.pt has trained on 1 recordings of fold 2"
    ):
        dispatch(["audit", "moved"])
    assert "according to its weights file: NO, 3 networks" in capsys.readouterr().out


def test_a_leak_at_the_far_end_of_a_chain_is_one_of_the_folds_at_its_near_end(repository, tmp_path, capsys):
    """What it started from holds 004 out in fold 2 too, what that started from does not and need not."""
    path = tmp_path / "fold2.pt"
    torch.save({"fold": 2, "held_out": [*TOY_FOLDS[2], "004"]}, path)
    begin_from(repository, "sound", "wary", {"models/r0/fold2.pt": repository.cache(path.read_bytes())})
    dispatch(["audit", "wary"])
    begin_from(repository, "wary", "moved_twice", moved_folds(repository))
    with pytest.raises(
        UserError, match=r"leak: sound: models/r1/fold2.pt has trained on 1 recordings of fold 2, first 004$"
    ):
        dispatch(["audit", "moved_twice"])
    assert "wary started from sound@" in capsys.readouterr().out


@pytest.fixture
def apart(repository, tmp_path, monkeypatch):
    """A repository of a test's own, so that no other finds its results."""
    other = repository.copied(tmp_path / "apart")
    monkeypatch.setenv("DVC_ROOT", str(other.root))
    monkeypatch.chdir(other.root)
    return other


FOUR_FOLDS = [list(TRAIN)[fold::4] for fold in range(4)]


def write_network(path, folds):
    """As much of a weights file as an audit reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held_out = [name for fold in folds for name in FOUR_FOLDS[fold]]
    torch.save({"fold": folds[0], "held_out": held_out}, path)


def write_labels(path, *rows):
    """A pseudo-label for each fold, teacher and student."""
    clips = toy_clips().drop_duplicates("recording_id").set_index("recording_id", drop=False)
    table = clips.loc[[FOUR_FOLDS[fold][0] for fold, _, _ in rows]].assign(
        label_type="pseudo", round=1, score=0.9, votes=1, target=1.0
    )
    table["teacher"], table["student"] = ([row[k] for row in rows] for k in (1, 2))
    write_clips(table.reset_index(drop=True), path)


def of_today(student, number, folds):
    """Where the weights of a network lie, without suffix."""
    return f"networks/r{number}/{len(folds)}/{'-'.join(map(str, folds))}"


def of_before(student, number, folds):
    """Where they lay when a round's students had a folder of networks."""
    return f"pseudo/r{student}-networks/r{number}-folds{'-'.join(map(str, folds))}"


def finish_nested(toy, made, teacher, path_of=of_today):
    """A result of two nested rounds, whose pair 0-1 was taught a recording of fold 2 by this teacher."""
    pairs, triples = (list(itertools.combinations(range(4), n)) for n in (2, 3))
    for student, number, networks in ((1, 0, pairs), (2, 0, triples), (2, 1, pairs)):
        for folds in networks:
            stem = path_of(student, number, folds)
            write_network(made / f"{stem}.pt", folds)
            if number:
                write_labels(made / f"{stem}.csv")
    write_labels(made / f"{path_of(2, 1, (0, 1))}.csv", (2, teacher, "0-1"))
    write_labels(made / "pseudo/r1.csv", (1, "r0/folds0-1", "0"))
    write_labels(made / "pseudo/r2.csv", (1, "r1/folds0-1", "0"))
    for number, fold in itertools.product((0, 1), range(4)):
        write_network(made / f"models/r{number}/fold{fold}.pt", [fold])
    folds = pd.DataFrame({"recording_id": list(TRAIN), "fold": np.arange(len(TRAIN)) % 4})
    write_folds(folds, made / "data/folds.csv")
    patterns = ("pseudo/*.csv", "models/*/*", "data/*", "networks/*/*/*")
    files = [path for pattern in patterns for path in made.glob(pattern)]
    outs = {str(path.relative_to(made)): toy.cache(path.read_bytes()) for path in files}
    outs |= {
        str(folder.relative_to(made)): toy.cache_folder(folder) for folder in made.glob("pseudo/*-networks")
    }
    params = PARAMS | {"infer": {"blend": []}, "split": {"folds": list(range(4))}}
    params |= {"pseudo": {"rounds": 2, "isolation": "nested"}}
    finish(toy, "nested", params, toy.outs | outs)
    (toy.root / "dvc.yaml").write_text("stages: {}\n")


@pytest.mark.parametrize("path_of", [of_today, of_before])
def test_nested_rounds_are_proved_by_the_tables_of_their_networks(apart, tmp_path, capsys, path_of):
    finish_nested(apart, tmp_path / "made", "r0/folds0-1-2", path_of)
    dispatch(["audit", "nested"])
    sentence = "isolated: no teacher had seen its recording, or what its student is validated on (1 of 1)"
    told = capsys.readouterr().out
    assert f"round 1: {sentence}" in told
    assert f"round 2: {sentence}; for 1 labels, no network in the makers' line had seen the recording" in told


@pytest.mark.parametrize("path_of", [of_today, of_before])
def test_what_a_nested_teacher_was_taught_is_audited_by_its_own_table(apart, tmp_path, capsys, path_of):
    finish_nested(apart, tmp_path / "made", "r0/folds1-2-3", path_of)
    words = (
        r"round 2: .* by r1/folds0-1, and teachers of r1/folds0-1 had trained on fold 0, which the student"
    )
    with pytest.raises(UserError, match=words):
        dispatch(["audit", "nested"])
    assert "NOT nested: recording 001 (fold 1) was labelled by r1/folds0-1" in capsys.readouterr().out


def test_pseudo_labels_as_truth_are_measured_beside_confirmed_labels():
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
