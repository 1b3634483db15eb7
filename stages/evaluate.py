"""Out-of-fold scores to CV, its interval, and each species' average precision."""

import argparse
import math
from pathlib import Path

import pandas as pd

from callboard.annotations import read_species
from callboard.clips import read_clips
from callboard.errors import UserError
from callboard.evaluation import (
    OutOfFold,
    blend_out_of_fold,
    cross_validate,
    pool_out_of_fold,
    write_metrics,
)
from callboard.folds import audit_folds, read_folds
from callboard.outputs import written_whole
from callboard.params.base import Params, Seed, load_params
from callboard.params.scoring import EvaluateParams, InferParams
from callboard.scores import load_scores
from callboard.submission import score_table, write_score_table
from callboard.terminal import Stopwatch, run, summarize


class StageParams(Params):
    """What `evaluate` reads of params.yaml."""

    seed: Seed
    infer: InferParams
    evaluate: EvaluateParams


def main(argv: list[str] | None = None) -> None:
    """Read window scores and annotations, write recording scores, metrics and the species plot."""
    args = _parse(argv)
    params = load_params(StageParams)

    stopwatch = Stopwatch()
    clips, folds = read_clips(args.clips), read_folds(args.folds)
    audit_folds(folds, clips)
    oof = _out_of_fold(args, folds, params.infer)
    table = score_table(oof.recording_ids, oof.species, oof.scores)
    table.insert(1, "fold", oof.fold)
    write_score_table(table, args.oof)

    cross_validation = cross_validate(oof, clips)
    cv = cross_validation.summary(params.evaluate.n_bootstrap, params.seed)
    write_metrics(cv, "cv", args.metrics)
    with written_whole(args.plot) as unfinished:
        cross_validation.species_table().to_csv(unfinished, index=False)
    interval = "" if math.isnan(cv["lwlrap_low"]) else f" ({cv['lwlrap_low']:.2f}-{cv['lwlrap_high']:.2f})"
    summarize(
        "evaluate",
        f"CV LWLRAP {cv['lwlrap']:.4f}{interval}",
        *([f"blend of {', '.join(blend)}"] if (blend := params.infer.blend) else []),
        f"folds {cv['fold_mean']:.2f} ± {cv['fold_sd']:.2f}",
        f"{cv['n_recordings']} recordings",
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _out_of_fold(args: argparse.Namespace, folds: pd.DataFrame, params: InferParams) -> OutOfFold:
    species = read_species(args.species)
    if params.blend:
        return blend_out_of_fold(params.blend, folds, species)
    window_scores = load_scores(args.scores)
    if window_scores.species != species:
        raise UserError(
            f"{args.scores}: scores are of species {window_scores.species}, {args.species} lists {species}"
        )
    return pool_out_of_fold(window_scores, folds, params)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("scores", "clips", "folds", "species", "oof", "metrics", "plot"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
