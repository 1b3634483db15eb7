"""What isolation of pseudo-labels is worth: CV beside the test set's score, for three ways to make them.

    dvc exp apply birdnet && python benchmarks/isolation.py --seeds 3

none: all folds' networks vote on a training recording. recording: only the network that has not seen it
labels it; that network has learned from the fold that its student is validated on. nested: what the student
of fold k is told about fold j comes from a network that has seen neither k nor j, so nothing of fold k
reaches it; ten more networks for five folds. One round each, on recordings of the training set.
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from callboard.annotations import read_species
from callboard.checkpoint import LoadedModel
from callboard.classes import CLASSES, ClassAxis
from callboard.clips import read_clips
from callboard.device import pick_device
from callboard.evaluation import cross_validate, pool_out_of_fold, relabeled_lwlrap, score_submission
from callboard.fold_data import select_fold
from callboard.folds import read_folds
from callboard.mel_cache import MelCache, TrainingCache
from callboard.params.base import load_params
from callboard.params.scoring import InferParams, PseudoParams
from callboard.predict import ScoreParams, score_out_of_fold, score_recordings
from callboard.pseudo_labels import Teacher, as_clips, label_recordings, score_training
from callboard.scores import recording_scores
from callboard.submission import read_score_table, score_table
from callboard.training import Execution, FitParams, fit

DEVICE = pick_device()


class Parts(FitParams, ScoreParams):
    """What of params.yaml this reads."""

    infer: InferParams
    pseudo: PseudoParams


class World(NamedTuple):
    """A workspace's data."""

    clips: pd.DataFrame
    folds: pd.DataFrame
    axis: ClassAxis
    train: MelCache
    test: MelCache
    truth: pd.DataFrame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    params, world = load_params(Parts), read_world()
    print("seed  isolation   labels  CV      relabelled  LB public  LB private")
    for seed in range(args.seeds):
        compare(params.model_copy(update={"seed": seed}), world)


def read_world() -> World:
    clips, species = read_clips(Path("data/clips.csv")), read_species(Path("data/source/species.csv"))
    caches = (MelCache.open(Path("data/mel") / name) for name in ("train", "test"))
    truth = read_score_table(Path("data/source/hidden/test_labels.csv"))
    return World(
        clips, read_folds(Path("data/folds.csv")), CLASSES["species"](clips, species), *caches, truth
    )


def compare(params: Parts, world: World) -> None:
    folds = sorted(world.folds["fold"].unique().tolist())
    none = {fold: world.clips.head(0) for fold in folds}
    teachers = train_all(params, world, none)
    report(params, world, "no round", teachers, none)
    nested = {fold: [] for fold in folds}
    for pair in combinations(folds, 2):
        merged = world.folds.assign(fold=world.folds["fold"].replace(pair[1], pair[0]))
        network = train_one(params, world, merged, pair[0], world.clips)
        for student, labelled in (pair, pair[::-1]):
            held_out = world.folds[world.folds["fold"] == labelled].assign(fold=pair[0])
            nested[student].append(label(params, world, [network], held_out, "recording"))
    tables = {name: label(params, world, teachers, world.folds, name) for name in ("none", "recording")}
    ways = {name: dict.fromkeys(folds, table) for name, table in tables.items()}
    ways["nested"] = {fold: pd.concat(parts, ignore_index=True) for fold, parts in nested.items()}
    for name, pseudo in ways.items():
        report(params, world, name, train_all(params, world, pseudo), pseudo)


def train_all(params: Parts, world: World, pseudo: dict[int, pd.DataFrame]) -> list[LoadedModel]:
    return [
        train_one(params, world, world.folds, fold, pd.concat([world.clips, labels], ignore_index=True))
        for fold, labels in pseudo.items()
    ]


def train_one(
    params: Parts, world: World, folds: pd.DataFrame, fold: int, clips: pd.DataFrame
) -> LoadedModel:
    sections = FitParams(**{name: getattr(params, name) for name in FitParams.model_fields})
    data = select_fold(TrainingCache(world.train), clips, folds, fold, world.axis, sections.train.labels)
    fitted = fit(sections, fold, data, Execution(DEVICE))
    held_out = frozenset(folds.loc[folds["fold"] == fold, "recording_id"])
    return LoadedModel(fitted.model.eval(), world.axis.species, fold, sections.clip, held_out)


def label(
    params: Parts, world: World, networks: list[LoadedModel], folds: pd.DataFrame, isolation: str
) -> pd.DataFrame:
    teacher = Teacher("r0", networks, Path("data/mel"), scoring(params), DEVICE, isolation)
    heard = score_training(teacher, world.clips, folds)
    pseudo = params.pseudo.model_copy(update={"isolation": isolation})
    return as_clips(label_recordings(heard, world.clips, pseudo, "r0"), world.clips, 1)


def scoring(params: Parts) -> ScoreParams:
    return ScoreParams(**{name: getattr(params, name) for name in ScoreParams.model_fields})


def report(
    params: Parts, world: World, name: str, networks: list[LoadedModel], pseudo: dict[int, pd.DataFrame]
) -> None:
    windows = score_out_of_fold(networks, world.train, world.folds, scoring(params), DEVICE)
    oof = pool_out_of_fold(windows, world.folds, params.infer)
    cv = cross_validate(oof, world.clips).lwlrap()
    table = score_table(oof.recording_ids, oof.species, oof.scores).assign(fold=oof.fold)
    said = pd.concat(pseudo.values()).drop_duplicates(["recording_id", "species_id"])
    relabelled = relabeled_lwlrap(table, world.clips, said)
    test = score_recordings(networks, world.test, world.test.recording_ids, scoring(params), DEVICE)
    submission = score_table(test.recording_ids, test.species, recording_scores(test, params.infer))
    lb = score_submission(submission, world.truth)
    n_labels = round(np.mean([len(labels) for labels in pseudo.values()]))
    print(
        f"{params.seed:4}  {name:10}  {n_labels:6}  {cv:.4f}  {relabelled:10.4f}"
        f"  {lb['public']:9.4f}  {lb['private']:10.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
