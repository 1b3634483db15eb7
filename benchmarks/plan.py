"""Measure how long it takes to list and divide an archive of recordings before the first one is scored.

    PYTHONPATH=src python benchmarks/plan.py --recordings 1000000

Makes that many empty files in a temporary folder, 1,000 in each subfolder, then lists and divides them as
`callboard predict` does.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from callboard.core.console import peak_memory_mb
from callboard.data.archive import list_archive, plan_shards

PER_FOLDER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=1_000_000, help="default %(default)s")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(args.recordings):
            site = folder / f"site{number // PER_FOLDER:04d}"
            if number % PER_FOLDER == 0:
                site.mkdir()
            (site / f"recording_{number:08d}.wav").touch()
        start = time.monotonic()
        files = list_archive([folder])
        listed = time.monotonic()
        shards = list(plan_shards(files))
        planned = time.monotonic()
        print(
            f"{len(files)} recordings listed in {listed - start:.1f} s, divided into {len(shards)} shards in "
            f"{planned - listed:.1f} s, peak memory {peak_memory_mb():.0f} MB"
        )


if __name__ == "__main__":
    main()
