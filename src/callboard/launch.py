"""Rows of the table to DVC experiments of their names."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callboard.errors import UserError
from callboard.finished import find_finished
from callboard.history import git, params_at
from callboard.hydra import hydra_overrides
from callboard.params.base import read_tree
from callboard.params.table import Entry
from callboard.results import changes, flatten
from callboard.table import Table, read_table


@dataclass(frozen=True)
class Manner:
    """How experiments are run; each has a copy of the workspace to itself, which is left as it is.

    In the workspace itself what one row sets alone, or the user adds, would stay in params.yaml for the next.
    """

    is_queued: bool = False
    """Left to `dvc queue start`."""
    is_forced: bool = False
    """Every stage is run again, and an experiment of that name replaced."""

    def options(self) -> list[str]:
        """Of `dvc exp run`."""
        return ["--queue" if self.is_queued else "--temp", *(["--force"] if self.is_forced else [])]


def run_rows(names: Sequence[str], manner: Manner, extra: Sequence[str] = ()) -> int:
    """Run rows one after the other, each as an experiment of its name; stop at the first that fails.

    An experiment that the current commit has already is left alone, unless `manner` is forced. Extra
    overrides do not change its name: a whole table may be run at a smaller scale.

    Args:
        names: Rows, in the order to run them.
        manner: Of running.
        extra: Overrides of the user's, for every row.

    Returns:
        Exit status of the run that failed, or 0.

    Raises:
        UserError: before anything has run, where a name is no row or a row no experiment, and where a part
            of a blend neither is finished nor comes first; later, where an experiment of that name is there
            with other parameters.
    """
    table, tree = read_table(), read_tree(Path("params.yaml"))
    names = list(dict.fromkeys(names))
    _refuse_what_cannot_run(table, names, manner)
    for position, name in enumerate(names):
        overrides = [*row_overrides(table, name, tree), *extra]
        if not manner.is_forced and (experiment := experiment_of(name)):
            _refuse_other_params(name, params_at(experiment), overrides)
            print(f"{name} is there on this commit; `callboard run --force {name}` runs it anew", flush=True)
            continue
        status = run_experiment(name, overrides, manner)
        if status:
            left = ", ".join(names[position + 1 :])
            print(f"error: {name} failed{left and f'; not run: {left}'}", file=sys.stderr, flush=True)
            return status
    return 0


def run_experiment(name: str, overrides: Sequence[str], manner: Manner) -> int:
    """Exit status of running or queueing one experiment.

    Args:
        name: Of the experiment.
        overrides: Of the workspace's parameters, as `dvc exp run -S` takes them.
        manner: Of running.
    """
    settings = [argument for override in overrides for argument in ("-S", override)]
    return dvc("exp", "run", "--name", name, *manner.options(), *settings)


def dvc(*arguments: str) -> int:
    """Exit status of a dvc command, which prints for itself.

    Ctrl-C reaches it too; it is waited for while it removes its copy of the workspace.
    """
    process = subprocess.Popen([sys.executable, "-m", "dvc", *arguments])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def show_rows(names: Sequence[str], extra: Sequence[str] = ()) -> None:
    """Print what running the rows would override, one row a line; parts of a blend without their keys.

    Raises:
        UserError: a name is no row, or a row no experiment.
    """
    table, tree = read_table(), read_tree(Path("params.yaml"))
    for row in [experiment_row(table, name) for name in dict.fromkeys(names)]:
        overrides = _as_text(table.overrides(row.name, tree))
        print(f"{row.name}:", *(overrides + list(extra) or ["params.yaml as it is"]))


def row_overrides(table: Table, name: str, tree: dict[str, Any]) -> list[str]:
    """What `dvc exp run -S` takes to turn the workspace's parameters into a row's.

    Args:
        table: Of experiments.
        name: Of the row.
        tree: All of params.yaml.

    Raises:
        UserError: the row blends an experiment that is not finished.
    """
    values = dict(table.overrides(name, tree))
    if parts := values.get("infer.blend"):
        values["infer.blend"] = [find_finished(part).reference for part in parts]
    return _as_text(values.items())


def _as_text(overrides: Iterable[tuple[str, Any]]) -> list[str]:
    return [text for key, value in overrides for text in hydra_overrides(key, value)]


def experiment_of(name: str) -> str:
    """The commit of the experiment of that name on the current commit; empty where there is none."""
    commit = git("rev-parse", "HEAD").strip()
    return git("rev-parse", "--verify", "--quiet", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}").strip()


def with_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Flat parameters of the workspace, as `dvc exp run -S` would change them."""
    from dvc.utils.hydra import apply_overrides  # half a second

    with TemporaryDirectory() as folder:
        wanted = Path(folder) / "params.yaml"
        shutil.copy("params.yaml", wanted)
        apply_overrides(wanted, list(overrides))
        return flatten(read_tree(wanted))


def _refuse_other_params(name: str, found: dict[str, str], overrides: Sequence[str]) -> None:
    if differences := changes(found, with_overrides(overrides)):
        raise UserError(
            f"{name} is there on this commit with other parameters ({', '.join(differences)}); "
            f"`callboard run --force {name}` replaces it"
        )


def experiment_row(table: Table, name: str) -> Entry:
    """The row of that name.

    Raises:
        UserError: there is none, or it is no experiment.
    """
    row = table.row(name)
    if row.command:
        raise UserError(f"{name} is no experiment; run `{row.command}`")
    return row


def _refuse_what_cannot_run(table: Table, names: list[str], manner: Manner) -> None:
    for position, row in enumerate([experiment_row(table, name) for name in names]):
        before = [] if manner.is_queued else names[:position]
        for part in row.blend:
            if part not in before:
                try:
                    find_finished(part)
                except UserError as error:
                    raise UserError(f"{row.name}: run {' and '.join(row.blend)} first: {error}") from error
