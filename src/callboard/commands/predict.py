"""`callboard predict`: the scores of a result's networks for folders of recordings."""

import argparse
import sys
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME, absolute_path, add_command

DEFAULT_FLOOR = 0.1


def add(commands: Any) -> None:
    """Add the command to the parser."""
    predict = add_command(
        commands,
        "predict",
        help="score folders of recordings with the networks of a result",
        details="Writes scores as Parquet files, each for up to a few hundred recordings. The same command "
        "continues after the last finished file if it was interrupted, and later scores recordings that are "
        "new or have changed. `callboard detections` writes the scores for other programs.",
        examples={
            "callboard predict exp0058 /data/2026": "writes predictions/exp0058",
            "callboard predict exp0058 site1 site2 --output june": "two folders of recordings; writes june",
        },
    )
    predict.add_argument("name", metavar="NAME", help=RESULT_NAME)
    predict.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        type=absolute_path,
        help="folder of recordings; subfolders are searched too",
    )
    predict.add_argument(
        "--output",
        type=absolute_path,
        metavar="FOLDER",
        help="folder to write, or to continue; default: predictions/NAME in the workspace",
    )
    predict.add_argument(
        "--floor",
        type=probability,
        default=DEFAULT_FLOOR,
        metavar="P",
        help="lowest score of a window that is kept; scores of recordings are all kept; default %(default)s",
    )
    predict.set_defaults(command=predict_folders)


def probability(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return number


def predict_folders(args: argparse.Namespace) -> None:
    """Score what is missing, shard by shard."""
    from callboard.core.console import Stopwatch, counted, duration, progress, say, summarize
    from callboard.core.errors import UserError
    from callboard.data.archive import list_archive, plan_shards
    from callboard.model.device import pick_device, use_threads
    from callboard.results.rows import result_named
    from callboard.scoring.detector import load_detector
    from callboard.scoring.predictions import Predictions, ShardTotals, only_writer

    watch = Stopwatch()
    result = result_named(args.name)
    files = list_archive(args.folders)
    device = pick_device()
    use_threads(1)
    folder = args.output or Path("predictions", result.name).absolute()
    detector = load_detector(result, device)
    made: list[ShardTotals] = []

    def note() -> str:
        sound_s = sum(one.sound_s for one in made)
        return f"{duration(sound_s)} of sound, {sound_s / watch.elapsed_s:.0f} s of it a second"

    with only_writer(folder):
        predictions = Predictions(folder, detector, args.floor, device)
        shards = list(plan_shards(predictions.missing(files)))
        for shard in progress(shards, total=len(shards), label="predict", unit="shards", note=note):
            made.append(predictions.make(shard))
        finished = list(predictions.totals())
    n_skipped = sum(one.n_skipped for one in finished)
    if n_skipped == sum(len(one.files) for one in finished):
        raise UserError(f"no recording could be scored; the table in {folder / 'skipped'} gives the reasons")
    sound_s = sum(one.sound_s for one in made)
    summarize(
        "predict",
        f"{sum(len(one.files) for one in made)} of {counted(len(files), 'recording')} scored now",
        *([f"{n_skipped} skipped in all"] if n_skipped else []),
        f"{counted(sum(one.n_windows for one in finished), 'score')} of windows from {args.floor:g} in all",
        f"{duration(sound_s)} of sound in {duration(watch.elapsed_s)}",
    )
    say(str(folder), sys.stdout)
