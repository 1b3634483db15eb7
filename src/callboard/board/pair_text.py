"""The change from one result to another as text: for a terminal, which is Markdown that reads as it is."""

from collections.abc import Sequence
from math import isnan

from callboard.better.difference import SpeciesDifference
from callboard.better.noise import Judgement
from callboard.board.columns import interval, number
from callboard.board.pair import Metric, Pair
from callboard.board.table import markdown_table
from callboard.runs.cv_metrics import meanings

N_SPECIES = 8
"""Species shown where not all are asked for."""

ONLY_COUNTED = ("cv.n_recordings",)
"""Metrics that are whole numbers."""


def pair_markdown(pair: Pair, is_whole: bool) -> str:
    """Verdict, parameters, metrics and species.

    Args:
        pair: The results.
        is_whole: All species, not only those that changed most.
    """
    parts = [
        f"# {pair.a.name} → {pair.b.name}\n",
        f"{verdict(pair)}\n",
        "## Parameters\n\n" + ("".join(f"- {text}\n" for text in pair.params) or "None differs.\n"),
        "## Metrics\n\n" + _metrics(pair),
        "## Species\n\n"
        + _species(pair.species if is_whole else pair.species[:N_SPECIES], len(pair.species)),
    ]
    return "\n".join(parts)


def verdict(pair: Pair) -> str:
    """The judgement in a sentence, with its interval and probability."""
    if pair.change is None or pair.judgement is None:
        return "One of the two has no CV."
    chance = number(pair.judgement.p_better, ".2f")
    optimistic = " and ".join(row.name for row in (pair.a, pair.b) if row.is_optimistic)
    told = f"{pair.b.name} is {WORDS[pair.judgement.word.rstrip('?')].format(optimistic)}"
    doubt = "; seeds are not measured well enough to be sure" * _is_doubtful(pair.judgement)
    return f"CV {interval(pair.change, pair.judgement)}, P(better) {chance}: {told}{doubt}."


def _is_doubtful(judgement: Judgement) -> bool:
    return judgement.word.endswith("?") or not judgement.has_seeds


WORDS = {
    "better": "better than can be chance",
    "worse": "worse than can be chance",
    "within noise": "within noise of it",
    "unsure": "not to be judged: a table of scores is not in DVC's cache",
    "optimistic": "not to be judged: the CV of {} is optimistic, it saw labels that it is measured on",
}


def metric_cells(pair: Pair, metric: Metric) -> list[str]:
    """Key, both values, change, and what the noise says of a change on the leaderboard."""
    form = ".0f" if metric.key in ONLY_COUNTED else ".4f"
    judgement = pair.lb_judgements.get(metric.key)
    return [
        metric.key,
        number(metric.a, form),
        number(metric.b, form),
        number(metric.change, f"+{form}"),
        judgement.word
        if judgement
        else pair.judgement.word
        if pair.judgement and metric.key == "cv.lwlrap"
        else "",
    ]


def species_cells(one: SpeciesDifference) -> list[str]:
    """Species, recordings, both values and the change with its interval."""
    between = "–" if isnan(one.low) else f"{one.low:+.4f} … {one.high:+.4f}"
    return [one.species, str(one.n), number(one.b), number(one.a), f"{one.value:+.4f} ({between})"]


METRIC_HEADER = ("metric", "before", "after", "change", "verdict")
SPECIES_HEADER = ("species", "recordings", "before", "after", "change (95 %)")


def _metrics(pair: Pair) -> str:
    cells = [metric_cells(pair, metric) for metric in pair.metrics]
    table = markdown_table(METRIC_HEADER, cells, [False, True, True, True, False])
    told = meanings(metric.key for metric in pair.metrics)
    return f"{table}\n{told}.\n" if told else table


def _species(shown: Sequence[SpeciesDifference], n_all: int) -> str:
    if not shown:
        return "Not known: a table of scores is not in DVC's cache.\n"
    left = f"\n{n_all - len(shown)} more with --all.\n" if len(shown) < n_all else ""
    return (
        "Mean precision at the rank of each confirmed call, which LWLRAP averages.\n\n"
        + markdown_table(
            SPECIES_HEADER, [species_cells(one) for one in shown], [False, True, True, True, True]
        )
        + left
    )
