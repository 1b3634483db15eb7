"""`callboard predict`: the scores of a result's networks for folders of recordings."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callboard.commands.arguments import (
    RESULT_NAME,
    absolute_path,
    add_command,
    add_place_options,
    fraction,
    place_options,
)
from callboard.commands.detections import threshold

if TYPE_CHECKING:
    from callboard.scoring.detections import Thresholds
    from callboard.scoring.detector import Detector
    from callboard.scoring.predictions import Tally

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
            "callboard predict exp0058 site1 site2 --output june --threshold 0.5": "two folders of "
            "recordings; writes june, with june/detections.csv",
            "callboard predict detector.zip site1": "with a file of `callboard export`, in any folder",
        },
    )
    predict.add_argument(
        "name",
        metavar="NAME",
        type=result_or_file,
        help=f"{RESULT_NAME}; or a file of `callboard export`, which ends with .zip",
    )
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
        help="folder to write, or to continue; default: predictions/NAME in the workspace, or here",
    )
    predict.add_argument(
        "--floor",
        type=fraction(with_ends=True),
        default=DEFAULT_FLOOR,
        metavar="P",
        help="lowest score of a window that is kept; scores of recordings are all kept; default %(default)s",
    )
    predict.add_argument(
        "--threshold",
        type=threshold,
        metavar="P|FILE",
        help="also write detections.csv into the folder, of all its predictions, as `callboard detections` "
        "does; a number, or a table such as that of `callboard thresholds`; default: what a file of "
        "`callboard export` has",
    )
    predict.add_argument(
        "--engine",
        metavar="ENGINE",
        help="what runs the networks of a file of `callboard export`: onnxruntime (default) or openvino",
    )
    add_place_options(
        predict,
        jobs="shards scored",
        n_jobs="all that a Ray cluster has room for, 16 of Slurm; this machine scores one at a time, on all "
        "its processors",
        n_cpus="1",
    )
    predict.set_defaults(command=predict_folders, runs_anywhere=True)


def result_or_file(text: str) -> str:
    """Parse the name of a result, or the path of a detector's file, which becomes absolute."""
    from callboard.scoring.detector_file import is_detector_file

    return str(absolute_path(text)) if is_detector_file(text) else text


def open_detector(name: str, engine: str | None) -> tuple[str, "Detector"]:
    """Return a name for the predictions of a result or file, and its detector.

    Raises:
        UserError: There is no such result or file, or it cannot be loaded.
    """
    from callboard.core.errors import UserError
    from callboard.core.workspace import enclosing_workspace
    from callboard.scoring.detector_file import is_detector_file

    if is_detector_file(name):
        from callboard.scoring.detector import Detector
        from callboard.scoring.onnx_networks import DEFAULT_ENGINE

        return Path(name).stem, Detector.load(name, engine or DEFAULT_ENGINE)
    if engine:
        raise UserError(
            f"--engine {engine}: needs a file of `callboard export`; torch runs the networks of {name}"
        )
    enclosing_workspace()
    import torch

    from callboard.results.rows import result_named
    from callboard.scoring.result_detector import load_detector

    result = result_named(name)
    return result.name, load_detector(result, torch.device("cpu"))


def predict_folders(args: argparse.Namespace) -> None:
    """Score what is missing, shard by shard."""
    from callboard.core.console import Stopwatch, duration, progress, say, warn
    from callboard.core.errors import UserError
    from callboard.data.archive import list_archive, plan_shards
    from callboard.experiments.jobs.options import LOCAL, JobOptions
    from callboard.scoring.detections import read_thresholds, refuse_below_floor, refuse_judged_table
    from callboard.scoring.predictions import Predictions, Tally, only_writer
    from callboard.scoring.set_scores import RECORDING_TABLE
    from callboard.scoring.shard_engines import made_shards

    watch = Stopwatch()
    options = JobOptions(**place_options(args))
    if options.place == LOCAL and options.n_jobs:
        raise UserError("--jobs: needs --on ray or --on slurm; CALLBOARD_WORKERS sets the threads used here")
    files = list_archive(args.folders)
    name, detector = open_detector(args.name, args.engine)
    if options.place == LOCAL:
        detector = detector.here()
    folder = args.output or Path("predictions", name).absolute()
    thresholds, table = detector.thresholds, folder / "detections.csv"
    if args.threshold:
        thresholds = read_thresholds(args.threshold, detector.species, detector.reference)
    if thresholds:
        refuse_below_floor(thresholds, args.floor, folder)
        refuse_judged_table(table)
    made = Tally()

    def note() -> str:
        speed = made.sound_s / watch.elapsed_s
        return f"{duration(made.sound_s)} of sound, {speed:.0f} times as fast as it plays"

    with only_writer(folder):
        predictions = Predictions(folder, detector, args.floor)
        shards = list(plan_shards(predictions.missing(files)))
        with made_shards(options, predictions, shards) as totals:
            for one in progress(totals, total=len(shards), label="predict", unit="shards", note=note):
                made.add(one)
        finished = Tally.of(predictions.totals())
    if finished.n_skipped == finished.n_recordings:
        raise UserError(f"no recording could be scored; the table in {folder / 'skipped'} gives the reasons")
    _summarize(folder, made, finished, len(files), watch.elapsed_s)
    say(str(folder), sys.stdout)
    if thresholds:
        _write_detections(folder, thresholds, table)
    elif table.exists() and table.stat().st_mtime_ns < (folder / RECORDING_TABLE).stat().st_mtime_ns:
        warn(f"{table} is older than these predictions; the same command with --threshold writes it again")


def _summarize(folder: Path, made: "Tally", finished: "Tally", n_files: int, elapsed_s: float) -> None:
    from callboard.core.console import counted, duration, summarize
    from callboard.scoring.set_scores import SKIPPED_TABLE

    summarize(
        "predict",
        f"{made.n_recordings - made.n_skipped} of {counted(n_files, 'recording')} scored now",
        *(
            [f"{finished.n_skipped} skipped in all (why: {folder / SKIPPED_TABLE})"]
            if finished.n_skipped
            else []
        ),
        f"{counted(finished.n_windows, 'score')} of windows kept in all",
        f"{duration(made.sound_s)} of sound in {duration(elapsed_s)}",
    )


def _write_detections(folder: Path, thresholds: "Thresholds", table: Path) -> None:
    from callboard.core.console import counted, say
    from callboard.scoring.detections import StoredPredictions, write_detection_table

    n_detections = write_detection_table(StoredPredictions.open(folder), thresholds, table)
    say(f"{table}: {counted(n_detections, 'detection')} of {len(thresholds)} species", sys.stdout)
