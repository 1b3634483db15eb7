"""Write pseudo-labels by teachers that have not trained on a recording or, without isolation, by any."""

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from callboard.core.console import Stopwatch, counted, run_guarded, summarize
from callboard.data.clips import read_clips, students_of
from callboard.data.folds import audit_folds, read_folds
from callboard.data.presence import positives
from callboard.data.recording_folders import TEST_SETS
from callboard.features.frame_cache import MelCache
from callboard.model.device import pick_device, use_threads
from callboard.params.base import load_params
from callboard.pseudo.held_out import folds_named
from callboard.pseudo.labels import Teacher, as_clips, label_sets, write_pseudo_labels
from callboard.pseudo.nested import LabelParams, Nested
from callboard.pseudo.provenance import RoundLineage, refuse_violations, trace_rounds
from callboard.scoring.predict import load_fold_models


class StageParams(LabelParams):
    """The sections that `pseudo_label` reads."""


class Labelled(NamedTuple):
    """Pseudo-labels, and the teachers that made them."""

    table: pd.DataFrame
    lineage: RoundLineage
    n_scored: int
    """Number of recordings that teachers scored."""


def main(argv: list[str] | None = None) -> None:
    """Write pseudo-labels for the students of `--round`."""
    stopwatch = Stopwatch()
    args = _parse(argv)
    params = load_params(StageParams)
    use_threads(1)
    clips, folds = read_clips(args.clips), read_folds(args.folds)
    audit_folds(folds, clips)
    caches = [MelCache.open(args.mel / name) for name in TEST_SETS]
    unfolded_ids = [recording_id for cache in caches for recording_id in cache.recording_ids]
    label = by_nested_networks if params.pseudo.isolation == "nested" else by_round
    table, lineage, n_scored = label(args, params, clips, folds)
    audit_folds(folds, pd.concat([clips, table]), unfolded_ids)
    refuse_violations(lineage)
    write_pseudo_labels(table, args.pseudo)
    present = positives(table)
    per_species = ", ".join(f"{name} {count}" for name, count in present["species_id"].value_counts().items())
    n_negatives = len(table) - len(present)
    summarize(
        "pseudo_label",
        f"round {args.round}",
        *[f"for the network without {args.held_out}"] * bool(args.held_out),
        f"{len(table)} pseudo-labels in {table['recording_id'].nunique()} of {n_scored} recordings",
        *_added_up(table),
        *[f"{n_negatives} of them spans of absence"] * bool(n_negatives),
        f"per species: {per_species or 'none'}",
        lineage.sentence,
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _added_up(table: pd.DataFrame) -> list[str]:
    """Return a note that the count is a sum over students, if each student has its own labels."""
    n_students = students_of(table).replace("", pd.NA).nunique()
    return [f"added up over {counted(n_students, 'student')}"] * bool(n_students)


def by_round(
    args: argparse.Namespace, params: StageParams, clips: pd.DataFrame, folds: pd.DataFrame
) -> Labelled:
    """Make pseudo-labels with the models of the previous round."""
    device, numbers = pick_device(), folds["fold"].unique().tolist()
    models = load_fold_models(args.models, numbers, device, params.predict.weights)
    teacher = Teacher(args.models.name, models, args.mel, params, device, params.pseudo.isolation)
    found, scored = label_sets(teacher, clips, folds, params.pseudo)
    table = as_clips(found, clips, args.round)
    held_out = {f"{teacher.name}/fold{loaded.fold}": loaded.held_out for loaded in models}
    (lineage,) = trace_rounds({args.round: table}, folds, held_out, params.pseudo.isolation)
    return Labelled(table, lineage, len(scored))


def by_nested_networks(
    args: argparse.Namespace, params: StageParams, clips: pd.DataFrame, folds: pd.DataFrame
) -> Labelled:
    """Make pseudo-labels with nested networks: for the students of all folds, or for one nested network."""
    nested = Nested(params, args.mel, clips, folds, args.models, pick_device())
    student = folds_named(args.held_out) if args.held_out else None
    table = nested.labels_for(args.round, student) if student else nested.pseudo_labels(args.round)
    files = nested.files(args.round, len(student) if student else 1)
    (lineage,) = trace_rounds({args.round: table}, folds, files.held_out, "nested", files.tables)
    return Labelled(table, lineage, len(nested.scored))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", type=int, required=True, help="round of the student")
    parser.add_argument(
        "--models", type=Path, required=True, help="folder of the previous round, or of all nested networks"
    )
    parser.add_argument("--mel", type=Path, required=True, help="folder with train/ and test/")
    for name in ("clips", "folds", "pseudo"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--held-out", help="held-out folds, for example 0-1, of the only student")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_guarded(main)
