"""The `callboard` command: rows of the table, the board, adversarial validation, MLflow's pages."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from callboard.errors import UserError
from callboard.terminal import run

DESCRIPTION = """\
The experiment board of a species-call detector.

Experiments are run with DVC:
  dvc repro                                 the pipeline, as far as something changed
  callboard run exp0058                     a row of the author's table, as an experiment of that name
  dvc exp run -S loss.neg_mask=seq          one experiment; its row appears on the board
  dvc exp run --queue -S ... ; dvc queue start
"""


Commands = Any
"""What argparse adds subcommands to; its class has no public name."""


def main() -> None:
    """Entry point; a user's mistake becomes one message and exit status 1."""
    run(lambda: dispatch(sys.argv[1:]))


def dispatch(argv: list[str]) -> None:
    """Parse the arguments and run the command that they name, from the root of the workspace."""
    parser = argparse.ArgumentParser(
        "callboard", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for add in (_add_board, _add_run, _add_import, _add_adversarial, _add_ui):
        add(commands)
    args = parser.parse_args(argv)
    os.chdir(workspace_root())
    args.command(args)


def _add_board(commands: Commands) -> None:
    board = commands.add_parser("board", help="the table of results: CV, LB and what was changed")
    board.add_argument(
        "--markdown", action="store_true", help="Markdown, as when the output is not a terminal"
    )
    board.add_argument(
        "--author", action="store_true", help="the rows of experiments.yaml, the author's scores beside ours"
    )
    board.add_argument(
        "--output", type=Path, metavar="FILE", help="write Markdown there, relative to the root"
    )
    board.set_defaults(command=show_board)


def _add_run(commands: Commands) -> None:
    rows = commands.add_parser("run", help="rows of experiments.yaml, each as a DVC experiment of its name")
    rows.add_argument("names", nargs="+", metavar="NAME", help="as exp0058 or exp0036-thr0.7")
    rows.add_argument(
        "-S", dest="extra", action="append", default=[], metavar="KEY=VALUE", help="for every row"
    )
    rows.add_argument("--queue", action="store_true", help="leave them to `dvc queue start`")
    rows.add_argument("--force", action="store_true", help="run every stage again, replace the experiment")
    rows.add_argument("--dry", action="store_true", help="only print what a row overrides")
    rows.set_defaults(command=run_rows)


def _add_import(commands: Commands) -> None:
    import_ = commands.add_parser("import", help="the author's scores of experiments.yaml into MLflow")
    import_.set_defaults(command=import_table)


def _add_adversarial(commands: Commands) -> None:
    adversarial = commands.add_parser(
        "adversarial", help="can a classifier tell train from test recordings, and by which bands?"
    )
    adversarial.add_argument("--folds", type=int, default=5, help="default %(default)s")
    adversarial.add_argument("--repeats", type=int, default=3, help="of the folds; default %(default)s")
    adversarial.add_argument("--seed", type=int, default=0, help="default %(default)s")
    adversarial.add_argument(
        "--decibels", action="store_true", help="judge absolute levels, which the network does not see"
    )
    adversarial.add_argument(
        "--output", type=Path, default=Path("adversarial"), metavar="FOLDER", help="default %(default)s"
    )
    adversarial.set_defaults(command=validate_adversarially)


def _add_ui(commands: Commands) -> None:
    ui = commands.add_parser("ui", help="MLflow's pages in the browser")
    ui.add_argument("--port", type=int, default=5000, help="default %(default)s")
    ui.set_defaults(command=serve_ui)


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
    """Print the table, or write it; plain Markdown when the output is a pipe or a file."""
    from rich.console import Console

    from callboard.agreement import agreement
    from callboard.board import read_rows
    from callboard.board_table import (
        AUTHOR_COLUMNS,
        COLUMNS,
        as_markdown,
        lines_of_results,
        lines_of_table,
        print_table,
    )
    from callboard.outputs import written_whole
    from callboard.params.base import read_tree
    from callboard.results import flatten
    from callboard.table import TABLE, read_table
    from callboard.tracking import tracking_uri

    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(
            f"no results yet: {uri.removeprefix('sqlite:///')} is not there; `dvc repro` makes the first"
        )
    rows = read_rows(uri)
    table = read_table() if args.author or TABLE.exists() else None
    columns = AUTHOR_COLUMNS if args.author else COLUMNS
    blocks = lines_of_table(rows, table) if args.author and table else lines_of_results(rows, table)
    console = Console()
    if args.output is None and not args.markdown and console.is_terminal:
        print_table(blocks, console, columns)
        return
    text = as_markdown(blocks, columns)
    if args.output is None:
        print(text, end="")
        return
    if args.author and table:
        text += "\n" + agreement(blocks, table, flatten(read_tree(Path("params.yaml"))))
    with written_whole(args.output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print(f"board: {len(rows)} results in {args.output}")


def import_table(args: argparse.Namespace) -> None:
    """Put the author's rows into MLflow."""
    from callboard.author_history import author_runs, import_runs
    from callboard.params.base import read_tree
    from callboard.table import read_table

    runs = author_runs(read_table(), read_tree(Path("presets/rfcx.yaml")))
    print(f"import: {len(runs)} rows of experiments.yaml, {import_runs(runs)}")


def run_rows(args: argparse.Namespace) -> None:
    """Run rows of the table, or print their overrides; the exit status of the first that fails is ours."""
    from callboard import launch

    if args.dry:
        launch.show_rows(args.names, args.extra)
    elif status := launch.run_rows(args.names, launch.Manner(args.queue, args.force), args.extra):
        sys.exit(status)


def validate_adversarially(args: argparse.Namespace) -> None:
    """Tell the recordings of data/mel/train from those of data/mel/test."""
    from callboard.adversarial import Settings
    from callboard.adversarial_report import validate

    settings = Settings(args.folds, args.repeats, args.seed, in_decibels=args.decibels)
    validate(Path("data/mel"), args.output, settings)


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
