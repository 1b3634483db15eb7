"""The table of results, read from MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from callboard.results import changes
from callboard.tracking import EXPERIMENT, prepare_environment

COLUMNS = ("name", "CV", "±", "LB public", "LB private", "changed", "date", "commit")
IS_NUMBER = (False, True, True, True, True, False, False, False)
MISSING = "–"
MAX_RUNS = 5000


@dataclass(frozen=True)
class Row:
    """One result."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    start: datetime
    commit: str

    def cells(self, base: dict[str, str]) -> list[str]:
        """Texts in the order of COLUMNS; `base` holds the parameters that "changed" compares with."""
        low, high = self.metrics.get("cv.lwlrap_low"), self.metrics.get("cv.lwlrap_high")
        half_width = (high - low) / 2 if low is not None and high is not None else None
        return [
            self.name,
            _number(self.metrics.get("cv.lwlrap"), 4),
            _number(half_width, 4),
            _number(self.metrics.get("lb.public"), 4),
            _number(self.metrics.get("lb.private"), 4),
            ", ".join(changes(base, self.params)) if base else MISSING,
            self.start.astimezone().strftime("%Y-%m-%d %H:%M"),
            self.commit[:7],
        ]


def _number(value: float | None, n_digits: int) -> str:
    return MISSING if value is None else f"{value:.{n_digits}f}"


def read_rows(uri: str) -> list[Row]:
    """Every finished result that the MLflow at `uri` holds, oldest first."""
    prepare_environment()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found = client.search_runs(
        [experiment.experiment_id],
        "tags.`callboard.kind` = 'cv' and attributes.status = 'FINISHED'",
        max_results=MAX_RUNS,
        order_by=["attributes.start_time ASC"],
    )
    return [_row(run) for run in found]


def _row(run: Any) -> Row:
    start = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    commit = run.data.tags.get("git.commit", "")
    return Row(run.info.run_name, dict(run.data.params), dict(run.data.metrics), start, commit)


def as_markdown(rows: Sequence[Row], base: dict[str, str]) -> str:
    """A Markdown table, columns padded so that the plain text reads as a table too."""
    cells = [list(COLUMNS), *([cell.replace("|", r"\|") for cell in row.cells(base)] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(COLUMNS))]
    rule = [
        "-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, IS_NUMBER, strict=True)
    ]
    return "\n".join(_line(line, widths) for line in [cells[0], rule, *cells[1:]]) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if number else cell.ljust(width)
        for cell, width, number in zip(cells, widths, IS_NUMBER, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def print_table(rows: Sequence[Row], base: dict[str, str], console: Console) -> None:
    """The same table for a terminal."""
    table = Table(title=f"{len(rows)} result{'s' * (len(rows) != 1)}", title_justify="left")
    for name, number in zip(COLUMNS, IS_NUMBER, strict=True):
        table.add_column(name, justify="right" if number else "left", no_wrap=name != "changed")
    for row in rows:
        table.add_row(*row.cells(base))
    console.print(table)
