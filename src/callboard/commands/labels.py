"""`callboard labels`: labels of other programs as this project's tables, and back."""

import argparse
from typing import Any

from callboard.commands.arguments import absolute_path, add_command
from callboard.core.errors import UserError

IMPORTED = ("arbimon", "raven", "audacity", "birdnet", "hawkears", "csv")
EXPORTED = ("raven", "audacity", "csv")

IMPORT_DETAILS = (
    "Present labels become TP rows and absent ones FP rows; open ones are only counted. Verdicts are "
    "`validated` of Arbimon, the folders Positive and Negative of BirdNET's segments, or a column "
    "`verdict`. In other tables all labels are present, or open if they have scores: a confidence is not a "
    "verdict. Recordings are named by their file without suffix, or by the table's name if it has no column "
    "for them; those without a file in FOLDER/train are counted and left out, unless it has no recordings. "
    "Recordings of Arbimon are named by their number, unless FOLDER/train has the original files. Labels "
    "that end up to 5 s after their recording are cut off. Every row that is not written is counted, with "
    "the reason."
)


def add(commands: Any) -> None:
    """Add the command and its subcommands to the parser."""
    labels = add_command(
        commands,
        "labels",
        help="import labels of Arbimon, Raven, Audacity, BirdNET, HawkEars or CSV; export them",
        examples={
            "callboard labels import tables/*.txt --from raven --to recordings": "tables of Raven",
            "callboard labels export recordings --to raven --output tables": "a table for each recording",
            "callboard labels import --help": "verdicts, bands, complete reviews",
        },
    )
    own = labels.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_import(own)
    _add_export(own)


def _add_import(commands: Any) -> None:
    parser = add_command(
        commands,
        "import",
        help="write FOLDER/train_tp.csv and train_fp.csv from labels of other programs",
        details=IMPORT_DETAILS,
        examples={
            "callboard labels import pm-*.csv --to recordings": "jobs of Arbimon",
            "callboard labels import rec*.txt --column Call --complete --to recordings": "whole recordings",
            "callboard labels import segments/ --from birdnet --to recordings": "reviewed by BirdNET's users",
        },
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=absolute_path,
        metavar="FILE",
        help="tables, or a folder of BirdNET's segments",
    )
    parser.add_argument(
        "--from", dest="format", choices=IMPORTED, help="their format; default: recognised, file by file"
    )
    _add_folder(parser, "--to", "the folder to write; its species.csv, if it has one, limits the species")
    parser.add_argument(
        "--column", metavar="NAME", help="column that names the species; default: the usual one of the format"
    )
    parser.add_argument(
        "--verdict",
        choices=("present", "absent"),
        help="verdict of all labels of tables that have none; default: present, or open if they have scores",
    )
    parser.add_argument(
        "--band",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="frequencies of labels without a band (Audacity, BirdNET, HawkEars), Hz; default: 0 to half the "
        "sample rate of the recording",
    )
    parser.add_argument(
        "--complete",
        action="store_true",
        help="all recordings of the files were searched for all species: those not named in one, or only as "
        "absent, become FP rows over the whole recording; an empty table makes every species absent",
    )
    parser.add_argument(
        "--add", action="store_true", help="add to the tables that FOLDER has; default: refuse"
    )
    parser.set_defaults(command=import_)


def _add_export(commands: Any) -> None:
    parser = add_command(
        commands,
        "export",
        help="write the annotations of a folder for Raven, Audacity or as CSV",
        details="Rejected boxes have the verdict absent: in a column of Raven's tables and of the CSV, after "
        "the species in Audacity's. `callboard labels import` reads all three.",
        examples={
            "callboard labels export recordings --to raven --output tables": "a table for each recording",
            "callboard labels export data/source --to csv --output labels": "labels.csv of the prepared data",
        },
    )
    parser.add_argument(
        "folder", type=absolute_path, metavar="FOLDER", help="folder with train_tp.csv and train_fp.csv"
    )
    parser.add_argument("--to", dest="format", choices=EXPORTED, required=True, help="the format")
    _add_folder(parser, "--output", "the folder to write, new or empty")
    parser.set_defaults(command=export)


def _add_folder(parser: argparse.ArgumentParser, option: str, text: str) -> None:
    parser.add_argument(option, dest="output", type=absolute_path, required=True, metavar="FOLDER", help=text)


def import_(args: argparse.Namespace) -> None:
    """Write both tables, and print what was read and written."""
    from callboard.data.label_import import ImportOptions, import_labels
    from callboard.reports.labels import import_text

    band = tuple(args.band) if args.band else None
    if band and not 0 <= band[0] < band[1] < float("inf"):
        raise UserError(f"--band {band[0]:g} {band[1]:g}: must be two frequencies in Hz, the lower one first")
    options = ImportOptions(args.format, args.column, args.verdict, band, args.complete, args.add)
    print(import_text(import_labels(args.files, args.output, options)))


def export(args: argparse.Namespace) -> None:
    """Write the files, and print how many."""
    from callboard.core.console import counted
    from callboard.data.label_export import export_labels

    n_files, n_labels = export_labels(args.folder, args.format, args.output)
    print(f"labels: {counted(n_labels, 'label')} in {counted(n_files, 'file')} written to {args.output}")
