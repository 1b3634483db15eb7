"""`callboard export`: a result's detector as a file that needs neither torch nor a workspace."""

import argparse
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME, absolute_path, add_command


def add(commands: Any) -> None:
    """Add the command to the parser."""
    export = add_command(
        commands,
        "export",
        help="write the detector of a result to a file that needs no torch",
        details="Every network becomes ONNX, and is compared with the one that torch runs. "
        "`callboard predict FILE` and `callboard.Detector` run the file where only callboard[detect] is "
        "installed.",
        examples={
            "callboard export exp0058 detector.zip": "its networks, settings and species",
            "callboard export exp0058 detector.zip --thresholds species.csv": "with a threshold per species",
            "callboard export exp0058 detector.zip --mlflow": "also as a model of its run in MLflow",
        },
    )
    export.add_argument("name", metavar="NAME", help=RESULT_NAME)
    export.add_argument("output", metavar="FILE", type=detector_path, help="file to write, ending with .zip")
    export.add_argument(
        "--thresholds",
        type=absolute_path,
        metavar="FILE",
        help="CSV with the columns species and threshold, to be kept in the file; species can be left out",
    )
    export.add_argument(
        "--mlflow",
        action="store_true",
        help="also add it to the result's run as a model, for MLflow's registry and servers",
    )
    export.set_defaults(command=export_result)


def detector_path(text: str) -> Path:
    """Parse the path of a detector's file."""
    from callboard.scoring.detector_file import SUFFIX, is_detector_file

    if not is_detector_file(text):
        raise argparse.ArgumentTypeError(f"{text!r} must end with {SUFFIX}")
    return absolute_path(text)


def export_result(args: argparse.Namespace) -> None:
    """Write the file and print what it contains."""
    from callboard.core.console import counted
    from callboard.results.rows import result_named
    from callboard.scoring.detector_export import export_detector
    from callboard.scoring.detector_file import write_detector_file

    result = result_named(args.name)
    content = export_detector(result, args.thresholds)
    write_detector_file(args.output, content)
    n_networks, n_mb = len(content.networks), args.output.stat().st_size / 1e6
    print(f"export: {counted(n_networks, 'network')}, {n_mb:.1f} MB written to {args.output}")
    for text in content.manifest.licences:
        print(f"export: {text}")
    if args.mlflow:
        from callboard.scoring.detector_model import log_detector

        print(f"export: logged as {log_detector(args.output, result.key)}")
