"""Which results the board shows, and in which order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase

from callboard.core.errors import UserError
from callboard.results.rows import BoardRow
from callboard.results.settings import CV

Rows = list[BoardRow]


@dataclass(frozen=True)
class Choice:
    """What was asked for on the command line; empty or None asks for nothing."""

    names: tuple[str, ...] = ()
    """Patterns with * and ?, any of which the name or an experiment name matches; those with ! none may."""
    where: tuple[str, ...] = ()
    """`KEY=VALUE` or `KEY!=VALUE` about parameters; all must hold."""
    since: str = ""
    """A day, or a day and a time, of this machine's zone."""
    best: int | None = None
    """Only so many, the highest of what is sorted by."""
    sort: str = ""
    """`date`, `name`, a metric or a parameter."""

    @property
    def is_of_results(self) -> bool:
        """Whether it asks for something that a row without result cannot have."""
        return bool(self.where or self.since or self.best)


def chosen(rows: Sequence[BoardRow], choice: Choice) -> Rows:
    """The rows that are asked for: by start time and name, or as `sort` or `best` says.

    Raises:
        UserError: nothing is left, a key is not known, or a date is none. It says what there is.
    """
    found = list(rows)
    for words, keeps in _filters(rows, choice):
        left = [row for row in found if keeps(row)]
        if found and not left:
            raise UserError(f"{words}: none of {len(found)} results; {_what_there_is(found, words)}")
        found = left
    ordered = _ordered(found, choice.sort or (CV if choice.best else ""), rows)
    return ordered if choice.best is None else ordered[: choice.best]


def _filters(rows: Sequence[BoardRow], choice: Choice) -> Iterable[tuple[str, Callable[[BoardRow], bool]]]:
    if choice.names:
        yield f"--name {' '.join(choice.names)}", lambda row: is_named(choice.names, row.name, *row.names)
    for condition in choice.where:
        yield f"--where {condition}", _condition(condition, rows)
    if choice.since:
        start = _moment(choice.since)
        yield f"--since {choice.since}", lambda row: row.start >= start


def is_named(patterns: Sequence[str], *names: str) -> bool:
    """Whether a name matches one of the patterns, if any, and none matches one that starts with !."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return (not wanted or _matches(wanted, names)) and not _matches(unwanted, names)


def _matches(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _what_there_is(rows: Rows, words: str) -> str:
    option, _, text = words.partition(" ")
    if option == "--where":
        key = text.partition("=")[0].removesuffix("!")
        values = list(dict.fromkeys(row.params.get(key, "absent") for row in rows))
        return f"{key} is {', '.join(values[:8])}{' …' * (len(values) > 8)}"
    if option == "--since":
        return f"the newest is of {max(row.start for row in rows).astimezone():%Y-%m-%d %H:%M}"
    names = [row.name for row in rows]
    near = get_close_matches(text, names, n=3) or names[:3]
    return f"names are such as {', '.join(near)}"


def _condition(text: str, rows: Sequence[BoardRow]) -> Callable[[BoardRow], bool]:
    key, is_given, value = text.partition("=")
    if not is_given:
        raise UserError(f"--where {text}: should be KEY=VALUE or KEY!=VALUE, as loss.neg_mask=seq")
    is_wanted = not key.endswith("!")
    key = key.removesuffix("!")
    if rows:
        _refuse_unknown(key, "--where", {name for row in rows for name in row.params})
    return lambda row: _is_same(row.params.get(key, "absent"), value) == is_wanted


def _is_same(text: str, wanted: str) -> bool:
    if text == wanted:
        return True
    try:
        return float(text) == float(wanted)  # 1e-3 and 0.001
    except ValueError:
        return text.lower() == wanted.lower() and wanted.lower() in ("true", "false", "null")


def _refuse_unknown(key: str, option: str, known: set[str]) -> None:
    if key not in known:
        near = (
            get_close_matches(key, sorted(known), n=3) or [name for name in sorted(known) if key in name][:3]
        )
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise UserError(f"{option} {key}: no result has it{hint}")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UserError(f"--since {text}: should be a date as 2020-11-20 or 2020-11-20T18:30") from None


def _ordered(found: Rows, key: str, rows: Sequence[BoardRow]) -> Rows:
    """Metrics from the highest down, all else from the lowest up; rows without the key come last."""
    if key in ("", "date"):
        return found
    if key == "name":
        return sorted(found, key=lambda row: row.name)
    metrics = {name for row in rows for name in row.metrics}
    params = {name for row in rows for name in row.params}
    if rows:
        _refuse_unknown(key, "--sort", metrics | params | {"date", "name"})
    if key in metrics:
        return sorted(found, key=lambda row: -row.metrics.get(key, float("-inf")))
    return sorted(found, key=lambda row: (key not in row.params, _sortable(row.params.get(key, ""))))


def _sortable(text: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words by their letters."""
    try:
        return (False, float(text), "")
    except ValueError:
        return (True, 0.0, text)
