"""What a teacher says of recordings that it has not trained on, or without isolation of any."""

import argparse
from pathlib import Path

import pandas as pd

from callboard.clips import read_clips
from callboard.device import pick_device
from callboard.folds import audit_folds, read_folds
from callboard.lineage import refuse_violations, trace_rounds
from callboard.mel_cache import MelCache
from callboard.params.base import load_params
from callboard.params.scoring import PseudoParams
from callboard.predict import ScoreParams, load_fold_models
from callboard.presence import positives
from callboard.pseudo_labels import SOURCES, Teacher, as_clips, label_recordings, write_pseudo_labels
from callboard.terminal import Stopwatch, run, summarize


class StageParams(ScoreParams):
    """What `pseudo_label` reads of params.yaml."""

    pseudo: PseudoParams


def main(argv: list[str] | None = None) -> None:
    """Read the teacher's models, write pseudo-labels for the student of `--round`."""
    args = _parse(argv)
    params = load_params(StageParams)

    stopwatch = Stopwatch()
    device = pick_device()
    clips, folds = read_clips(args.clips), read_folds(args.folds)
    audit_folds(folds, clips)
    names = folds["fold"].unique().tolist()
    models = load_fold_models(args.models, names, device, params.predict.weights)
    teacher = Teacher(args.models.name, models, args.mel, params, device, params.pseudo.isolation)
    heard = [score(teacher, clips, folds) for score in SOURCES[params.pseudo.source]]
    found = [label_recordings(one, clips, params.pseudo, teacher.name) for one in heard]
    table = as_clips(pd.concat(found, ignore_index=True), clips, args.round)
    audit_folds(folds, pd.concat([clips, table]), MelCache.open(args.mel / "test").recording_ids)
    held_out = {f"{teacher.name}/fold{loaded.fold}": loaded.held_out for loaded in models}
    (lineage,) = trace_rounds({args.round: table}, folds, held_out, params.pseudo.isolation)
    refuse_violations(lineage)
    write_pseudo_labels(table, args.pseudo)
    present = positives(table)
    per_species = ", ".join(f"{name} {count}" for name, count in present["species_id"].value_counts().items())
    n_scored = sum(len(one.scores.recording_ids) for one in heard)
    n_negatives = len(table) - len(present)
    summarize(
        "pseudo_label",
        f"round {args.round}",
        f"{len(table)} pseudo-labels in {table['recording_id'].nunique()} of {n_scored} recordings",
        *[f"{n_negatives} of them spans of absence"] * bool(n_negatives),
        f"per species: {per_species or 'none'}",
        lineage.sentence,
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", type=int, required=True, help="round of the student")
    parser.add_argument("--mel", type=Path, required=True, help="folder with train/ and test/")
    for name in ("models", "clips", "folds", "pseudo"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
