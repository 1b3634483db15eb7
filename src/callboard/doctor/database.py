"""Whether MLflow's own database is there and whole: checks of `callboard doctor`."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from callboard.doctor.findings import SYNC, Finding, State
from callboard.tracker.sqlite_runs import newest_version, version_of


def database(state: State) -> Iterator[Finding]:
    """MLflow's SQLite file: there, whole, of this MLflow's version; or its server: answering."""
    path = state.database
    if path is None:
        if isinstance(state.runs, str):
            yield Finding(f"MLflow's server does not answer: {state.runs}", f"start it, then `{SYNC}`", True)
        return
    if not path.is_file():
        yield Finding(f"{path}: no MLflow database", f"{SYNC} (writes it from git)", loses_results=True)
        return
    rebuild = f"move {path.name} away, then `{SYNC}` (what was typed into MLflow's pages is lost)"
    try:
        version, left = version_of(path), _half_made_tables(path)
    except sqlite3.Error as error:
        yield Finding(f"{path}: no whole MLflow database: {error}", rebuild, loses_results=True)
        return
    if left:
        yield Finding(f"{path}: half migrated, {left[0]}", rebuild, loses_results=True)
    elif (wanted := newest_version()) and version != wanted:
        todo = f"mlflow db upgrade sqlite:///{path}  (an older MLflow cannot read it afterwards)"
        yield Finding(f"{path}: tables of version {version}, the installed MLflow wants {wanted}", todo, True)
    elif isinstance(state.runs, str):
        yield Finding(f"MLflow's database cannot be read: {state.runs}", rebuild, loses_results=True)


def _half_made_tables(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    left = [f"{name} was left in it" for name in sorted(names) if name.startswith("_alembic_tmp")]
    return left or [
        f"it has no table {name}" for name in ("runs", "tags", "params", "metrics") if name not in names
    ]
