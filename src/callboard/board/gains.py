"""Rows of the table over all seeds that they were run with, and what each gains over its base."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean

from callboard.better.difference import Difference
from callboard.better.noise import (
    CV,
    METRICS,
    Judgement,
    NoiseOfRows,
    all_but_seed,
    judge,
    judge_lb,
    warned,
)
from callboard.better.noise_lines import HEADS
from callboard.better.over_seeds import N_LEAST, judge_changes, judge_cv, sd
from callboard.better.remembered import mean_difference, work_out
from callboard.board.bases import same_truth, table_base
from callboard.board.choice import is_named
from callboard.board.columns import MARKS, MISSING, interval, mark_of, number
from callboard.board.table import markdown_table
from callboard.errors import UserError
from callboard.runs.captions import Caption
from callboard.runs.rows import Row
from callboard.steps import Step
from callboard.words import counted

LEGEND = (
    "Means over seeds, in brackets the standard deviation of one. A change is the mean over those seeds that "
    "the base was run with too; of CV its 95 % interval holds recordings and seeds, of LB seeds alone."
)
ONE_SEED = (
    "With one seed, intervals take what another seed does from other rows; without any, of recordings alone."
)


@dataclass(frozen=True)
class Gain:
    """One row of the table."""

    name: str
    rows: list[Row]
    """Its results, by seed."""
    base: str = ""
    """Name of the row that it is compared with."""
    pairs: list[tuple[Row, Row]] = field(default_factory=list)
    """Results and their base's, as far as both were run with a seed."""
    changes: dict[str, Difference] = field(default_factory=dict)
    """Metric to its mean change over pairs."""
    judgements: dict[str, Judgement] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The verdict on CV."""
        found = self.judgements.get(CV)
        return found.word if found else MISSING


def gains_of(
    rows: Sequence[Row], captions: Mapping[str, Caption], patterns: Sequence[str] = (), against: str = ""
) -> tuple[list[Gain], int]:
    """Rows of the table that have results, in its order.

    Args:
        rows: All results, oldest first.
        captions: By name of a row of the table.
        patterns: As `choice.is_named` takes them; none for all rows.
        against: The row that all are compared with; empty for each with its base in the table.

    Returns:
        The rows, and how many of their results were left out, because a newer one of the row has other
        parameters or data.

    Raises:
        UserError: `against` is no row with results.
    """
    results, n_others = _results_by_row(rows, captions)
    if against and against not in results:
        raise UserError(f"{against} is no row of experiments.yaml that has results; {' '.join(results)} are")
    found = {name: of_row for name, of_row in results.items() if is_named(patterns, name)}
    if against:
        based = {name: _by_seed(of_row, results[against]) for name, of_row in found.items()}
    else:
        based = {name: _by_table(of_row, captions[name].step, rows) for name, of_row in found.items()}
    work_out(pair for pairs in based.values() for pair in pairs)
    noise = NoiseOfRows(rows)
    gains = []
    for name, of_row in found.items():
        step = captions[name].step
        base = against or (step.base if step else "")
        gains.append(_gain(name, of_row, base, based[name], noise))
    return gains, sum(n_others[name] for name in found)


def _results_by_row(
    rows: Sequence[Row], captions: Mapping[str, Caption]
) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """By name of a row its results by seed, of the newest one's setting; and how many others there are."""
    named: dict[str, list[Row]] = {name: [] for name in captions}
    for row in rows:
        for name in named.keys() & set(row.table_names) if isfinite(row.metrics.get(CV, nan)) else ():
            named[name].append(row)
    found, n_others = {}, {}
    for name, results in named.items():
        if results:
            alike = [row for row in results if _setting(row) == _setting(results[-1])]
            by_seed = {row.params.get("seed", ""): row for row in alike}
            found[name] = [by_seed[seed] for seed in sorted(by_seed, key=_as_number)]
            n_others[name] = len(results) - len(alike)
    return found, n_others


def _setting(row: Row) -> tuple[tuple[str, str], frozenset[tuple[str, str]]]:
    return row.measured_on, all_but_seed(row.params)


def _as_number(seed: str) -> int:
    return int(seed or 0)


def _by_table(results: Iterable[Row], step: Step | None, rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each with the result of its base in the table that differs from it in nothing else."""
    found = ((row, table_base(row, step, rows)) for row in results)
    return [(row, base) for row, base in found if base]


def _by_seed(results: Iterable[Row], others: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Each with the result of another row that has its seed."""
    bases = {row.params.get("seed", ""): row for row in others}
    found = ((row, bases.get(row.params.get("seed", ""))) for row in results)
    return [(row, base) for row, base in found if base and base.key != row.key and same_truth(row, base)]


def _gain(
    name: str, rows: list[Row], base_name: str, pairs: list[tuple[Row, Row]], noise: NoiseOfRows
) -> Gain:
    if not pairs:
        return Gain(name, rows)
    row, base = pairs[-1]
    changes = {key: change for key in METRICS if (change := _change(pairs, key))}
    between = noise.between(row, base)
    judgements = {}
    for key, change in changes.items():
        several = _values(pairs, key)
        if len(several) < N_LEAST:
            found = judge(change, between) if key == CV else judge_lb(change.value, key, between)
        else:
            found = judge_cv(pairs) if key == CV else judge_changes(several)
        if found:
            judgements[key] = (warned(found, row, base) or found) if key == CV else found
    return Gain(name, rows, base_name, pairs, changes, judgements)


def _change(pairs: list[tuple[Row, Row]], key: str) -> Difference | None:
    if key == CV:
        return mean_difference(pairs)
    values = _values(pairs, key)
    return Difference(fmean(values)) if values else None


def _values(pairs: list[tuple[Row, Row]], key: str) -> list[float]:
    """Changes of a metric, of those pairs that have it."""
    found = [row.metrics.get(key, nan) - base.metrics.get(key, nan) for row, base in pairs]
    return [change for change in found if isfinite(change)]


def gains_text(gains: Sequence[Gain], n_left_out: int = 0) -> str:
    """A Markdown table, and what stands in it."""
    heads = ["row", "seeds", *(f"{head} (sd)" for head in HEADS.values())]
    heads += ["base", "Δ CV", "verdict", *(f"Δ {HEADS[key]}" for key in METRICS[1:])]
    is_text = {"row", "base", "verdict"}
    table = markdown_table(heads, list(map(_cells, gains)), [head not in is_text for head in heads])
    notes = [LEGEND, *(MARKS[mark] for mark in MARKS if any(_mark(gain) == mark for gain in gains))]
    if any(len(gain.pairs) == 1 for gain in gains):
        notes.append(ONE_SEED)
    if n_left_out:
        others = counted(n_left_out, "result")
        notes.append(f"Left out: {others} of other data or parameters than the newest of its row.")
    return table + "".join(f"\n{note.replace('*', chr(92) + '*')}\n" for note in notes)


def _cells(gain: Gain) -> list[str]:
    scores = [_score(gain, key) for key in METRICS]
    changes = [interval(gain.changes.get(key), gain.judgements.get(key)) for key in METRICS]
    n_seeds = (
        f"{len(gain.rows)}"
        if len(gain.pairs) in (0, len(gain.rows))
        else f"{len(gain.pairs)} of {len(gain.rows)}"
    )
    return [gain.name, n_seeds, *scores, gain.base or MISSING, changes[0], gain.word, *changes[1:]]


def _score(gain: Gain, key: str) -> str:
    values = [row.metrics[key] for row in gain.rows if isfinite(row.metrics.get(key, nan))]
    if not values:
        return MISSING
    spread = sd(values)
    told = number(fmean(values)) + (_mark(gain) if key == CV else "")
    return told if spread is None else f"{told} ({spread:.4f})"


def _mark(gain: Gain) -> str:
    return mark_of(gain.rows[-1])
