"""Runs in MLflow's own SQLite database, read and written by SQL.

Importing mlflow takes 2 to 3 s, more than all of the writing, and each of its calls is a transaction.
Here a result is written in one transaction, so it is there whole or not at all. Only tables of the
installed MLflow's version that have exactly the columns known here are touched; for others there is
`mlflow_runs`.
"""

import math
import re
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from callboard.results.mlflow import record as tag
from callboard.results.mlflow.record import KnownRun, MetricPoint, RunRecord, fold_tags, now_ms

COLUMNS = {
    "runs": "run_uuid name source_type source_name entry_point_name user_id status start_time end_time "
    "source_version lifecycle_stage artifact_uri experiment_id deleted_time",
    "tags": "key value run_uuid",
    "params": "key value run_uuid",
    "metrics": "key value timestamp run_uuid step is_nan",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
    "datasets": "dataset_uuid experiment_id name digest dataset_source_type dataset_source dataset_schema "
    "dataset_profile",
    "inputs": "input_uuid source_type source_id destination_type destination_id step",
}
"""Tables that a run lives in, with the columns that MLflow 3 gives them."""

LARGEST = 1.7976931348623157e308
"""What MLflow stores for infinity."""

WAIT_S = 60.0
"""For another process to end its transaction."""


class SqliteRuns:
    """The runs of one MLflow experiment in a database on this machine."""

    def __init__(self, database: Path, experiment: str) -> None:
        """Open it.

        Args:
            database: Path of the file.
            experiment: Name of the MLflow experiment.

        Raises:
            LookupError: no such database or experiment, or tables of another version.
        """
        try:
            uri = f"{database.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise LookupError(f"{database}: {error}") from error
        try:
            self._experiment, self._artifacts = self._look_at(experiment)
        except (sqlite3.Error, LookupError) as error:
            self._connection.close()
            raise LookupError(f"{database}: {error}") from error

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def known(self, key: str = "") -> dict[str, KnownRun]:
        """Results in MLflow by content key, or the one with `key`; of two the first finished counts."""
        selected = f"""
            SELECT runs.run_uuid FROM runs
            JOIN tags kind ON kind.run_uuid = runs.run_uuid
             AND kind.key = '{tag.KIND}' AND kind.value = '{tag.RESULT}'
            JOIN tags of ON of.run_uuid = runs.run_uuid AND of.key = '{tag.KEY}'
            WHERE runs.experiment_id = {self._experiment} AND runs.lifecycle_stage = 'active'
              AND :key IN ('', of.value)"""
        ask = self._connection.execute
        where, given = f"WHERE run_uuid IN ({selected})", {"key": key}
        tags: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for run_id, name, text in ask(f"SELECT run_uuid, key, value FROM tags {where}", given):
            tags[run_id][name] = text
        metrics: defaultdict[str, dict[str, float]] = defaultdict(dict)
        asked = f"SELECT run_uuid, key, value, is_nan FROM latest_metrics {where}"
        for run_id, name, value, is_nan in ask(asked, given):
            metrics[run_id][name] = loaded(value, is_nan)
        order = "ORDER BY status != 'FINISHED', start_time, run_uuid"
        found: dict[str, KnownRun] = {}
        for run_id, name, start_ms, status in ask(
            f"SELECT run_uuid, name, start_time, status FROM runs {where} {order}", given
        ):
            run = KnownRun(run_id, name, start_ms, status == "FINISHED", tags[run_id], metrics[run_id])
            found.setdefault(run.tags[tag.KEY], run)
        return found

    def write(self, record: RunRecord, unfinished: KnownRun | None) -> None:
        """Write a result, or complete the run that a killed writer left; the notes of a person stay."""
        with _Transaction(self._connection):
            run_id = unfinished.run_id if unfinished else self._new_run(record.name, record.start_ms)
            kept = unfinished.tags if unfinished else {}
            self._fill(run_id, record.tags | kept, record.metrics)
            pairs = [(key, text, run_id) for key, text in record.params.items()]
            self._connection.executemany("INSERT OR REPLACE INTO params VALUES (?, ?, ?)", pairs)
            self._give_dataset(run_id, record)
            for fold, curve in record.folds.items():
                child = self._child(run_id, fold) or self._new_run(fold, record.start_ms)
                self._fill(child, fold_tags(record, run_id, fold), curve)

    def rename(self, run: KnownRun, name: str, tags: dict[str, str]) -> None:
        """Give a run another name and these tags."""
        with _Transaction(self._connection):
            self._set_tags(run.run_id, tags | {"mlflow.runName": name})
            self._connection.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (name, run.run_id))

    def set_scores(self, run: KnownRun, scores: dict[str, float]) -> None:
        """Log scores later than what they replace, since MLflow shows the latest."""
        with _Transaction(self._connection):
            asked = "SELECT MAX(timestamp) FROM metrics WHERE run_uuid = ? AND key = ?"
            for key, value in scores.items():
                (last_ms,) = self._connection.execute(asked, (run.run_id, key)).fetchone()
                time_ms = max(now_ms(), (last_ms or 0) + 1)
                self._add_points(run.run_id, [MetricPoint(key, value, time_ms, 0)])

    def _look_at(self, experiment: str) -> tuple[int, str]:
        version = _version(self._connection)
        if (wanted := newest_version()) and version != wanted:
            raise LookupError(f"tables of version {version}, not {wanted}")
        for table, columns in COLUMNS.items():
            found = [row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")]
            if set(found) != set(columns.split()):
                raise LookupError(f"table {table} has other columns")
        asked = """
            SELECT experiment_id, artifact_location FROM experiments
            WHERE name = ? AND lifecycle_stage = 'active'"""
        row = self._connection.execute(asked, (experiment,)).fetchone()
        if row is None:
            raise LookupError(f"no experiment {experiment}")
        return int(row[0]), str(row[1])

    def _new_run(self, name: str, start_ms: int) -> str:
        run_id = uuid.uuid4().hex
        values = {
            "run_uuid": run_id,
            "name": name,
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": "unknown",
            "status": "RUNNING",
            "start_time": start_ms,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": f"{self._artifacts}/{run_id}/artifacts",
            "experiment_id": self._experiment,
        }
        self._insert("runs", values)
        self._set_tags(run_id, {"mlflow.runName": name})
        return run_id

    def _child(self, parent_id: str, fold: str) -> str | None:
        asked = f"""
            SELECT up.run_uuid FROM tags up JOIN tags fold ON fold.run_uuid = up.run_uuid
            JOIN runs ON runs.run_uuid = up.run_uuid AND runs.lifecycle_stage = 'active'
            WHERE up.key = '{tag.PARENT}' AND up.value = ?
              AND fold.key = '{tag.FOLD}' AND fold.value = ?"""
        row = self._connection.execute(asked, (parent_id, fold)).fetchone()
        return row[0] if row else None

    def _fill(self, run_id: str, tags: dict[str, str], points: Iterable[MetricPoint]) -> None:
        self._set_tags(run_id, tags)
        self._add_points(run_id, points)
        end = "UPDATE runs SET status = 'FINISHED', end_time = MAX(start_time, ?) WHERE run_uuid = ?"
        self._connection.execute(end, (max((p.time_ms for p in points), default=0), run_id))

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        rows = [(key, text, run_id) for key, text in tags.items()]
        self._connection.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", rows)

    def _add_points(self, run_id: str, points: Iterable[MetricPoint]) -> None:
        """Add to the history of each metric, whose highest (step, time, value) is then its latest."""
        rows = [(*point[:1], *_stored(point.value), *point[2:], run_id) for point in points]
        add = """
            INSERT OR IGNORE INTO metrics (key, value, is_nan, timestamp, step, run_uuid)
            VALUES (?, ?, ?, ?, ?, ?)"""
        self._connection.executemany(add, rows)
        latest: dict[str, tuple[object, ...]] = {}
        for key, value, is_nan, time_ms, step, run in sorted(rows, key=lambda row: (row[4], row[3], row[1])):
            latest[key] = (key, value, time_ms, step, is_nan, run)
        put = """
            INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
            VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (key, run_uuid) DO UPDATE SET
                value = excluded.value, timestamp = excluded.timestamp,
                step = excluded.step, is_nan = excluded.is_nan
            WHERE (excluded.step, excluded.timestamp, excluded.value) >= (step, timestamp, value)"""
        self._connection.executemany(put, latest.values())

    def _give_dataset(self, run_id: str, record: RunRecord) -> None:
        asked = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
        here = (self._experiment, record.dataset, record.digest)
        row = self._connection.execute(asked, here).fetchone()
        dataset_id = row[0] if row else uuid.uuid4().hex
        if not row:
            names = ("experiment_id", "name", "digest")
            source = {"dataset_source_type": "dvc", "dataset_source": f'{{"md5": "{record.digest}"}}'}
            self._insert(
                "datasets", {"dataset_uuid": dataset_id} | dict(zip(names, here, strict=True)) | source
            )
        values = {"source_type": "DATASET", "source_id": dataset_id}
        values |= {"destination_type": "RUN", "destination_id": run_id, "step": 0}
        self._insert("inputs", {"input_uuid": uuid.uuid4().hex} | values)

    def _insert(self, table: str, values: dict[str, object]) -> None:
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        self._connection.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", values)


class _Transaction:
    """All or nothing, from the first read on: what is looked up in it is still so when it is written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._connection.execute("ROLLBACK" if failure else "COMMIT")


def _stored(value: float) -> tuple[float, bool]:
    """A value and whether it is NaN, as MLflow's tables have them."""
    if math.isnan(value):
        return 0.0, True
    return max(-LARGEST, min(LARGEST, value)), False


def loaded(value: float, is_nan: bool) -> float:
    """A value out of MLflow's tables; NaN has a column of its own."""
    return math.nan if is_nan else float(value)


def version_of(database: Path) -> str:
    """Which version of MLflow's tables a database has.

    Raises:
        sqlite3.Error: it has none, or is no database.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return _version(connection)


def _version(connection: sqlite3.Connection) -> str:
    versions = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
    if len(versions) != 1:
        raise sqlite3.DatabaseError(f"{len(versions)} versions in alembic_version")
    return str(versions[0])


@cache
def newest_version() -> str | None:
    """Of MLflow's tables, read from its migrations without importing it; None where they lie elsewhere."""
    spec = find_spec("mlflow")
    if not spec or not spec.origin:
        return None
    made, replaced = set(), set()
    for script in (Path(spec.origin).parent / "store/db_migrations/versions").glob("*.py"):
        text = script.read_text(encoding="utf-8")
        made |= set(re.findall(r"^revision = ['\"](\w+)", text, re.MULTILINE))
        replaced |= set(re.findall(r"^down_revision = ['\"](\w+)", text, re.MULTILINE))
    heads = made - replaced
    return heads.pop() if len(heads) == 1 else None
