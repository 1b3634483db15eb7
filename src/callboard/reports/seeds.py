"""Gains of rows over their seeds as a Markdown table, and the noise of one setting for a terminal."""

from collections.abc import Sequence
from math import isfinite
from statistics import fmean, stdev

from callboard.analysis.gains import Gain
from callboard.analysis.seed_noise import (
    JUDGED_METRICS,
    MIN_DOF,
    SCORE_HEADINGS,
    SeedNoise,
    seed_noise,
    trained_alike,
)
from callboard.analysis.verdict import MIN_PAIRS, least_change
from callboard.core.console import MISSING, counted, listed
from callboard.reports.text import (
    LB_LEGENDS,
    UNLIKE_LEGEND,
    interval_text,
    lb_change_text,
    lb_mark,
    legend_markdown,
    markdown_table,
    number,
    unlike_mark,
    unlike_parts,
    verdict_word,
)
from callboard.results.rows import CV, MARKS, BoardRow, mark_of

GAINS_LEGEND = (
    "Each score is the mean over seeds, with their standard deviation (sd) in brackets. Δ is the mean "
    "difference from the base, over the seeds that both have. Its 95 % interval covers the choice of "
    "recordings and seeds for CV, and seeds alone for LB."
)
ONE_SEED = (
    "One seed cannot show how much seeds change a score. The interval of a row with one seed uses the spread "
    "of rows with several; if there are none, it covers the choice of recordings alone."
)
TWO_SEEDS = (
    "Two seeds are too few to be certain, so the verdict has a question mark: in simulations, up to 8 % of "
    "equal rows were called different instead of 5 %. Run the row and its base with a third seed."
)
TEXT_COLUMNS = ("row", "base", "CV is")


def gains_markdown(gains: Sequence[Gain], without: Sequence[str] = ()) -> str:
    """Build the table and its legend.

    Args:
        gains: Rows of the table.
        without: Names of requested rows that have no result.
    """
    heads = ["row", "seeds", *(f"{head} (sd)" for head in SCORE_HEADINGS.values()), "base", "CV is"]
    heads += [f"Δ {head}" for head in SCORE_HEADINGS.values()]
    table = markdown_table(heads, list(map(_cells, gains)), [head not in TEXT_COLUMNS for head in heads])
    return table + legend_markdown(_notes(gains, without))


def _notes(gains: Sequence[Gain], without: Sequence[str]) -> list[str]:
    marks = {_mark(gain) for gain in gains}
    notes = [GAINS_LEGEND, *(words for mark, words in MARKS.items() if mark in marks)]
    lb_marks = {lb_mark(gain.judgements.get(key)) for gain in gains for key in JUDGED_METRICS if key != CV}
    notes += [legend for mark, legend in LB_LEGENDS.items() if mark in lb_marks]
    if any(map(_unlike_mark, gains)):
        notes.append(UNLIKE_LEGEND)
    if any(len(gain.pairs) == 1 for gain in gains):
        notes.append(ONE_SEED)
    if any(_is_tentative(gain) for gain in gains if len(gain.pairs) >= MIN_PAIRS):
        notes.append(TWO_SEEDS)
    if n_others := sum(gain.n_others for gain in gains):
        others = counted(n_others, "result")
        notes.append(f"Left out: {others} whose data or parameters differ from the newest result of the row.")
    if without:
        notes.append(f"Rows without a result: {listed(without)}.")
    return notes


def _is_tentative(gain: Gain) -> bool:
    """Return whether the verdict on CV has a question mark."""
    judgement = gain.judgements.get(CV)
    return judgement is not None and judgement.is_tentative


def _cells(gain: Gain) -> list[str]:
    n_rows, n_pairs = len(gain.rows), len(gain.pairs)
    return [
        gain.name,
        str(n_rows) if n_pairs in (0, n_rows) else f"{n_pairs} of {n_rows}",
        *(_score(gain, key) for key in JUDGED_METRICS),
        gain.base or MISSING,
        verdict_word(gain.judgements.get(CV)) + _unlike_mark(gain),
        *(_change(gain, key) for key in JUDGED_METRICS),
    ]


def _unlike_mark(gain: Gain) -> str:
    """Return the mark of a gain if a pair was not trained alike."""
    return next((mark for row, base in gain.pairs if (mark := unlike_mark(row, base))), "")


def _change(gain: Gain, key: str) -> str:
    judgement = gain.judgements.get(key)
    text = interval_text(gain.changes.get(key), judgement)
    return text if key == CV else lb_change_text(text, judgement)


def _score(gain: Gain, key: str) -> str:
    values = gain.values(key)
    if not values:
        return MISSING
    mean = number(fmean(values)) + (_mark(gain) if key == CV else "")
    return f"{mean} ({stdev(values):.4f})" if len(values) >= MIN_PAIRS else mean


def _mark(gain: Gain) -> str:
    """Return the most serious mark of its results, which is the last in MARKS."""
    marks = {mark_of(row) for row in gain.rows}
    return next((mark for mark in reversed(MARKS) if mark in marks), "")


def noise_lines(name: str, runs: Sequence[BoardRow]) -> list[str]:
    """Describe each run's scores, their spread, and what it means for a difference.

    Args:
        name: Name of the group of runs.
        runs: Runs that differ in nothing but the seed.
    """
    noise, parts = seed_noise(runs), trained_alike(runs)
    if noise is None:
        alike = " of runs trained alike" * (len(parts) > 1)
        return [f"{name}: {counted(len(runs), 'finished run')}; noise needs two seeds{alike}"]
    differ = "the seed and in what trained them" if len(parts) > 1 else "nothing but the seed"
    chosen = "groups of recordings" if noise.n_groups else "recordings"
    title = f"{name}: {len(runs)} runs that differ in {differ}"
    body = [
        _line(row.params["seed"], row.metrics, ".4f") + "  " + (row.names or (row.name,))[0] for row in runs
    ]
    return [
        title,
        _line("seed", SCORE_HEADINGS),
        *body,
        _line("sd of a run", noise.sd, ".4f"),
        _line("range", {key: _range(runs, key) for key in JUDGED_METRICS}, ".4f"),
        "",
        f"A difference of CV has a standard error of {noise.recordings:.4f} from the choice of {chosen} "
        f"and of {noise.beyond:.4f} from seeds beyond that.",
        *(_meaning(noise, key) for key in JUDGED_METRICS if key in noise.sd),
        *_unlike_runs(parts),
        *_caution(noise),
    ]


def _line(label: str, values: dict[str, float] | dict[str, str], form: str = "") -> str:
    cells = [format(values[key], form) if key in values else MISSING for key in JUDGED_METRICS]
    return f"{label:>12}" + "".join(f"{cell:>12}" for cell in cells)


def _range(runs: Sequence[BoardRow], key: str) -> float:
    values = [row.metrics[key] for row in runs if key in row.metrics and isfinite(row.metrics[key])]
    return max(values) - min(values) if values else float("nan")


def _meaning(noise: SeedNoise, key: str) -> str:
    return (
        f"A difference of {SCORE_HEADINGS[key]} below {least_change(noise, key):.3f} between two separate "
        "runs is within noise."
    )


def _unlike_runs(parts: Sequence[Sequence[BoardRow]]) -> list[str]:
    """Explain that only runs trained alike were compared; nothing if all were.

    Args:
        parts: From `trained_alike`.
    """
    if len(parts) < 2:
        return []
    sides = [rows[0].computed_by for rows in parts if rows[0].computed_by]
    return [
        f"The runs were trained with {unlike_parts(*sides)}.",
        "The sd is that among runs trained alike; the range is that of all runs.",
    ]


def _caution(noise: SeedNoise) -> list[str]:
    if noise.dof >= MIN_DOF:
        return []
    return [f"{noise.n_runs} seeds say little: the true spread may be several times larger or smaller."]
