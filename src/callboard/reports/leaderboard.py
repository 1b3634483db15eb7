"""The rows of leaderboard.csv as a table for people."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from callboard.reports.text import markdown_table
from callboard.results.leaderboard import LeaderboardEntry
from callboard.results.submissions import Submission

LEADERBOARD_HEADER = ("date", "submission", "run", "public", "private", "note")

NO_RESULT = "no known result"


def leaderboard_cells(entries: Iterable[LeaderboardEntry], known: Sequence[Submission]) -> list[list[str]]:
    """Return the cells of each row, in the order of LEADERBOARD_HEADER."""
    by_md5: dict[str, list[Submission]] = {}
    for one in known:
        by_md5.setdefault(one.md5, []).append(one)
    by_key = {one.key: one for one in known if one.key}
    return [
        [
            entry.date,
            entry.submission_md5[:8],
            _runs(entry, by_md5, by_key),
            _score(entry.public),
            _score(entry.private),
            entry.note,
        ]
        for entry in entries
    ]


def as_markdown(rows: Iterable[Sequence[str]]) -> str:
    """Format the rows as a Markdown table."""
    return markdown_table(LEADERBOARD_HEADER, list(rows), [_is_score(name) for name in LEADERBOARD_HEADER])


def print_leaderboard(rows: Iterable[Sequence[str]], console: Console) -> None:
    """Print the rows as a table on a terminal."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in LEADERBOARD_HEADER:
        table.add_column(name, justify="right" if _is_score(name) else "left", no_wrap=name != "note")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _is_score(column: str) -> bool:
    return column in ("public", "private")


def _runs(entry: LeaderboardEntry, by_md5: dict[str, list[Submission]], by_key: dict[str, Submission]) -> str:
    if own := by_md5.get(entry.submission_md5):
        return ", ".join(dict.fromkeys(name for one in own for name in one.names))
    if made_from := by_key.get(entry.key):
        return f"{made_from.name}, another file"
    return NO_RESULT


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.5f}".rstrip("0")
