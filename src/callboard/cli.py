"""The `callboard` command: the board, MLflow's pages, and the upkeep of dvc.yaml."""

import argparse
import os
import sys
from pathlib import Path

from callboard.errors import UserError
from callboard.terminal import run

DESCRIPTION = """\
The experiment board of a species-call detector.

Experiments are run with DVC:
  dvc repro                                 the pipeline, as far as something changed
  dvc exp run -S loss.neg_mask=seq          one experiment; its row appears on the board
  dvc exp run --queue -S ... ; dvc queue start
"""


def main() -> None:
    """Entry point; a user's mistake becomes one message and exit status 1."""
    run(lambda: dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> None:
    """Parse the arguments and run the command that they name, from the root of the workspace."""
    parser = argparse.ArgumentParser(
        "callboard", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    board = commands.add_parser("board", help="the table of results: CV, LB and what was changed")
    board.add_argument(
        "--markdown", action="store_true", help="Markdown, as when the output is not a terminal"
    )
    board.set_defaults(command=show_board)

    ui = commands.add_parser("ui", help="MLflow's pages in the browser")
    ui.add_argument("--port", type=int, default=5000, help="default %(default)s")
    ui.set_defaults(command=serve_ui)

    deps = commands.add_parser(
        "deps", help="compare the code entries of dvc.yaml with what the stages import"
    )
    deps.add_argument("--write", action="store_true", help="renew them")
    deps.set_defaults(command=check_deps)

    args = parser.parse_args(argv)
    os.chdir(workspace_root())
    args.command(args)


def workspace_root() -> Path:
    """The nearest folder upwards that holds dvc.yaml.

    Raises:
        UserError: there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"no dvc.yaml in {Path.cwd()} or above; run callboard inside a workspace")


def show_board(args: argparse.Namespace) -> None:
    """Print the table; plain Markdown when the output is a pipe or a file."""
    from rich.console import Console

    from callboard.board import as_markdown, print_table, read_rows
    from callboard.tracking import tracking_uri

    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(
            f"no results yet: {uri.removeprefix('sqlite:///')} is not there; `dvc repro` makes the first"
        )
    rows = read_rows(uri)
    console = Console()
    if args.markdown or not console.is_terminal:
        print(as_markdown(rows), end="")
    else:
        print_table(rows, console)


def serve_ui(args: argparse.Namespace) -> None:
    """Become `mlflow ui`, with one worker and without the job runners that take 2 GB."""
    from callboard.tracking import prepare_environment, tracking_uri

    prepare_environment()
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        tracking_uri(),
        "--port",
        str(args.port),
        "--workers",
        "1",
    ]
    os.execve(sys.executable, [sys.executable, *command], environment)


def check_deps(args: argparse.Namespace) -> None:
    """Compare, or renew with --write.

    Raises:
        UserError: dvc.yaml does not name what the stages import.
    """
    from callboard.closure import with_code_deps

    path = Path("dvc.yaml")
    text = path.read_text(encoding="utf-8")
    renewed = with_code_deps(Path.cwd(), text)
    if renewed == text:
        print("dvc.yaml names the imports of every stage")
    elif args.write:
        path.write_text(renewed, encoding="utf-8")
        print("dvc.yaml: deps renewed")
    else:
        raise UserError(
            "dvc.yaml does not name the imports of every stage; `callboard deps --write` renews them"
        )
