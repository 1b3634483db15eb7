"""Nested networks: by law (nothing of a held-out fold reaches its student), by hand, and by refusal."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from callboard.core.errors import UserError
from callboard.data.clips import labels_for, read_clips, write_clips
from callboard.data.folds import read_folds
from callboard.features.frame_cache import (
    EncodedRecording,
    MelCache,
    TrainingCache,
    open_training_cache,
    write_cache,
)
from callboard.pseudo import networks
from callboard.pseudo.held_out import (
    fold_names,
    folds_named,
    labels_file,
    network_name,
    networks_behind,
    weights_file,
)
from callboard.pseudo.labels import write_pseudo_labels
from callboard.pseudo.nested import LabelParams, Nested
from callboard.pseudo.networks import Inputs, NetworkTraining
from callboard.pseudo.provenance import RoundLineage, refuse_violations, trace_rounds
from callboard.training.fit import FitParams
from callboard.training.progress import read_progress
from tests.toy_training import CPU, N_MELS, PARAMS, SPECIES, changed, write_fold_inputs

PREDICT = {"overlap_frames": 8, "batch_size": 16, "weights": "last", "tta": 0}
PSEUDO = {
    "rounds": 1,
    "source": "train",
    "isolation": "nested",
    "head": "attention_max",
    "threshold": 0.4,
    "negative_threshold": None,
    "min_votes": 1,
    "labels": "hard",
    "temperature": 1.0,
    "power": 1.0,
    "n_frames": 32,
}
TEST_IDS, EXTERNAL_IDS = ["t0", "t1"], ["x0"]
ONE, TWO = (f"{name}@0123456789abcdef" for name in ("one", "two"))


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fold_inputs(tmp_path)
    Path("both").mkdir()
    Path("mel").rename("both/train")
    rng = np.random.default_rng(5)
    for subset, names in (("test", TEST_IDS), ("external", EXTERNAL_IDS)):
        noise = [
            EncodedRecording(name, rng.integers(40, 90, (90, N_MELS), np.uint8), -80.0, 0.0) for name in names
        ]
        write_cache(Path("both") / subset, noise, N_MELS)
    return tmp_path


class World:
    """Networks trained on the workspace as dvc.yaml has them, whose epochs are counted."""

    def __init__(
        self,
        n_folds: int = 3,
        folder: str = "networks",
        changes: dict[str, object] | None = None,
        **pseudo: object,
    ) -> None:
        self.folds = read_folds(Path("folds.csv"))
        self.folds["fold"] = np.arange(len(self.folds)) % n_folds
        self.folder = Path(folder)
        self.n_epochs = 0
        self.tree = changed(PARAMS | {"predict": PREDICT, "pseudo": PSEUDO | pseudo}, changes or {})
        sections = {name: self.tree[name] for name in LabelParams.model_fields}
        params = LabelParams.model_validate(sections)
        clips = read_clips(Path("clips.csv"))
        self.nested = Nested(params, Path("both"), clips, self.folds, self.folder, CPU)

    def pseudo_labels(self, number: int) -> pd.DataFrame:
        """What students of a round learn from, behind all networks that they need."""
        for each, held_out in networks_behind(sorted(set(self.folds["fold"].tolist())), number):
            if each:
                labels = self.nested.labels_for(each, held_out)
                write_pseudo_labels(labels, self.folder / labels_file(each, held_out))
            self.train(each, held_out)
        return self.nested.pseudo_labels(number)

    def train(self, number: int, held_out: frozenset[int]) -> None:
        params = FitParams.model_validate({name: self.tree[name] for name in FitParams.model_fields})
        inputs = Inputs(
            Path("clips.csv"),
            [self.folder / labels_file(number, held_out)] * bool(number),
            self.folds,
            SPECIES,
            self.open_cache,
            [Path("clips.csv")],
        )
        name = network_name(number, held_out)
        training = NetworkTraining(name, held_out, params, inputs, CPU, 1, self.follow)
        path = self.folder / weights_file(number, held_out)
        training.write(path, path.with_suffix(".curve.csv"))

    def open_cache(self, clips: pd.DataFrame) -> TrainingCache:
        return open_training_cache(Path("both/train"), [Path("both/test"), Path("both/external")], clips)

    def follow(self, network: str):
        def count(epochs: range):
            for epoch in epochs:
                self.n_epochs += 1
                yield epoch

        return count

    @property
    def networks(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*.pt"))

    def lineage(self, table: pd.DataFrame, number: int = 1) -> RoundLineage:
        files = self.nested.files(number)
        return trace_rounds({number: table}, self.folds, files.held_out, "nested", files.tables)[-1]


def spoil(folds: pd.DataFrame, fold: int) -> None:
    """Other frames and other labels for all recordings of a fold."""
    spoiled = set(folds.loc[folds["fold"] == fold, "recording_id"])
    clips = read_clips(Path("clips.csv"))
    is_here = clips["recording_id"].isin(spoiled)
    clips.loc[is_here, "species_id"] = [
        SPECIES[SPECIES.index(name) - 1] for name in clips["species_id"][is_here]
    ]
    write_clips(clips, Path("clips.csv"))
    cache = MelCache.open(Path("both/train"))
    recordings = [
        EncodedRecording(name, 255 - cache.read(name) if name in spoiled else cache.read(name), -80.0, 0.0)
        for name in cache.recording_ids
    ]
    shutil.rmtree("both/train")
    write_cache(Path("both/train"), recordings, N_MELS)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def untouched(before: World, after: World) -> dict[str, bool]:
    """Whether each network is the same in both."""
    return {
        name: all(
            torch.equal(a, b)
            for a, b in zip(
                *(weights(world.folder / name).values() for world in (before, after)), strict=True
            )
        )
        for name in before.networks
    }


def find_these(monkeypatch, recipes: dict[str, dict[str, object]]) -> None:
    """Let references mean results that were trained by PARAMS with these changes."""
    monkeypatch.setattr(networks, "find_recipe", lambda reference: changed(PARAMS, recipes[reference]))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["train", "train_test", "train_external"])
def test_nothing_of_a_fold_reaches_the_labels_that_its_student_learns_from(source):
    before = World(4, "before", source=source)
    table = before.pseudo_labels(2)
    spoil(before.folds, 0)
    after = World(4, "after", source=source)
    again = after.pseudo_labels(2)
    own, others = (
        [labels_for(one, student).drop(columns="clip_id").reset_index(drop=True) for one in (table, again)]
        for student in ("0", "1")
    )
    assert len(own[0]) > 10
    pd.testing.assert_frame_equal(*own)
    assert not others[0].equals(others[1]), "spoiling a fold must matter to those who may see it"
    for name, is_same in untouched(before, after).items():
        assert is_same == (0 in folds_named(Path(name).stem))


@pytest.mark.slow
def test_nothing_of_a_fold_reaches_networks_by_what_they_start_from(monkeypatch):
    """Fold 2, which comes first in the name of no pair."""
    find_these(monkeypatch, {ONE: {"train.init_from": TWO}, TWO: {}})
    changes = {"train.init_from": ONE, "optim.lr": 1e-4}
    before = World(folder="before", changes=changes)
    table = before.pseudo_labels(1)
    spoil(before.folds, 2)
    after = World(folder="after", changes=changes)
    again = after.pseudo_labels(1)
    assert untouched(before, after) == {"r0/2/0-1.pt": False, "r0/2/0-2.pt": True, "r0/2/1-2.pt": True}
    own = [labels_for(one, "2").drop(columns="clip_id").reset_index(drop=True) for one in (table, again)]
    assert len(own[0]) > 10
    pd.testing.assert_frame_equal(*own)


@pytest.mark.slow
def test_a_chain_of_starts_that_move_nothing_ends_where_it_began(monkeypatch):
    still = {"optim.lr": 1e-9, "train.epochs": 1}
    find_these(monkeypatch, {ONE: still | {"train.init_from": TWO}, TWO: {}})
    begun = World(folder="begun", changes=still | {"train.init_from": ONE})
    begun.pseudo_labels(1)
    plain = World(folder="plain")
    plain.pseudo_labels(1)
    for network in plain.networks:
        moved = weights(begun.folder / network)
        for name, expected in weights(plain.folder / network).items():
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(moved[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train.select": "best"}, "train.select best, which"),
        ({"train.select": "best_loss", "sched.name": "plateau"}, "select best_loss and sched.name plateau"),
        ({"sched.name": "plateau"}, "sched.name plateau, which"),
    ],
)
@pytest.mark.parametrize("reference", [ONE, TWO])
def test_a_start_that_followed_validation_is_refused(monkeypatch, reference, changes, words):
    """Its recipe would be carried out with the student's fold among what it is validated on."""
    recipes = {ONE: {"train.init_from": TWO}, TWO: {}}
    recipes[reference] |= changes
    find_these(monkeypatch, recipes)
    world = World(changes={"train.init_from": ONE})
    with pytest.raises(
        UserError, match=rf"train\.init_from: {reference} has .*{words}.* depends? on validation"
    ):
        world.pseudo_labels(1)
    assert world.n_epochs == 0


def test_labels_are_by_the_weights_that_predict():
    average = {"train.ema_decay": 0.8}
    last = World(changes=average).pseudo_labels(1)
    averaged = World(changes=average | {"predict.weights": "ema"}).nested.pseudo_labels(1)
    assert not averaged["score"].equals(last["score"])


def test_one_round_takes_a_network_for_each_pair_of_folds():
    world = World()
    table = world.pseudo_labels(1)
    assert world.networks == [f"r0/2/{pair}.pt" for pair in ("0-1", "0-2", "1-2")]
    assert world.n_epochs == 3 * PARAMS["train"]["epochs"]
    assert set(table["student"]) == {"0", "1", "2"}
    fold_of = world.folds.set_index("recording_id")["fold"].astype(str)
    for student, recording_id, teacher in zip(
        table["student"], table["recording_id"], table["teacher"], strict=True
    ):
        assert teacher == "r0/folds" + "-".join(sorted([student, fold_of[recording_id]]))
    assert table["clip_id"].is_unique


@pytest.mark.parametrize(
    ("folds", "number", "size", "expected"),
    [
        ([0, 1, 2], 1, 1, ["r0 0-1", "r0 0-2", "r0 1-2"]),
        ([2, 1, 0, 3], 1, 2, ["r0 0-1-2", "r0 0-1-3", "r0 0-2-3", "r0 1-2-3"]),
        (
            [0, 1, 2, 3],
            2,
            1,
            [f"r0 {triple}" for triple in ("0-1-2", "0-1-3", "0-2-3", "1-2-3")]
            + [f"r1 {pair}" for pair in ("0-1", "0-2", "0-3", "1-2", "1-3", "2-3")],
        ),
    ],
)
def test_networks_behind_labels_by_hand(folds, number, size, expected):
    """One more fold is held out for each round back."""
    found = networks_behind(folds, number, size)
    assert [f"r{each} {fold_names(held_out)}" for each, held_out in found] == expected


@pytest.mark.parametrize(("rounds", "n_networks"), [(1, 10), (2, 20), (3, 25)])
def test_each_label_comes_from_a_network_behind_it(rounds, n_networks):
    """Walked from the students: each learns from one network for each fold that it is trained on."""
    needed, students = set(), {(rounds, frozenset([fold])) for fold in range(5)}
    while students:
        students = {
            (number - 1, held_out | {fold})
            for number, held_out in students
            if number
            for fold in range(5)
            if fold not in held_out
        }
        needed |= students
    assert set(networks_behind(range(5), rounds)) == needed
    assert len(needed) == n_networks


@pytest.mark.slow
def test_the_lineage_of_two_rounds_is_proved_from_the_files_and_not_without_the_networks_tables():
    world = World(4, source="train_test")
    table = world.pseudo_labels(2)
    lineage = world.lineage(table, 2)
    refuse_violations(lineage)
    assert lineage.n_unseen == lineage.n_training > 0
    assert lineage.n_unfolded > 0
    assert lineage.sentence.startswith(
        "isolated: no teacher had seen its recording, or what its student is validated on"
    )
    lineage = trace_rounds({2: table}, world.folds, world.nested.files(2).held_out, "nested")[-1]
    assert not lineage.is_traced
    with pytest.raises(UserError, match=r"and what r1/folds\d-\d was taught is unknown: files of earlier ro"):
        refuse_violations(lineage)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("student", "2", "had trained on fold 2, which the student is validated on"),
        ("student", "", "for all students, so it cannot be nested"),
        ("teacher", "r0/folds0-2", "was labelled by r0/folds0-2, which had trained on it"),
        ("teacher", "r0/folds1-3", "of which there are no weights"),
    ],
)
def test_a_label_that_breaks_the_promise_is_named(column, value, message):
    world = World()
    table = world.pseudo_labels(1)
    row = table.index[(table["student"] == "0") & (table["teacher"] == "r0/folds0-1")][0]
    table.loc[row, column] = value
    with pytest.raises(UserError, match=rf"leak: pseudo-labels of round 1: .*{message}"):
        refuse_violations(world.lineage(table))


@pytest.mark.slow
def test_a_teacher_that_was_taught_what_the_student_is_validated_on_is_named():
    """The pair 0-1 of round 1, taught by a triple that had seen fold 0."""
    world = World(4)
    table = world.pseudo_labels(2)
    path = world.folder / "r1/2/0-1.csv"
    inner = read_clips(path)
    write_clips(inner.assign(teacher="r0/folds1-2-3"), path)
    with pytest.raises(UserError, match=r"r1/folds0-1, (whose own teachers|and teachers of)"):
        refuse_violations(world.lineage(table, 2))


def test_votes_of_networks_whose_weights_are_lost_are_named():
    world = World(source="test")
    table = world.pseudo_labels(1)
    refuse_violations(world.lineage(table))
    held_out = world.nested.files(1).held_out
    del held_out["r0/folds0-1"]
    (lineage,) = trace_rounds({1: table}, world.folds, held_out, "nested")
    with pytest.raises(UserError, match=r"by r0/folds0-\*, of which there are weights of 1 of 2 networks"):
        refuse_violations(lineage)


def test_a_recipe_to_start_from_is_carried_out_once_for_all_that_start_from_it(monkeypatch):
    find_these(monkeypatch, {ONE: {}})
    epochs = PARAMS["train"]["epochs"]
    for world, n_trainings in ((World(), 2), (World(folder="slower"), 1), (World(folder="other"), 1)):
        world.tree = changed(world.tree, {"train.init_from": ONE, "optim.lr": 1e-4 * n_trainings})
        world.train(0, frozenset([0, 1]))
        assert world.n_epochs == n_trainings * epochs
    assert torch.equal(
        *(next(iter(weights(Path(name) / "r0/2/0-1.pt").values())) for name in ("slower", "other"))
    )


class KilledError(Exception):
    """A training was killed."""


class KilledWorld(World):
    """A world whose trainings are killed in their second epoch."""

    def follow(self, network: str):
        def watch(epochs: range):
            for epoch in super(KilledWorld, self).follow(network)(epochs):
                if self.n_epochs == 2:
                    raise KilledError
                yield epoch

        return watch


def test_a_killed_network_goes_on_where_it_stopped():
    pair = frozenset([0, 1])
    with pytest.raises(KilledError):
        KilledWorld().train(0, pair)
    assert list(Path(".cache/checkpoints").glob("*-folds0-1.pt"))
    again = World(folder="again")
    again.train(0, pair)
    assert again.n_epochs == 3 - 1
    assert not list(Path(".cache/checkpoints").glob("*-folds0-1.pt"))
    (shown,) = read_progress(Path(".cache/checkpoints")).values()
    assert shown.name == "r0/folds0-1"
    assert shown.is_finished
    anew = World(folder="anew")
    anew.train(0, pair)
    assert untouched(again, anew) == {"r0/2/0-1.pt": True}


def test_a_killed_student_begins_anew_where_its_pseudo_labels_are_others():
    pair = frozenset([0, 1])
    clips = read_clips(Path("clips.csv")).query("label_type == 'tp'")
    marks = {"label_type": "pseudo", "round": 1, "teacher": "r0/folds0-1-2", "student": "0-1"}
    for folder, n_labels in (("networks", 9), ("same", 9), ("fewer", 8)):
        labels = clips.assign(**marks, score=0.9, votes=1, target=1.0)[:n_labels]
        write_pseudo_labels(labels, Path(folder) / labels_file(1, pair))
    with pytest.raises(KilledError):
        KilledWorld().train(1, pair)
    others, same = World(folder="fewer"), World(folder="same")
    for world in (others, same):
        world.train(1, pair)
    assert (others.n_epochs, same.n_epochs) == (3, 3 - 1)


@pytest.mark.parametrize(("source", "ids"), [("test", TEST_IDS), ("external", EXTERNAL_IDS)])
def test_all_networks_that_teach_a_student_vote_on_recordings_in_no_fold(source, ids):
    table = World(source=source).pseudo_labels(1)
    assert set(table["recording_id"]) <= set(ids)
    assert set(table["teacher"]) == {f"r0/folds{student}-*" for student in "012"}
    assert table["votes"].between(1, 2).all()
