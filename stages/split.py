"""Assign every annotated recording to a cross-validation fold."""

import argparse
from pathlib import Path

from callboard.core.console import Stopwatch, run_guarded, summarize
from callboard.data.clips import read_clips
from callboard.data.folds import assign_folds, audit_folds, write_folds
from callboard.params.base import Params, load_params
from callboard.params.data import SplitParams


class StageParams(Params):
    """The section that `split` reads."""

    split: SplitParams


def main(argv: list[str] | None = None) -> None:
    """Read clips, write folds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("folds", type=Path)
    args = parser.parse_args(argv)
    params = load_params(StageParams).split

    stopwatch = Stopwatch()
    clips = read_clips(args.clips)
    folds = assign_folds(clips, params)
    audit_folds(folds, clips)
    write_folds(folds, args.folds)
    sizes = folds["fold"].value_counts().sort_index()
    summarize(
        "split",
        f"{len(folds)} recordings in {len(sizes)} folds of {sizes.min()}-{sizes.max()}",
        "no recording in two folds",
        f"{stopwatch.elapsed_s:.1f} s",
    )


if __name__ == "__main__":
    run_guarded(main)
