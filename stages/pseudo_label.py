"""Annotations that a teacher adds to recordings that it has not trained on, or to test recordings."""

import argparse
from pathlib import Path

import pandas as pd

from callboard.clips import read_clips
from callboard.device import pick_device
from callboard.folds import audit_folds, read_folds
from callboard.mel_cache import MelCache
from callboard.params.base import load_params
from callboard.params.scoring import PseudoParams
from callboard.predict import ScoreParams, load_fold_models
from callboard.pseudo_labels import SOURCES, Teacher, as_clips, find_pseudo_labels, write_pseudo_labels
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
    models = load_fold_models(args.models, folds["fold"].unique().tolist(), device)
    teacher = Teacher(args.models.name, models, args.mel, params, device)
    window_scores, cache = SOURCES[params.pseudo.source](teacher, clips, folds)
    n_frames = dict(zip(cache.recording_ids, cache.n_frames.tolist(), strict=True))
    found = find_pseudo_labels(window_scores, clips, n_frames, params.pseudo, teacher.name)
    table = as_clips(found, clips, args.round)
    audit_folds(folds, pd.concat([clips, table]), MelCache.open(args.mel / "test").recording_ids)
    write_pseudo_labels(table, args.pseudo)
    per_species = ", ".join(f"{name} {count}" for name, count in table["species_id"].value_counts().items())
    n_scored = len(window_scores.recording_ids)
    summarize(
        "pseudo_label",
        f"round {args.round}",
        f"{len(table)} pseudo-labels in {table['recording_id'].nunique()} of {n_scored} recordings",
        f"per species: {per_species or 'none'}",
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
