"""Compute CV, its interval, each species' average precision and each step's gain from out-of-fold scores."""

import argparse
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from callboard.core.console import Stopwatch, run_guarded, summarize
from callboard.core.files import written_whole
from callboard.data.annotations import read_species
from callboard.data.clips import read_clips
from callboard.data.folds import GROUP, audit_folds, group_of, read_folds
from callboard.data.score_tables import score_table, write_score_table
from callboard.params.base import DEFAULT_SEED, Params, Seed, load_params
from callboard.params.scoring import EvaluateParams, InferParams
from callboard.scoring.evaluation import cross_validate, write_metrics
from callboard.scoring.postprocessing import gains, read_steps
from callboard.scoring.scored_sets import TrainingScores


class StageParams(Params):
    """The sections that `evaluate` reads."""

    seed: Seed = DEFAULT_SEED
    infer: InferParams
    evaluate: EvaluateParams


def main(argv: list[str] | None = None) -> None:
    """Read window scores and annotations, write recording scores, metrics and the species plot."""
    args = _parse(argv)
    params = load_params(StageParams)

    stopwatch = Stopwatch()
    clips, folds = read_clips(args.clips), read_folds(args.folds)
    audit_folds(folds, clips)
    training = TrainingScores(args.scores, folds, clips, read_species(args.species))
    oof = training.out_of_fold(params.infer)
    table = score_table(oof.recording_ids, oof.species, oof.scores)
    table.insert(1, "fold", oof.fold)
    if (group := group_of(folds)) is not None:
        table.insert(2, GROUP, group)
    write_score_table(table, args.oof)

    cross_validation = cross_validate(oof, clips, group)
    cv = cross_validation.summary(params.evaluate.n_bootstrap, params.seed)

    def cv_of(scores: TrainingScores, infer: InferParams) -> float:
        return cross_validate(scores.out_of_fold(infer), clips).lwlrap()

    gained = gains(params.infer, partial(cv_of, training))
    for step, scores in without_steps(args, params.infer, training).items():
        gained[f"gain_{step}"] = cross_validation.lwlrap() - cv_of(scores, params.infer)
    write_metrics(cv | gained, "cv", args.metrics)
    with written_whole(args.plot) as unfinished:
        cross_validation.species_table().to_csv(unfinished, index=False)
    interval = "" if math.isnan(cv["lwlrap_low"]) else f" ({cv['lwlrap_low']:.2f}-{cv['lwlrap_high']:.2f})"
    summarize(
        "evaluate",
        f"CV LWLRAP {cv['lwlrap']:.4f}{interval}",
        *training.how(params.infer),
        f"folds {cv['fold_mean']:.2f} ± {cv['fold_sd']:.2f}",
        f"{cv['n_recordings']} recordings" + (f" in {cv['n_groups']} groups" if "n_groups" in cv else ""),
        *(f"{name} {gain:+.4f}" for name, gain in gained.items()),
        f"{stopwatch.elapsed_s:.1f} s",
    )


def without_steps(
    args: argparse.Namespace, params: InferParams, training: TrainingScores
) -> dict[str, TrainingScores]:
    """Return the scores without each step of `predict`; none for a blend, whose parts have their own."""
    steps = [] if params.blend else read_steps(args.scores_without)
    return {step: replace(training, path=args.scores_without / step / args.scores.name) for step in steps}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("scores", "scores-without", "clips", "folds", "species", "oof", "metrics", "plot"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_guarded(main)
