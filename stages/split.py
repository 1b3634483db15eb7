"""Assign every annotated recording to a cross-validation fold."""

import argparse
from pathlib import Path

from callboard.core.console import Stopwatch, counted, first_few, run_guarded, summarize
from callboard.data.clips import read_clips
from callboard.data.folds import assign_folds, audit_copies, audit_folds, write_folds
from callboard.data.groups import read_metadata
from callboard.data.recordings import read_digests
from callboard.params.base import Params, load_params
from callboard.params.data import SplitParams


class StageParams(Params):
    """The section that `split` reads."""

    split: SplitParams


def main(argv: list[str] | None = None) -> None:
    """Read clips, the digests of recordings and the user's table of them, write folds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("folds", type=Path)
    parser.add_argument("--recordings", type=Path, required=True, help="recordings.csv of prepare")
    parser.add_argument("--metadata", type=Path, required=True, help="the user's table of recordings")
    args = parser.parse_args(argv)
    params = load_params(StageParams).split

    stopwatch = Stopwatch()
    clips = read_clips(args.clips)
    digests = read_digests(args.recordings)
    folds = assign_folds(clips, params, digests, read_metadata(args.metadata))
    audit_folds(folds, clips)
    copies = audit_copies(folds, digests)
    write_folds(folds, args.folds)
    groups = "" if params.is_by_recording else f" in {folds['group'].nunique()} groups by {params.group}"
    sizes = folds["fold"].value_counts().sort_index()
    summarize(
        "split",
        f"{len(folds)} recordings{groups} in {len(sizes)} folds of {sizes.min()}-{sizes.max()}",
        f"no {'group' if groups else 'recording'} in two folds",
        *([f"{counted(len(copies), 'group')} of equal content, {first_few(copies)}"] if copies else []),
        f"{stopwatch.elapsed_s:.1f} s",
    )


if __name__ == "__main__":
    run_guarded(main)
