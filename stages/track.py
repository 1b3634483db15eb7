"""Record the result in MLflow."""

import argparse
import json
import sys
from pathlib import Path

from callboard.core.console import run_guarded, summarize
from callboard.core.files import written_whole
from callboard.experiments.captions import captioned
from callboard.results.git import files_in
from callboard.results.leaderboard import ledger_of, with_reported
from callboard.results.mlflow.connection import TrackingError
from callboard.results.mlflow.track import origin_of_this_process, record
from callboard.results.result import read_result


def main(argv: list[str] | None = None) -> None:
    """Create or update the run of the workspace's result; if the server is down, only warn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("track", type=Path)
    args = parser.parse_args(argv)

    result = read_result(files_in(Path.cwd()), str(Path.cwd()))
    result = with_reported(result, ledger_of(Path.cwd()))
    origin = origin_of_this_process()
    try:
        outcome = record(result, *captioned(result, origin))
    except TrackingError as error:
        outcome = "not in MLflow yet"
        print(f"warning: {error}; `callboard sync` records the result once it answers", file=sys.stderr)
    with written_whole(args.track) as unfinished:
        unfinished.write_text(json.dumps({"key": result.key}) + "\n", encoding="utf-8")

    numbers = [f"{key} {value:.4f}" for key, value in (result.cv | result.lb).items()]
    summarize("track", *[n for n in numbers if n.startswith(("cv.lwlrap ", "lb."))], outcome)


if __name__ == "__main__":
    run_guarded(main)
