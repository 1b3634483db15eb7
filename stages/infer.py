"""Test scores to a submission."""

import argparse
from pathlib import Path

import pandas as pd

from callboard.annotations import read_table
from callboard.blend import blend_tables
from callboard.params.base import Params, load_params
from callboard.params.scoring import InferParams
from callboard.results import SUBMISSION
from callboard.scores import load_scores, recording_scores
from callboard.submission import fill_submission, read_score_table, score_table, write_score_table
from callboard.terminal import Stopwatch, run, summarize


class StageParams(Params):
    """What `infer` reads of params.yaml."""

    infer: InferParams


def main(argv: list[str] | None = None) -> None:
    """Read window scores and the sample submission, write the submission."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--skipped", type=Path, required=True, help="recordings that crop left out")
    parser.add_argument("--submission", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params(StageParams).infer

    stopwatch = Stopwatch()
    sample = read_score_table(args.sample)
    wanted = sample[~sample["recording_id"].isin(read_table(args.skipped, ["recording_id"])["recording_id"])]
    table, how = _blended(params, wanted) if params.blend else _own(params, args.scores)
    submission = fill_submission(wanted, table)
    write_score_table(submission, args.submission)
    if len(submission) < len(sample):
        print(f"infer: {len(sample) - len(submission)} recordings that crop skipped are left out")
    if submission.empty:
        print("infer: the sample submission lists no recordings, so the submission is a header without rows")
    summarize(
        "infer",
        f"{len(submission)} recordings × {len(submission.columns) - 1} species",
        how,
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _own(params: InferParams, path: Path) -> tuple[pd.DataFrame, str]:
    """Pooled scores of this experiment's networks, and in words how they were pooled."""
    window_scores = load_scores(path)
    table = score_table(
        window_scores.recording_ids, window_scores.species, recording_scores(window_scores, params)
    )
    over = f"{params.window_agg} over windows, {params.fold_agg} over {window_scores.n_models} models"
    return table, f"{params.head} head, {over}"


def _blended(params: InferParams, wanted: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Mean of finished experiments' submissions, and what it is made of."""
    columns = [name for name in wanted.columns if name != "recording_id"]
    table = blend_tables(params.blend, SUBMISSION, wanted["recording_id"].tolist(), columns)
    return table, f"blend of {', '.join(params.blend)}"


if __name__ == "__main__":
    run(main)
