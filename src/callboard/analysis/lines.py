"""Lines of the board: each result with the result that it is compared with, and the verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import TYPE_CHECKING

from callboard.analysis.bases import Bases
from callboard.analysis.difference import Difference
from callboard.analysis.differences import difference, work_out
from callboard.analysis.seed_noise import NoiseOfRows, seed_pairs
from callboard.analysis.verdict import Judgement, flag_optimistic, judge, judge_lb
from callboard.core.console import MISSING
from callboard.experiments.captions import Caption
from callboard.experiments.steps import TableStep
from callboard.params.references import PLACES
from callboard.results.rows import CV, BoardRow, same_truth

if TYPE_CHECKING:
    from callboard.experiments.table import ExperimentTable, TableRow


@dataclass(frozen=True)
class BoardLine:
    """A line of the board: a result, a row of the original author's table, or both."""

    row: BoardRow | None
    entry: "TableRow | None" = None
    author_base: "TableRow | None" = None
    """Row of the table that `entry` starts from."""
    step: TableStep | None = None
    """Step from the row of the table whose result this one is compared with."""
    base: BoardRow | None = None
    """Result that `row` is compared with."""
    change: Difference | None = None
    """Change of out-of-fold LWLRAP from `base`."""
    memo: str = ""
    """Memo from experiments.yaml, else a person's note in MLflow."""
    best: BoardRow | None = None
    """Best result of the same data and groups, see `best_of`."""
    best_change: Difference | None = None
    """Change of out-of-fold LWLRAP from `best`."""
    judgement: Judgement | None = None
    """Judgement of `change`."""
    lb_judgement: Judgement | None = None
    """Judgement of the change of the public leaderboard score from `base`."""

    @property
    def name(self) -> str:
        """Name of the original author's row, else of the result."""
        if self.entry and not (self.row and self.row.name == self.entry.name):
            return self.entry.name
        return self.row.name if self.row else MISSING

    @property
    def is_against_author_base(self) -> bool:
        """Whether `base` is the table's, so that our change and the original author's are of the same row."""
        return bool(self.base and self.step and self.step.base in self.base.table_names)

    def metric(self, key: str) -> float | None:
        """Return a metric of the result; None if it has none."""
        return self.row.metrics.get(key) if self.row else None

    def metric_change(self, key: str) -> float | None:
        """Return the change of a metric from `base`; None if either has none."""
        return _minus(self.metric(key), self.base.metrics.get(key) if self.base else None)

    @property
    def author_cv(self) -> float | None:
        """The original author's CV."""
        return self.entry.cv if self.entry else None

    @property
    def author_lb(self) -> float | None:
        """The original author's public LB."""
        return self.entry.lb if self.entry else None

    @property
    def author_cv_change(self) -> float | None:
        """Change of the original author's CV from that of the base."""
        return _minus(self.author_cv, self.author_base.cv if self.author_base else None)

    @property
    def author_lb_change(self) -> float | None:
        """Change of the original author's public LB from that of the base."""
        return _minus(self.author_lb, self.author_base.lb if self.author_base else None)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


Block = list[BoardLine]
Blocks = list[Block]
"""Lines of the board; a gap separates the blocks."""


def lines_of_results(
    rows: Sequence[BoardRow], captions: Mapping[str, Caption], shown: Sequence[BoardRow] | None = None
) -> Blocks:
    """Build one block, a line for every result.

    Args:
        rows: All results, oldest first, in which bases are searched.
        captions: Captions by name of an experiment.
        shown: Results that get a line, in this order; all of them if None.
    """
    bases = Bases(rows)
    return [_compared([_result_line(row, bases, captions) for row in (rows if shown is None else shown)])]


def result_line(row: BoardRow, rows: Sequence[BoardRow], captions: Mapping[str, Caption]) -> BoardLine:
    """Build the line of a result with its base: that of its row of the table, else its starting point."""
    return _compared([_result_line(row, Bases(rows), captions)])[0]


def _result_line(row: BoardRow, bases: Bases, captions: Mapping[str, Caption]) -> BoardLine:
    caption = next((captions[name] for name in row.table_names if name in captions), Caption("", None))
    base = bases.in_table(row, caption.step) or bases.start_of(row)
    return BoardLine(row, step=caption.step, base=base, memo=caption.memo or row.note)


def lines_of_table(
    rows: Sequence[BoardRow], table: "ExperimentTable", captions: Mapping[str, Caption]
) -> Blocks:
    """Build lines of the original author's rows, by block, with results of one setting; then all others."""
    from callboard.experiments.author_scores import author_rows

    blocks: dict[int | str, list[BoardLine]] = {}
    results = of_one_setting(rows, table)
    shown = {row.key for row in results.values()}
    bases = Bases(rows)
    for entry in author_rows(table):
        blocks.setdefault(entry.block, []).append(_entry_line(results.get(entry.name), entry, bases, table))
    others = lines_of_results(rows, captions, [row for row in rows if row.key not in shown])
    return [*map(_compared, blocks.values()), *(block for block in others if block)]


def _entry_line(row: BoardRow | None, entry: "TableRow", bases: Bases, table: "ExperimentTable") -> BoardLine:
    author_base = table.rows[entry.base] if entry.base else None
    step = table.step(entry.name)
    base = bases.in_table(row, step) if row else None
    return BoardLine(row, entry, author_base, step, base, memo=entry.memo_en)


def _compared(block: Block) -> Block:
    """Add the changes from the bases."""
    work_out((line.row, line.base) for line in block if line.row and line.base)
    return [
        replace(line, change=difference(line.row, line.base)) if line.row and line.base else line
        for line in block
    ]


Contest = tuple[str, str]
"""Data and `split.group` of results, of which the one with the highest CV is the best."""


def contest(row: BoardRow) -> Contest:
    """Return the contest that a result is in: CVs of different ones answer different questions."""
    return row.data_md5, row.split_group


def best_of(rows: Sequence[BoardRow]) -> dict[Contest, BoardRow]:
    """Map a contest to its result with the highest CV that is not optimistic; the older of equal ones."""
    best: dict[Contest, BoardRow] = {}
    for row in rows:
        cv = row.metrics.get(CV, nan)
        if isfinite(cv) and not row.is_optimistic:
            known = best.setdefault(contest(row), row)
            if cv > known.metrics[CV]:
                best[contest(row)] = row
    return best


def judged(blocks: Blocks, rows: Sequence[BoardRow]) -> Blocks:
    """Add verdicts by the noise among all results, and changes from the best."""
    noise, best = NoiseOfRows(rows), best_of(rows)
    shown = [line.row for block in blocks for line in block if line.row]
    data = {row.data_md5 for row in shown}
    to_best = [(row, top) for row in shown if (top := best.get(contest(row))) and _is_held_against(row, top)]
    work_out([*to_best, *seed_pairs(row for row in rows if row.data_md5 in data)])
    return [
        [_judged(line, line.row, noise, best) if line.row else line for line in block] for block in blocks
    ]


def _is_held_against(row: BoardRow, top: BoardRow) -> bool:
    return row.key != top.key and same_truth(row, top)


def judged_line(row: BoardRow, rows: Sequence[BoardRow], captions: Mapping[str, Caption]) -> BoardLine:
    """Build the line of one result, with its verdict.

    Args:
        row: The result.
        rows: All results, oldest first.
        captions: Captions by name of an experiment.
    """
    ((line,),) = judged([[result_line(row, rows, captions)]], rows)
    return line


def _judged(
    line: BoardLine, row: BoardRow, noise: NoiseOfRows, best: Mapping[Contest, BoardRow]
) -> BoardLine:
    top, own = best.get(contest(row)), noise.between(row, line.base)
    judgement = judge(line.change, own)
    return replace(
        line,
        best=top,
        best_change=difference(row, top) if top and _is_held_against(row, top) else None,
        judgement=flag_optimistic(judgement, row, line.base) if line.base else judgement,
        lb_judgement=judge_lb(line.metric_change("lb.public"), "lb.public", own),
    )


def of_one_setting(rows: Sequence[BoardRow], table: "ExperimentTable") -> dict[str, BoardRow]:
    """Map each row of the table to its newest result, all of the one setting that most results have.

    A setting is all that the table leaves to the workspace: data, annotations, seed, epochs, folds.

    Args:
        rows: All results, oldest first.
        table: The original author's table.
    """
    named = [(name, row) for row in rows for name in row.names if name in table.rows]
    settings = [(name, row, _setting_left_alone(name, row, table)) for name, row in named]
    counted = Counter(setting for name, _, setting in reversed(settings) if not table.rows[name].alone)
    if not counted:
        return {}
    (common, _), *_ = counted.most_common()  # the newest of equally common ones
    return {name: row for name, row, setting in settings if setting <= common}


def _setting_left_alone(name: str, row: BoardRow, table: "ExperimentTable") -> frozenset[tuple[str, str]]:
    left_alone = {key for key in row.params.keys() - PLACES if table.leaves_alone(key, name)}
    own = {(key, row.params[key]) for key in left_alone}
    return frozenset(own | {("data", row.data_md5), ("clips", row.clips_md5)})
