"""Rows over their seeds as a Markdown table."""

from collections.abc import Sequence
from statistics import fmean, stdev

from callboard.better.noise import HEADS, METRICS
from callboard.better.over_seeds import MIN_PAIRS
from callboard.board.columns import interval, number
from callboard.board.gains import Gain
from callboard.board.table import legend_markdown, markdown_table
from callboard.runs.marks import MARKS, mark_of
from callboard.runs.settings import CV
from callboard.words import MISSING, counted, listed

LEGEND = (
    "Means over seeds, in brackets the standard deviation of one. A change is the mean over those seeds that "
    "the base was run with too; of CV its 95 % interval holds recordings and seeds, of LB seeds alone."
)
ONE_SEED = (
    "One seed cannot show what seeds do: in intervals of a row with one, it is taken from rows that have "
    "several; where none has, they hold recordings alone."
)
TEXT_COLUMNS = ("row", "base", "CV is")


def gains_markdown(gains: Sequence[Gain], without: Sequence[str] = ()) -> str:
    """The table, and what stands in it.

    Args:
        gains: Lines of the table.
        without: Names of rows that were asked for and have no result.
    """
    heads = ["row", "seeds", *(f"{head} (sd)" for head in HEADS.values()), "base", "CV is"]
    heads += [f"Δ {head}" for head in HEADS.values()]
    table = markdown_table(heads, list(map(_cells, gains)), [head not in TEXT_COLUMNS for head in heads])
    return table + legend_markdown(_notes(gains, without))


def _notes(gains: Sequence[Gain], without: Sequence[str]) -> list[str]:
    marks = {_mark(gain) for gain in gains}
    notes = [LEGEND, *(words for mark, words in MARKS.items() if mark in marks)]
    if any(len(gain.pairs) == 1 for gain in gains):
        notes.append(ONE_SEED)
    if n_others := sum(gain.n_others for gain in gains):
        others = counted(n_others, "result")
        notes.append(f"Left out: {others} of other data or parameters than the newest of the row.")
    if without:
        notes.append(f"No result: {listed(without)}.")
    return notes


def _cells(gain: Gain) -> list[str]:
    n_rows, n_pairs = len(gain.rows), len(gain.pairs)
    judgement = gain.judgements.get(CV)
    return [
        gain.name,
        str(n_rows) if n_pairs in (0, n_rows) else f"{n_pairs} of {n_rows}",
        *(_score(gain, key) for key in METRICS),
        gain.base or MISSING,
        judgement.word if judgement else MISSING,
        *(interval(gain.changes.get(key), gain.judgements.get(key)) for key in METRICS),
    ]


def _score(gain: Gain, key: str) -> str:
    values = gain.values(key)
    if not values:
        return MISSING
    told = number(fmean(values)) + (_mark(gain) if key == CV else "")
    return f"{told} ({stdev(values):.4f})" if len(values) >= MIN_PAIRS else told


def _mark(gain: Gain) -> str:
    """The gravest of its results' marks: of MARKS the last."""
    marks = {mark_of(row) for row in gain.rows}
    return next((mark for mark in reversed(MARKS) if mark in marks), "")
