"""Score a submission, and compute each step's gain, if the source's truth is known."""

import argparse
from math import isnan
from pathlib import Path

import pandas as pd

from callboard.core.console import Stopwatch, run_guarded, summarize
from callboard.data.score_tables import read_score_table
from callboard.scoring.evaluation import score_submission, write_metrics
from callboard.scoring.postprocessing import read_steps


def main(argv: list[str] | None = None) -> None:
    """Read the submission and the hidden labels, write the leaderboard score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("submission", type=Path)
    parser.add_argument("hidden", type=Path, help="folder that holds test_labels.csv if the truth is known")
    parser.add_argument("metrics", type=Path)
    parser.add_argument("--without", type=Path, required=True, help="folder of submissions without a step")
    args = parser.parse_args(argv)

    stopwatch = Stopwatch()
    truth_path = args.hidden / "test_labels.csv"
    submission = read_score_table(args.submission)
    if not truth_path.exists():
        write_metrics({}, "lb", args.metrics)
        summarize(
            "score",
            "nothing to score",
            f"{truth_path} does not exist: the truth of the test set is not known",
        )
        return
    truth = read_score_table(truth_path)
    lb = score_submission(submission, truth)
    n_left_out = len(truth) - len(submission)
    gained = _gains(lb, args.without, truth)
    write_metrics(lb | gained, "lb", args.metrics)
    summarize(
        "score",
        *(f"LB LWLRAP {usage} {value:.4f}" for usage, value in lb.items() if not isnan(value)),
        f"{len(submission)} recordings" + (f" ({n_left_out} without scores left out)" if n_left_out else ""),
        *(f"{name} {gain:+.4f}" for name, gain in gained.items() if not isnan(gain)),
        f"{stopwatch.elapsed_s:.1f} s",
    )


def _gains(lb: dict[str, float], without: Path, truth: pd.DataFrame) -> dict[str, float]:
    """Return `gain_<step>_<usage>`: the submission's score minus that of the submission without the step."""
    steps = read_steps(without)
    lb_without = {step: score_submission(read_score_table(without / f"{step}.csv"), truth) for step in steps}
    return {
        f"gain_{step}_{usage}": lb[usage] - value
        for step, values in lb_without.items()
        for usage, value in values.items()
    }


if __name__ == "__main__":
    run_guarded(main)
