"""`callboard detections`: the predictions of a folder as detections, for other programs."""

import argparse
from typing import Any

from callboard.commands.arguments import absolute_path, add_command

DETECTED = ("csv", "parquet", "raven", "audacity", "presence")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    detections = add_command(
        commands,
        "detections",
        help="write predictions above a threshold as CSV, Parquet, for Raven or Audacity",
        details="Windows of a species that reach the threshold and overlap or touch are one detection, with "
        "the largest of their scores. `presence` is about recordings as wholes, by their own scores.",
        examples={
            "callboard detections june --threshold 0.5 --to raven --output tables": "for each recording",
            "callboard detections june --threshold thresholds.csv --to csv --output list": "by species",
        },
    )
    detections.add_argument(
        "folder", type=absolute_path, metavar="FOLDER", help="folder that `callboard predict` wrote"
    )
    detections.add_argument(
        "--threshold",
        type=threshold,
        required=True,
        metavar="P|FILE",
        help="score from which a species is detected; or a CSV with the columns species and threshold, "
        "where species with an empty threshold, or without a row, are left out",
    )
    detections.add_argument(
        "--to",
        dest="format",
        choices=DETECTED,
        required=True,
        help="csv and parquet: one table; raven and audacity: a table for each recording; presence: a CSV of "
        "every recording and species",
    )
    detections.add_argument(
        "--output",
        type=absolute_path,
        required=True,
        metavar="FOLDER",
        help="the folder to write, new or empty",
    )
    detections.set_defaults(command=write_folder)


def threshold(text: str) -> str:
    """Parse a number or a path, which becomes absolute, since commands run at the root of the workspace."""
    try:
        float(text)
    except ValueError:
        return str(absolute_path(text))
    return text


def write_folder(args: argparse.Namespace) -> None:
    """Write the files, and print how many."""
    from callboard.core.console import counted
    from callboard.scoring.detections import PredictionsOf, read_thresholds, write_detections

    predictions = PredictionsOf.open(args.folder)
    thresholds = read_thresholds(args.threshold, predictions)
    n_files, n_rows = write_detections(predictions, thresholds, args.format, args.output)
    what = counted(n_rows, "row" if args.format == "presence" else "detection")
    files = f"{counted(n_files, 'file')} written to {args.output}"
    left_out = [name for name in predictions.species if name not in thresholds]
    without = f"; left out, without a threshold: {', '.join(left_out)}" if left_out else ""
    print(f"detections: {what} of {len(thresholds)} species in {files}{without}")
