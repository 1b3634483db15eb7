"""Choice of the lines that the board shows, and their order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from callboard.analysis.lines import Block, Blocks, judged, lines_of_results, lines_of_table
from callboard.core.errors import UserError, nearest
from callboard.experiments.captions import read_captions
from callboard.results.rows import CV, BoardRow

Rows = list[BoardRow]


@dataclass(frozen=True)
class Choice:
    """Filters and order from the command line; empty or None filters nothing."""

    names: tuple[str, ...] = ()
    """Patterns with * and ?: the name or an experiment name must match one, and none that begins with !."""
    where: tuple[str, ...] = ()
    """`KEY=VALUE` or `KEY!=VALUE` about parameters; all must hold."""
    since: str = ""
    """A day, or a day and a time, in this machine's time zone."""
    best: int | None = None
    """Number of results to keep, the highest by the sort key."""
    sort: str = ""
    """`date`, `name`, a metric or a parameter."""

    @property
    def is_of_results(self) -> bool:
        """Whether rows without a result are excluded."""
        return bool(self.where or self.since or self.best)


def chosen(rows: Sequence[BoardRow], choice: Choice) -> Rows:
    """Choose and order rows: by start time and name, or as `sort` or `best` says.

    Raises:
        UserError: nothing is left, a key is unknown, or a date is invalid. The message lists what exists.
    """
    found = list(rows)
    for words, keeps in _filters(rows, choice):
        left = [row for row in found if keeps(row)]
        if found and not left:
            raise UserError(f"{words}: none of {len(found)} results{_what_there_is(found, words)}")
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
    """Return whether a name matches one of the patterns, if any, and none that begins with !."""
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
        return f"; {key} is {', '.join(values[:8])}{' …' * (len(values) > 8)}"
    if option == "--since":
        return f"; the newest is from {max(row.start for row in rows).astimezone():%Y-%m-%d %H:%M}"
    names = [row.name for row in rows]
    return nearest(text, names) or f"; examples of names: {', '.join(names[:3])}"


def _condition(text: str, rows: Sequence[BoardRow]) -> Callable[[BoardRow], bool]:
    key, is_given, value = text.partition("=")
    if not is_given:
        raise UserError(f"--where {text}: should be KEY=VALUE or KEY!=VALUE, such as loss.neg_mask=seq")
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
        raise UserError(f"{option} {key}: no result has it{nearest(key, sorted(known))}")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UserError(f"--since {text}: should be YYYY-MM-DD or YYYY-MM-DDTHH:MM") from None


def _ordered(found: Rows, key: str, rows: Sequence[BoardRow]) -> Rows:
    """Order metrics from the highest down, all else from the lowest up; rows without the key come last."""
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
    """Return a sort key: numbers by value, before words by their letters."""
    try:
        return (False, float(text), "")
    except ValueError:
        return (True, 0.0, text)


def result_blocks(rows: Sequence[BoardRow], choice: Choice) -> Blocks:
    """Build the board of results, one block.

    Args:
        rows: All results, oldest first.
        choice: Filters and order.

    Raises:
        UserError: as `chosen`.
    """
    return judged(lines_of_results(rows, read_captions(), chosen(rows, choice)), rows)


def author_blocks(rows: Sequence[BoardRow], choice: Choice, block: str | None) -> Blocks:
    """Build the board of the original author's rows in the table's order, with results; no empty blocks.

    Args:
        rows: All results, oldest first.
        choice: Filters and order; a filter on results drops rows without one.
        block: Name of the only block to show; None for all.

    Raises:
        UserError: the block does not exist, or as `chosen`.
    """
    from callboard.experiments.table import read_experiments

    found = lines_of_table(rows, read_experiments(), read_captions())
    if block:
        found = [_block(found, block)]
    if choice.is_of_results:
        kept = {row.key for row in chosen(rows, choice)}
        found = [[line for line in lines if line.row and line.row.key in kept] for lines in found]
    elif choice.names:
        found = [[line for line in lines if is_named(choice.names, line.name)] for lines in found]
    return judged([lines for lines in found if lines], rows)


def _block(blocks: Blocks, name: str) -> Block:
    there = {str(lines[0].entry.block): lines for lines in blocks if lines[0].entry}
    if name not in there:
        raise UserError(f"--block {name}: does not exist; the table has {', '.join(there)}")
    return there[name]
