"""Write a submission from the test scores, and one without each active step of predict and infer."""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from callboard.core.console import Stopwatch, run_guarded, summarize
from callboard.core.files import replaced_folder
from callboard.data.annotations import read_species, read_table
from callboard.data.clips import read_clips
from callboard.data.folds import read_folds
from callboard.data.score_tables import read_score_table, write_score_table
from callboard.params.base import Params, load_params
from callboard.params.scoring import InferParams
from callboard.scoring.postprocessing import read_steps, without_each, write_steps
from callboard.scoring.prevalence import write_prevalence
from callboard.scoring.scored_sets import SubmissionScores, TrainingScores


class StageParams(Params):
    """The section that `infer` reads."""

    infer: InferParams


def main(argv: list[str] | None = None) -> None:
    """Read window scores of both sets and the sample submission, write submissions and prevalences."""
    args = _parse(argv)
    params = load_params(StageParams).infer

    stopwatch = Stopwatch()
    sample = read_score_table(args.sample)
    wanted = sample[~sample["recording_id"].isin(read_table(args.skipped, ["recording_id"])["recording_id"])]
    training = TrainingScores(
        args.oof, read_folds(args.folds), read_clips(args.clips), read_species(args.species)
    )
    test = SubmissionScores(args.scores, wanted, training)
    submission, prevalence = test.submission(params)
    write_score_table(submission, args.submission)
    write_prevalence(prevalence, args.prevalence)
    scored_without = [] if params.blend else read_steps(args.scores_without)
    lacking = {step: _scored_without(test, args.scores_without / step) for step in scored_without}
    _write_without(test, lacking, params, args.without)
    if len(submission) < len(sample):
        print(f"infer: {len(sample) - len(submission)} recordings that crop skipped are left out")
    if submission.empty:
        print("infer: the sample submission lists no recordings, so the submission is a header without rows")
    summarize(
        "infer",
        f"{len(submission)} recordings × {len(submission.columns) - 1} species",
        test.how(params),
        *_rescaling(prevalence),
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _scored_without(test: SubmissionScores, folder: Path) -> SubmissionScores:
    """Return `test` with the window scores without a step of `predict`, which are in `folder`."""
    training = replace(test.training, path=folder / test.training.path.name)
    return replace(test, path=folder / test.path.name, training=training)


def _write_without(
    test: SubmissionScores, lacking: dict[str, SubmissionScores], params: InferParams, folder: Path
) -> None:
    """Write a submission without each active step, and the list of these steps, which can be empty.

    Args:
        test: Scores with all steps.
        lacking: Scores without each step of `predict`, by step.
        params: The `infer` section.
        folder: The folder to write.
    """
    submissions = {step: scores.submission(params)[0] for step, scores in lacking.items()}
    submissions |= {step: test.submission(without)[0] for step, without in without_each(params)}
    with replaced_folder(folder) as draft:
        for step, submission in submissions.items():
            write_score_table(submission, draft / f"{step}.csv")
        write_steps(list(submissions), draft)


def _rescaling(prevalence: pd.DataFrame | None) -> list[str]:
    if prevalence is None:
        return []
    return [f"odds times {prevalence['factor'].min():.2f} … {prevalence['factor'].max():.2f}"]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("scores", "oof", "clips", "folds", "species", "sample", "submission", "prevalence"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--scores-without", type=Path, required=True, help="scores without a step of predict")
    parser.add_argument("--skipped", type=Path, required=True, help="recordings that crop left out")
    parser.add_argument("--without", type=Path, required=True, help="folder for submissions without a step")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_guarded(main)
