"""The board as a table: Markdown, or on a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table as TerminalTable

from callboard.author_history import author_rows, verdict
from callboard.bases import difference, of_one_setting, started_from, table_base
from callboard.board import Row
from callboard.comparison import Difference
from callboard.params.table import Entry
from callboard.results import changes
from callboard.table import Step, Table

MISSING = "–"
OPTIMISTIC = "*"
LEGEND = (
    f"{OPTIMISTIC} CV is optimistic: the epoch was chosen on the validation fold (train.select), or "
    "pseudo-labels came from teachers that had learned from other folds' labels (pseudo.final above 0)."
)


@dataclass(frozen=True)
class Line:
    """A line of the board: a result, a row of the author's table, or both."""

    row: Row | None
    entry: Entry | None = None
    author_base: Entry | None = None
    """The row of the table that `entry` starts from."""
    step: Step | None = None
    """From the row of the table that its result is compared with."""
    base: Row | None = None
    """What `row` is compared with."""
    change: Difference | None = None
    """Of out-of-fold LWLRAP against `base`."""

    @property
    def is_against_author_base(self) -> bool:
        """Whether `base` is the table's, so that our change and the author's are changes of the same."""
        return bool(self.base and self.step and self.step.base in self.base.names)

    def metric(self, key: str) -> float | None:
        """A metric of the result."""
        return self.row.metrics.get(key) if self.row else None

    def metric_change(self, key: str) -> float | None:
        """Its change against `base`."""
        return _minus(self.metric(key), self.base.metrics.get(key) if self.base else None)

    @property
    def author_cv(self) -> float | None:
        """The author's CV."""
        return self.entry.cv if self.entry else None

    @property
    def author_lb(self) -> float | None:
        """The author's public LB."""
        return self.entry.lb if self.entry else None

    @property
    def author_cv_change(self) -> float | None:
        """Change of the author's CV against his base."""
        return _minus(self.author_cv, self.author_base.cv if self.author_base else None)

    @property
    def author_lb_change(self) -> float | None:
        """Change of the author's public LB against his base."""
        return _minus(self.author_lb, self.author_base.lb if self.author_base else None)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


Blocks = list[list[Line]]
"""Lines of the board; a gap separates the blocks."""


def lines_of_results(rows: Sequence[Row], table: Table | None) -> Blocks:
    """One block: every result, with its row of the table where one of its names is there."""
    entries = table.rows if table else {}
    block = []
    for row in rows:
        entry = next((entries[name] for name in row.names if name in entries), None)
        line = _line(row, entry, rows, table)
        block.append(line if line.base else _against(line, started_from(row, rows)))
    return [block]


def lines_of_table(rows: Sequence[Row], table: Table) -> Blocks:
    """The author's rows, block by block, with their results of one setting; then all other results."""
    blocks: dict[int | str, list[Line]] = {}
    results = of_one_setting(rows, table)
    shown = {row.key for row in results.values()}
    for entry in author_rows(table):
        blocks.setdefault(entry.block, []).append(_line(results.get(entry.name), entry, rows, table))
    others = lines_of_results([row for row in rows if row.key not in shown], table)
    return [*blocks.values(), *(block for block in others if block)]


def _line(row: Row | None, entry: Entry | None, rows: Sequence[Row], table: Table | None) -> Line:
    author_base = table.rows[entry.base] if table and entry and entry.base else None
    step = table.step(entry.name) if table and entry else None
    base = table_base(row, step, rows) if row else None
    return _against(Line(row, entry, author_base, step), base)


def _against(line: Line, base: Row | None) -> Line:
    return replace(line, base=base, change=difference(line.row, base)) if line.row and base else line


@dataclass(frozen=True)
class Column:
    """A column of the board."""

    name: str
    text: Callable[[Line], str]
    is_number: bool = False
    may_wrap: bool = False


def number(value: float | None, form: str = ".4f") -> str:
    """A score or a change of one as text."""
    return MISSING if value is None else f"{value:{form}}"


def interval(change: Difference | None) -> str:
    """A change with its interval."""
    if change is None:
        return MISSING
    between = f"{change.low:+.4f} … {change.high:+.4f}" if change.has_interval else MISSING
    return f"{change.value:+.4f} ({between})"


def probability(change: Difference | None) -> str:
    """The share of resamples in which a change is positive."""
    return f"{change.p_better:.2f}" if change and change.has_interval else MISSING


def _name(line: Line) -> str:
    if line.entry and not (line.row and line.row.name == line.entry.name):
        return line.entry.name
    return line.row.name if line.row else MISSING


def _cv(line: Line) -> str:
    return number(line.metric("cv.lwlrap")) + OPTIMISTIC * bool(line.row and line.row.is_optimistic)


def _half_width(line: Line) -> str:
    width = _minus(line.metric("cv.lwlrap_high"), line.metric("cv.lwlrap_low"))
    return number(None if width is None else width / 2)


def _base(line: Line) -> str:
    if line.step and line.is_against_author_base:
        return line.step.base
    return line.base.name if line.base else MISSING


def _changed(line: Line) -> str:
    if line.row is None:
        return MISSING
    before = line.base.params if line.base else line.row.base
    return ", ".join(changes(before, line.row.params)) if before else MISSING


def _author_cv(line: Line) -> str:
    if line.entry and line.entry.cv is None and line.entry.lb is None:
        return verdict(line.entry)
    return number(line.author_cv)


def _author_lb(line: Line) -> str:
    if line.entry and line.entry.cv is not None and line.entry.lb is None:
        return verdict(line.entry)
    return number(line.author_lb)


RESULT_COLUMNS = (
    Column("name", _name),
    Column("CV", _cv, is_number=True),
    Column("±", _half_width, is_number=True),
    Column("base", _base),
    Column("Δ CV", lambda line: interval(line.change), is_number=True),
    Column("P", lambda line: probability(line.change), is_number=True),
    Column("LB public", lambda line: number(line.metric("lb.public")), is_number=True),
    Column("LB private", lambda line: number(line.metric("lb.private")), is_number=True),
)
DESCRIPTION_COLUMNS = (
    Column("memo", lambda line: line.entry.memo_en if line.entry else "", may_wrap=True),
    Column("date", lambda line: f"{line.row.start.astimezone():%Y-%m-%d %H:%M}" if line.row else MISSING),
    Column("commit", lambda line: line.row.commit[:7] if line.row else MISSING),
)
COLUMNS: Sequence[Column] = (
    *RESULT_COLUMNS,
    Column("changed", _changed, may_wrap=True),
    *DESCRIPTION_COLUMNS,
)
AUTHOR_COLUMNS: Sequence[Column] = (
    *RESULT_COLUMNS,
    Column("author CV", _author_cv, is_number=True),
    Column("author Δ CV", lambda line: number(line.author_cv_change, "+.4f"), is_number=True),
    Column("author LB", _author_lb, is_number=True),
    Column("author Δ LB", lambda line: number(line.author_lb_change, "+.3f"), is_number=True),
    *DESCRIPTION_COLUMNS,
)


def as_markdown(blocks: Blocks, columns: Sequence[Column] = COLUMNS) -> str:
    """A Markdown table with an empty line of cells between blocks, and the legend where it is needed."""
    bodies = [[[column.text(line) for column in columns] for line in block] for block in blocks]
    gap = [[""] * len(columns)]
    cells = [row for number, body in enumerate(bodies) for row in (gap * bool(number) + body)]
    table = markdown_table(
        [column.name for column in columns], cells, [column.is_number for column in columns]
    )
    return f"{table}\n\\{LEGEND}\n" if _has_optimistic(blocks) else table


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]], is_number: Sequence[bool]) -> str:
    """Columns padded so that the plain text reads as a table too."""
    lines = [list(header), *([cell.replace("|", r"\|") for cell in line] for line in cells)]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(header))]
    rule = [
        "-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, is_number, strict=True)
    ]
    padded = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _has_optimistic(blocks: Blocks) -> bool:
    return any(line.row.is_optimistic for block in blocks for line in block if line.row)


def print_table(blocks: Blocks, console: Console, columns: Sequence[Column] = COLUMNS) -> None:
    """The same table for a terminal."""
    n_results = len({line.row.key or line.row.name for block in blocks for line in block if line.row})
    table = TerminalTable(title=f"{n_results} result{'s' * (n_results != 1)}", title_justify="left")
    for column in columns:
        table.add_column(
            column.name, justify="right" if column.is_number else "left", no_wrap=not column.may_wrap
        )
    for block in blocks:
        for line in block:
            table.add_row(*(column.text(line) for column in columns))
        table.add_section()
    console.print(table)
    if _has_optimistic(blocks):
        console.print(LEGEND)
