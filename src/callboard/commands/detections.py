"""`callboard detections`: the predictions of a folder as detections, for other programs."""

import argparse
from typing import Any

from callboard.commands.arguments import absolute_path, add_command, whole_number

FORMATS = ("csv", "parquet", "raven", "raven-sequence", "audacity", "presence", "occupancy")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    detections = add_command(
        commands,
        "detections",
        help="write predictions above a threshold as CSV, Parquet, for Raven or Audacity",
        details="Windows in which a species reaches the threshold are merged into one detection where they "
        "overlap or touch; its score is the highest of theirs. `presence` instead compares the scores of "
        "whole recordings with the threshold.",
        examples={
            "callboard detections june --threshold 0.5 --to raven --output selections": "a table each",
            "callboard detections june --threshold species.csv --to csv --output list": "one threshold "
            "per species",
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
        help="lowest score of a detection, from 0 to 1; or a CSV with the columns species and threshold, "
        "which leaves out species without a row or with an empty threshold; or a file of `callboard export` "
        "with thresholds",
    )
    detections.add_argument(
        "--to",
        dest="format",
        choices=FORMATS,
        required=True,
        help="csv and parquet: one table of detections; raven and audacity: a table for each recording; "
        "raven-sequence: one for all recordings, opened together; presence: a CSV of every recording and "
        "species, with its score and whether it reaches the threshold; occupancy: detection histories of "
        "sites, and effort",
    )
    detections.add_argument(
        "--sites",
        type=sites,
        default="",
        metavar="PATTERN|FILE",
        help="for occupancy, where sites and dates are from: a pattern of names of recordings, without "
        "suffix, in which * stands for anything, or a CSV with the columns recording, site, date; default: "
        "SITE_YYYYMMDD_HHMMSS or SITE/YYYYMMDD_HHMMSS",
    )
    detections.add_argument(
        "--days",
        type=whole_number(1),
        metavar="N",
        help="for occupancy, length of an occasion; default: 1",
    )
    detections.add_argument(
        "--output",
        type=absolute_path,
        required=True,
        metavar="FOLDER",
        help="folder to write, which must be empty or not exist",
    )
    detections.set_defaults(command=write_folder, runs_anywhere=True)


def threshold(text: str) -> str:
    """Parse a number or a path, which becomes absolute, since commands run at the root of the workspace."""
    try:
        float(text)
    except ValueError:
        return str(absolute_path(text))
    return text


def sites(text: str) -> str:
    """Parse a pattern, or the path of a CSV, which becomes absolute as in `threshold`."""
    return str(absolute_path(text)) if text.endswith(".csv") else text


def write_folder(args: argparse.Namespace) -> None:
    """Write the files and print how many."""
    from callboard.core.console import counted
    from callboard.core.errors import UserError
    from callboard.scoring.detections import StoredPredictions, read_thresholds, write_detections
    from callboard.scoring.occupancy import write_occupancy

    predictions = StoredPredictions.open(args.folder)
    thresholds = read_thresholds(args.threshold, predictions.species, predictions.reference)
    if args.format == "occupancy":
        n_files, n_rows = write_occupancy(predictions, thresholds, args.sites, args.days or 1, args.output)
    elif args.sites or args.days:
        raise UserError("--sites and --days: need --to occupancy")
    else:
        n_files, n_rows = write_detections(predictions, thresholds, args.format, args.output)
    what = counted(n_rows, "row" if args.format in ("presence", "occupancy") else "detection")
    files = f"{counted(n_files, 'file')} written to {args.output}"
    left_out = [name for name in predictions.species if name not in thresholds]
    without = f"; left out, without a threshold: {', '.join(left_out)}" if left_out else ""
    print(f"detections: {what} of {len(thresholds)} species in {files}{without}")
