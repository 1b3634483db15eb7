"""Annotations that a teacher adds to recordings it has not trained on."""

import argparse
from pathlib import Path

import pandas as pd

from callboard.clips import read_clips
from callboard.device import pick_device
from callboard.folds import audit_folds, read_folds
from callboard.mel_cache import MelCache
from callboard.params.base import Params, load_params
from callboard.params.scoring import PredictParams, PseudoParams
from callboard.predict import load_fold_models, score_out_of_fold
from callboard.pseudo_labels import as_clips, find_pseudo_labels, write_pseudo_labels
from callboard.terminal import Stopwatch, run, summarize


class StageParams(Params):
    """What `pseudo_label` reads of params.yaml."""

    predict: PredictParams
    pseudo: PseudoParams


def main(argv: list[str] | None = None) -> None:
    """Read the teacher's models, write pseudo-labels for the student of `--round`."""
    args = _parse(argv)
    params = load_params(StageParams)

    stopwatch = Stopwatch()
    device = pick_device()
    clips, folds, cache = read_clips(args.clips), read_folds(args.folds), MelCache.open(args.mel)
    audit_folds(folds, clips)
    models = load_fold_models(args.models, folds["fold"].unique().tolist(), device)
    window_scores = score_out_of_fold(models, cache, folds, params.predict, device)
    n_frames = dict(zip(cache.recording_ids, cache.n_frames.tolist(), strict=True))
    found = find_pseudo_labels(window_scores, clips, n_frames, params.pseudo)
    table = as_clips(found, clips, args.models.name, args.round)
    audit_folds(folds, pd.concat([clips, table]))
    write_pseudo_labels(table, args.pseudo)
    per_species = ", ".join(f"{name} {count}" for name, count in table["species_id"].value_counts().items())
    summarize(
        "pseudo_label",
        f"round {args.round}",
        f"{len(table)} pseudo-labels in {table['recording_id'].nunique()} of {len(folds)} recordings",
        f"per species: {per_species or 'none'}",
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", type=int, required=True, help="round of the student")
    for name in ("models", "mel", "clips", "folds", "pseudo"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
