"""The change from one result to another, as Markdown (also for terminals) and as an HTML page."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from markupsafe import Markup

from callboard.analysis.difference import SpeciesDifference
from callboard.analysis.pair import Metric, Pair
from callboard.analysis.verdict import Verdict
from callboard.reports.cv_question import question_sentence
from callboard.reports.text import (
    interval_text,
    markdown_table,
    number,
    page,
    unlike_text,
    verdict_tone,
    verdict_word,
)
from callboard.results.cv_metrics import meanings
from callboard.results.rows import CV

if TYPE_CHECKING:
    from callboard.reports.result_page.figures import Curve
    from callboard.results.result import Result

N_SPECIES = 8
"""Number of species shown unless all are requested."""

ONLY_COUNTED = ("cv.n_recordings", "cv.n_groups")
"""Metrics that are whole numbers."""


def pair_markdown(pair: Pair, is_whole: bool) -> str:
    """Describe verdict, parameters, metrics and species.

    Args:
        pair: The results.
        is_whole: Whether to list all species, not only those that changed most.
    """
    parts = [
        f"# {pair.a.name} → {pair.b.name}\n",
        f"{verdict_sentence(pair)}\n",
        "## Parameters\n\n" + ("".join(f"- {text}\n" for text in pair.params) or "They do not differ.\n"),
        "## Metrics\n\n" + _metrics(pair),
        "## Species\n\n"
        + _species(pair.species if is_whole else pair.species[:N_SPECIES], len(pair.species)),
    ]
    return "\n".join(parts)


def verdict_sentence(pair: Pair) -> str:
    """Write the judgement as a sentence, with its interval and probability."""
    if pair.change is None or pair.judgement is None:
        return "One of the two results has no CV."
    chance = number(pair.judgement.p_better, ".2f")
    optimistic = " and ".join(row.name for row in (pair.a, pair.b) if row.is_optimistic)
    sentence = SENTENCES[pair.judgement.verdict].format(base=pair.a.name, optimistic=optimistic)
    is_doubtful = pair.judgement.is_tentative or not pair.judgement.has_seeds
    doubt = "; too few seeds were measured to be sure" * is_doubtful
    change = interval_text(pair.change, pair.judgement)
    unlike = unlike_text(pair.b, pair.a)
    trained = f" They were {unlike}." if unlike else ""
    question = question_sentence(pair.a, pair.b)
    return f"CV {change}, P(better) {chance}: {pair.b.name} is {sentence}{doubt}.{trained} {question}"


SENTENCES = {
    Verdict.BETTER: "better by more than chance",
    Verdict.WORSE: "worse by more than chance",
    Verdict.WITHIN_NOISE: "within noise of {base}",
    Verdict.UNSURE: "not judged: a table of scores is missing from DVC's cache",
    Verdict.OPTIMISTIC: "not judged: the CV of {optimistic} is optimistic, it saw labels that it is measured "
    "on",
}


def metric_cells(pair: Pair, metric: Metric) -> list[str]:
    """Return key, both values, their change, and the verdict where there is one, under METRIC_HEADER."""
    form = ".0f" if metric.key in ONLY_COUNTED else ".4f"
    judgement = pair.judgement if metric.key == CV else pair.lb_judgements.get(metric.key)
    return [
        metric.key,
        number(metric.a, form),
        number(metric.b, form),
        number(metric.change, f"+{form}"),
        verdict_word(judgement) if judgement else "",
    ]


def species_cells(one: SpeciesDifference) -> list[str]:
    """Return species, recordings, both values and the change with its interval, under SPECIES_HEADER."""
    between = "–" if isnan(one.low) else f"{one.low:+.4f} … {one.high:+.4f}"
    return [one.species, str(one.n), number(one.b), number(one.a), f"{one.value:+.4f} ({between})"]


METRIC_HEADER = ("metric", "before", "after", "change", "verdict")
SPECIES_HEADER = ("species", "recordings", "before", "after", "change (95 %)")


def _metrics(pair: Pair) -> str:
    cells = [metric_cells(pair, metric) for metric in pair.metrics]
    table = markdown_table(METRIC_HEADER, cells, [False, True, True, True, False])
    known = meanings(metric.key for metric in pair.metrics)
    return f"{table}\n{known}.\n" if known else table


def _species(shown: Sequence[SpeciesDifference], n_all: int) -> str:
    if not shown:
        return "Unknown: a table of scores is missing from DVC's cache.\n"
    left = f"\n{n_all - len(shown)} more with --all.\n" if len(shown) < n_all else ""
    return (
        "Mean precision at the rank of each confirmed call, which LWLRAP averages.\n\n"
        + markdown_table(
            SPECIES_HEADER, [species_cells(one) for one in shown], [False, True, True, True, True]
        )
        + left
    )


def pair_html(pair: Pair, results: "tuple[Result | None, Result | None]") -> str:
    """Build the page, with all species.

    Args:
        pair: The results.
        results: The same results with their files, for the curves; None where git has lost them.
    """
    from callboard.reports.result_page.figures import draw_curves

    known = [
        (row.name, _labelled(result.curves))
        for row, result in zip((pair.a, pair.b), results, strict=True)
        if result and any(result.curves.values())
    ]
    every = [epochs for _, folds in known for epochs in folds.values()]
    curves = [
        (name, draw_curves(folds, "loss", "training loss", f"curves{place}", every))
        for place, (name, folds) in enumerate(known)
    ]
    return page(
        "diff.html.j2",
        pair=pair,
        word=verdict_word(pair.judgement) if pair.judgement else "",
        tone=verdict_tone(pair.judgement),
        verdict=verdict_sentence(pair),
        metric_header=METRIC_HEADER,
        metrics=[metric_cells(pair, metric) for metric in pair.metrics],
        species_header=SPECIES_HEADER,
        species=[species_cells(one) for one in pair.species],
        curves=curves,
        lost=[row.name for row, result in zip((pair.a, pair.b), results, strict=True) if not result],
        dots=_draw_species(pair.species) if pair.species else None,
    )


def _labelled(curves: "Mapping[str, Curve]") -> "dict[str, Curve]":
    """Label the curves for a legend, with the round only if there are several."""
    rounds = {name.partition("-")[0] for name in curves}
    return {
        (name if len(rounds) > 1 else name.partition("-")[2]).replace("fold", "fold "): epochs
        for name, epochs in curves.items()
    }


def _draw_species(species: list[SpeciesDifference]) -> Markup:
    """Draw each species before (ring) and after (dot) with a line between, the largest change on top."""
    from callboard.reports.result_page.drawing import BETTER, PANEL_INCHES, PAPER, QUIET, WORSE, as_svg, panel

    with panel(PANEL_INCHES * 1.4, 1.0 + 0.27 * len(species)) as (figure, axes):
        for place, one in enumerate(reversed(species)):
            colour = BETTER if one.value > 0 else WORSE if one.value < 0 else QUIET
            axes.plot([one.b, one.a], [place, place], color=colour, linewidth=2.5, zorder=1)
            axes.plot(one.b, place, "o", markerfacecolor=PAPER, markeredgecolor=colour, markersize=7)
            axes.plot(one.a, place, "o", color=colour, markersize=7)
        axes.set_yticks(range(len(species)), [f"{one.species} ({one.n})" for one in reversed(species)])
        axes.set_xlabel("mean precision at the rank of a confirmed call; ring: before, dot: after")
        axes.set_ylabel("species (recordings confirmed)")
        axes.grid(axis="x")
        return as_svg(figure, "species", f"precision of {len(species)} species before and after")
