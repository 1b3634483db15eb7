import shlex

import pytest
import torch

from callboard.core.errors import UserError
from callboard.data.clips import read_clips, write_clips
from callboard.data.folds import read_folds, write_folds
from callboard.pseudo import labels
from stages import pseudo_label
from tests.toy_models import (
    SPECIES,
    TEST,
    TRAIN,
    random_cache,
    save_fold,
    tiny_network,
    toy_clips,
    write_workspace,
)

ARGV = shlex.split(
    "--round 1 --models models/r0 --mel data/mel --clips data/clips.csv --folds data/folds.csv "
    "--pseudo pseudo/r1.csv"
)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    write_workspace(tmp_path)
    for fold in range(3):
        save_fold(tmp_path / "models/r0", fold, network_that_hears(None))
    return tmp_path


def network_that_hears(species):
    """Sure of one species everywhere, and of nothing else."""
    network = tiny_network(0)
    with torch.no_grad():
        network.head.classify.weight.zero_()
        network.head.classify.bias.fill_(-9.0)
        if species is not None:
            network.head.classify.bias[SPECIES.index(species)] = 9.0
    return network


def test_a_poisoned_fold_model_labels_only_the_recordings_it_did_not_train_on(workspace, capsys):
    save_fold(workspace / "models/r0", 1, network_that_hears("07"))
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    folds = read_folds(workspace / "data/folds.csv").set_index("recording_id")["fold"]
    assert set(table["species_id"]) == {"07"}
    assert set(folds.loc[table["recording_id"]]) == {1}
    assert set(table["recording_id"]) == set(folds.index[folds == 1])
    assert set(table["teacher"]) == {"r0/fold1"}
    assert capsys.readouterr().out.startswith(f"pseudo_label: round 1, {len(table)} pseudo-labels in 4 of 12")


def test_no_pseudo_label_overlaps_an_annotation_of_its_species(workspace):
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    pseudo_label.main(ARGV)
    pseudo, annotated = read_clips(workspace / "pseudo/r1.csv"), toy_clips()
    assert set(pseudo["recording_id"]) <= set(TRAIN)
    pairs = pseudo.merge(annotated, on=["recording_id", "species_id"])
    assert {"tp", "fp"} == set(pairs["label_type_y"])
    is_apart = (pairs["stop_frame_x"] <= pairs["start_frame_y"]) | (
        pairs["stop_frame_y"] <= pairs["start_frame_x"]
    )
    assert is_apart.all()
    assert (pseudo["stop_frame"] - pseudo["start_frame"] == 32).all()
    assert pseudo["clip_id"].min() == annotated["clip_id"].max() + 1


def set_source(workspace, source, min_votes=1):
    text = (workspace / "params.yaml").read_text().replace("source: train", f"source: {source}")
    if "isolation: none" in source:
        text = text.replace("  isolation: recording\n", "")
    (workspace / "params.yaml").write_text(text.replace("min_votes: 1", f"min_votes: {min_votes}"))


def test_source_train_fp_labels_only_recordings_without_a_confirmed_annotation(workspace, capsys):
    clips = toy_clips()
    clips.loc[clips["recording_id"].isin(["000", "004"]), "label_type"] = "fp"
    write_clips(clips, workspace / "data/clips.csv")
    set_source(workspace, "train_fp")
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    assert set(table["recording_id"]) == {"000", "004"}
    assert set(table["teacher"]) == {"r0/fold0", "r0/fold1"}
    assert "of 2 recordings" in capsys.readouterr().out


def test_source_train_fp_without_such_a_recording_is_refused(workspace):
    set_source(workspace, "train_fp")
    with pytest.raises(UserError, match=r"pseudo\.source train_fp: every annotated recording has a TP"):
        pseudo_label.main(ARGV)


@pytest.mark.parametrize(("min_votes", "expected"), [(2, {"07"}), (3, set())])
def test_source_test_labels_test_recordings_by_the_votes_of_all_folds(workspace, min_votes, expected):
    set_source(workspace, "test", min_votes)
    for fold in range(2):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    assert set(table["species_id"]) == expected
    assert set(table["recording_id"]) == (set(TEST) if expected else set())
    assert set(table["teacher"]) <= {"r0"}
    assert set(table["votes"]) <= {2}


@pytest.mark.parametrize(("source", "sets"), [("external", "x"), ("train_external", "0x")])
def test_external_recordings_are_labelled_by_the_votes_of_all_folds(workspace, source, sets, capsys):
    random_cache(workspace / "data/mel/external", {"x0": 100, "x1": 120}, seed=2)
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    set_source(workspace, source, min_votes=3)
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    assert {name[0] for name in table["recording_id"]} == set(sets)
    external = table[table["recording_id"].str.startswith("x")]
    assert set(external["recording_id"]) == {"x0", "x1"}
    assert set(external["teacher"]) == {"r0"}
    assert set(external["votes"]) == {3}


def test_source_external_without_such_recordings_is_refused(workspace):
    set_source(workspace, "external")
    with pytest.raises(UserError, match=r"pseudo\.source external: there are no external recordings"):
        pseudo_label.main(ARGV)
    assert not (workspace / "pseudo/r1.csv").exists()


def test_source_train_test_labels_both_sets_and_numbers_them_through(workspace):
    set_source(workspace, "train_test", min_votes=3)
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    assert set(table["recording_id"]) == set(TRAIN) | set(TEST)
    of_test = table["recording_id"].isin(list(TEST))
    assert set(table.loc[of_test, "teacher"]) == {"r0"}
    assert set(table.loc[~of_test, "teacher"]) == {"r0/fold0", "r0/fold1", "r0/fold2"}
    assert table["clip_id"].is_unique


def test_without_isolation_all_models_vote_on_training_recordings_and_the_stage_says_so(workspace, capsys):
    set_source(workspace, "train\n  isolation: none", min_votes=2)
    for fold in range(2):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    assert set(table["teacher"]) == {"r0"}
    assert set(table["votes"]) == {2}
    assert set(table["recording_id"]) == set(TRAIN)
    n = len(table)
    assert f"NOT isolated: {n} of {n} labels had a vote of a model trained" in capsys.readouterr().out


def test_the_stage_stops_on_a_label_of_a_model_that_had_seen_the_recording(workspace, monkeypatch):
    label = labels.label_recordings
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    monkeypatch.setattr(labels, "label_recordings", lambda *given: label(*given).assign(teacher="r0/fold1"))
    message = r"leak: pseudo-labels of round 1: recording 000 \(fold 0\) was labelled by r0/fold1, which had"
    with pytest.raises(UserError, match=message):
        pseudo_label.main(ARGV)
    assert not (workspace / "pseudo/r1.csv").exists()


def test_absences_are_written_beside_positives(workspace, capsys):
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(
        text.replace("negative_threshold: null", "negative_threshold: 0.01")
    )
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, network_that_hears("07"))
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    absent = table[table["target"] == 0]
    assert set(table.loc[table["target"] == 1, "species_id"]) == {"07"}
    assert set(absent["species_id"]) == {"3", "x1"}
    judged = toy_clips().merge(absent, on=["recording_id", "species_id"])
    is_apart = (judged["stop_frame_x"] <= judged["start_frame_y"]) | (
        judged["stop_frame_y"] <= judged["start_frame_x"]
    )
    assert is_apart.all()
    printed = capsys.readouterr().out
    assert f"{len(absent)} of them spans of absence, per species: 07 " in printed
    assert f"isolated: no teacher had seen its recording ({len(table)} of {len(table)})" in printed


@pytest.mark.parametrize("source", ["test", "test\n  isolation: none"])
def test_a_test_recording_with_the_name_of_a_training_one_is_not_pseudo_labelled(workspace, source):
    set_source(workspace, source)
    random_cache(workspace / "data/mel/test", {"000": 120}, seed=1)
    with pytest.raises(ValueError, match="need out-of-fold scores: 000 is among the test recordings too"):
        pseudo_label.main(ARGV)


def test_teachers_take_the_weights_that_predict_takes(workspace):
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("weights: last", "weights: ema"))
    with pytest.raises(UserError, match=r"fold0\.pt: no ema weights"):
        pseudo_label.main(ARGV)


def test_silent_teachers_add_nothing(workspace, capsys):
    pseudo_label.main(ARGV)
    assert read_clips(workspace / "pseudo/r1.csv").empty
    assert "0 pseudo-labels in 0 of 12 recordings, per species: none" in capsys.readouterr().out


def test_of_a_site_only_networks_vote_that_have_seen_none_of_its_recordings(workspace):
    """Isolation is by fold, and a fold has whole sites."""
    for fold, species in enumerate(SPECIES):
        save_fold(workspace / "models/r0", fold, network_that_hears(species))
    folds = read_folds(workspace / "data/folds.csv")
    place = folds.groupby("fold").cumcount()
    folds["group"] = [f"site{fold}-{number % 2}" for fold, number in zip(folds["fold"], place, strict=True)]
    write_folds(folds, workspace / "data/folds.csv")
    pseudo_label.main(ARGV)
    table = read_clips(workspace / "pseudo/r1.csv")
    assert set(table["recording_id"]) == set(TRAIN)
    site_of = folds.set_index("recording_id")["group"]
    for teacher, of_teacher in table.groupby("teacher"):
        seen = set(folds.loc[folds["fold"] != int(teacher.removeprefix("r0/fold")), "group"])
        assert not seen & set(site_of[of_teacher["recording_id"]])
    folds.loc[0, "fold"] = (folds.loc[0, "fold"] + 1) % 3
    write_folds(folds, workspace / "data/folds.csv")
    with pytest.raises(UserError, match=r"leak: groups in several folds: site\d-0 in "):
        pseudo_label.main(ARGV)


def test_weights_of_another_fold_are_refused(workspace):
    save_fold(workspace / "models/r0", 0, network_that_hears("07"), name="fold2.pt")
    with pytest.raises(UserError, match=r"fold2\.pt: holds the weights of fold 0, not of fold 2"):
        pseudo_label.main(ARGV)


def test_weights_of_other_folds_than_the_table_s_are_refused(workspace):
    folds = read_folds(workspace / "data/folds.csv")
    write_folds(folds.assign(fold=folds["fold"] % 2), workspace / "data/folds.csv")
    with pytest.raises(UserError, match=r"has trained on \d+ recordings that the folds table now holds out"):
        pseudo_label.main(ARGV)


def test_the_stage_gives_equal_bytes_twice(workspace):
    save_fold(workspace / "models/r0", 2, network_that_hears("x1"))
    pseudo_label.main(ARGV)
    first = (workspace / "pseudo/r1.csv").read_bytes()
    pseudo_label.main(ARGV)
    assert (workspace / "pseudo/r1.csv").read_bytes() == first
