"""List the content of the folder of recordings, so that DVC sees what has changed there."""

import argparse
from pathlib import Path

from callboard.core.console import Stopwatch, counted, run_guarded, summarize
from callboard.data.recording_listing import write_listing
from callboard.params.base import Params, load_params
from callboard.params.data import DataParams


class StageParams(Params):
    """The section that `recordings` reads."""

    data: DataParams


def main(argv: list[str] | None = None) -> None:
    """Write the list; what is unchanged since an earlier run is not read again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listing", type=Path)
    args = parser.parse_args(argv)
    params = load_params(StageParams)
    stopwatch = Stopwatch()

    n_files = write_listing(params.data, args.listing)
    what = f"{counted(n_files, 'file')} of {params.data.root}" if n_files else "soundscapes only"
    summarize("recordings", what, f"{stopwatch.elapsed_s:.1f} s")


if __name__ == "__main__":
    run_guarded(main)
