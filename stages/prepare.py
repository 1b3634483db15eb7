"""Make the soundscapes, or check the folder of recordings and tables."""

import argparse
from pathlib import Path

from callboard.core.console import Stopwatch, run_guarded, summarize
from callboard.data.groups import metadata_of, write_metadata
from callboard.data.sources import prepare_source
from callboard.params.base import Params, load_params
from callboard.params.data import DataParams
from callboard.params.features import AudioParams


class PrepareParams(Params):
    """The sections that `prepare` reads."""

    data: DataParams
    audio: AudioParams


def main(argv: list[str] | None = None) -> None:
    """Write the folder of recordings, species and annotations that all later stages use.

    The user's table of recordings is not in that folder, which identifies the data: results before and after
    a change of the table remain comparable.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder to write")
    parser.add_argument(
        "metadata", type=Path, help="the user's table of recordings to write, without rows if none"
    )
    args = parser.parse_args(argv)
    params = load_params(PrepareParams)
    stopwatch = Stopwatch()

    metadata = metadata_of(params.data)
    tables = prepare_source(params.data, params.audio, args.source)
    known_ids = {*tables.recordings["recording_id"], *tables.skipped["recording_id"]}
    write_metadata(metadata, known_ids, args.metadata)
    summarize("prepare", params.data.source, *tables.facts(), f"{stopwatch.elapsed_s:.1f} s")


if __name__ == "__main__":
    run_guarded(main)
