"""The table of results, read from MLflow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from rich.console import Console
from rich.table import Table

from callboard.errors import UserError
from callboard.history import params_at
from callboard.results import changes
from callboard.tracking import EXPERIMENT, TrackingError, mlflow_errors, prepare_environment

COLUMNS = ("name", "CV", "±", "LB public", "LB private", "changed", "date", "commit")
IS_NUMBER = (False, True, True, True, True, False, False, False)
MISSING = "–"
MAX_RUNS = 5000

OPTIMISTIC = "*"
LEGEND = (
    f"{OPTIMISTIC} CV is optimistic: the epoch was chosen on the validation fold (train.select best), or "
    "pseudo-labels came from teachers that had learned from other folds' labels (pseudo.final above 0)."
)


@dataclass(frozen=True)
class Row:
    """One result."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    start: datetime
    commit: str
    base: dict[str, str]
    """Parameters of the commit that it started from, which "changed" compares with; empty where unknown."""

    @property
    def is_optimistic(self) -> bool:
        """Whether CV saw something of the labels that it is measured on."""
        return self.params.get("train.select") == "best" or self.params.get("pseudo.final", "0") != "0"

    def cells(self) -> list[str]:
        """Texts in the order of COLUMNS."""
        low, high = self.metrics.get("cv.lwlrap_low"), self.metrics.get("cv.lwlrap_high")
        half_width = (high - low) / 2 if low is not None and high is not None else None
        return [
            self.name,
            _number(self.metrics.get("cv.lwlrap"), 4) + OPTIMISTIC * self.is_optimistic,
            _number(half_width, 4),
            _number(self.metrics.get("lb.public"), 4),
            _number(self.metrics.get("lb.private"), 4),
            ", ".join(changes(self.base, self.params)) if self.base else MISSING,
            self.start.astimezone().strftime("%Y-%m-%d %H:%M"),
            self.commit[:7],
        ]


def _number(value: float | None, n_digits: int) -> str:
    return MISSING if value is None else f"{value:.{n_digits}f}"


def read_rows(uri: str) -> list[Row]:
    """Every finished result that the MLflow at `uri` holds, oldest first.

    Raises:
        UserError: the server is down, or its database is none or of another version.
    """
    prepare_environment()
    try:
        with mlflow_errors(uri):
            found = _search(uri)
    except TrackingError as error:
        raise UserError(f"the results cannot be read: {error}") from error
    params_of = cache(_base_params)
    return [_row(run, params_of) for run in found]


def _search(uri: str) -> Sequence[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found: Sequence[Any] = client.search_runs(
        [experiment.experiment_id],
        "tags.`callboard.kind` = 'cv' and attributes.status = 'FINISHED'",
        max_results=MAX_RUNS,
        order_by=["attributes.start_time ASC"],
    )
    return found


def _base_params(commit: str) -> dict[str, str]:
    """Parameters as of `commit`, or of HEAD where that is not known here."""
    return (commit and params_at(commit)) or params_at("HEAD")


def _row(run: Any, params_of: Callable[[str], dict[str, str]]) -> Row:
    start = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    commit = run.data.tags.get("git.commit", "")
    params, metrics = dict(run.data.params), dict(run.data.metrics)
    return Row(run.info.run_name, params, metrics, start, commit, params_of(commit))


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, columns padded so that the plain text reads as a table too."""
    cells = [list(COLUMNS), *([cell.replace("|", r"\|") for cell in row.cells()] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(COLUMNS))]
    rule = [
        "-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, IS_NUMBER, strict=True)
    ]
    table = "\n".join(_line(line, widths) for line in [cells[0], rule, *cells[1:]]) + "\n"
    return f"{table}\n\\{LEGEND}\n" if _has_optimistic(rows) else table


def _has_optimistic(rows: Sequence[Row]) -> bool:
    return any(row.is_optimistic for row in rows)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, IS_NUMBER, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The same table for a terminal."""
    table = Table(title=f"{len(rows)} result{'s' * (len(rows) != 1)}", title_justify="left")
    for name, number in zip(COLUMNS, IS_NUMBER, strict=True):
        table.add_column(name, justify="right" if number else "left", no_wrap=name != "changed")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)
    if _has_optimistic(rows):
        console.print(LEGEND)
