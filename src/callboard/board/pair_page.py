"""The change from one result to another as an HTML page, with learning curves and species as pictures."""

from typing import TYPE_CHECKING

from callboard.board.columns import TONES
from callboard.board.pair import Pair
from callboard.board.pair_text import METRIC_HEADER, SPECIES_HEADER, metric_cells, species_cells, verdict
from callboard.pages import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

    from callboard.better.difference import SpeciesDifference
    from callboard.report.figures import Curve
    from callboard.runs.files import Source


def pair_html(pair: Pair, sources: "tuple[Source | None, Source | None]") -> str:
    """The page, with all species.

    Args:
        pair: The results.
        sources: Of their curves, in order; None where git has lost them.
    """
    from callboard.report.figures import draw_curves

    known = [
        (row.name, _labelled(source.result.curves))
        for row, source in zip((pair.a, pair.b), sources, strict=True)
        if source and any(source.result.curves.values())
    ]
    every = [epochs for _, folds in known for epochs in folds.values()]
    curves = [
        (name, draw_curves(folds, "loss", "training loss", f"curves{place}", every))
        for place, (name, folds) in enumerate(known)
    ]
    word = pair.judgement.word if pair.judgement else ""
    return page(
        "diff.html.j2",
        pair=pair,
        word=word,
        tone=TONES.get(word.rstrip("?"), "noise"),
        verdict=verdict(pair),
        metric_header=METRIC_HEADER,
        metrics=[metric_cells(pair, metric) for metric in pair.metrics],
        species_header=SPECIES_HEADER,
        species=[species_cells(one) for one in pair.species],
        curves=curves,
        dots=_draw_species(pair.species) if pair.species else None,
    )


def _labelled(curves: "Mapping[str, Curve]") -> "dict[str, Curve]":
    """The curves by what a legend calls them: the round only where there are several."""
    rounds = {name.partition("-")[0] for name in curves}
    return {
        (name if len(rounds) > 1 else name.partition("-")[2]).replace("fold", "fold "): epochs
        for name, epochs in curves.items()
    }


def _draw_species(species: "list[SpeciesDifference]") -> "Markup":
    """Each species before (ring) and after (dot), joined; the largest change on top."""
    from callboard.report.drawing import BETTER, PANEL_INCHES, PAPER, QUIET, WORSE, as_svg, panel

    with panel(PANEL_INCHES * 1.4, 1.0 + 0.27 * len(species)) as (figure, axes):
        for place, one in enumerate(reversed(species)):
            colour = BETTER if one.value > 0 else WORSE if one.value < 0 else QUIET
            axes.plot([one.b, one.a], [place, place], color=colour, linewidth=2.5, zorder=1)
            axes.plot(one.b, place, "o", markerfacecolor=PAPER, markeredgecolor=colour, markersize=7)
            axes.plot(one.a, place, "o", color=colour, markersize=7)
        axes.set_yticks(range(len(species)), [f"{one.species} ({one.n})" for one in reversed(species)])
        axes.set_xlabel("mean precision at a confirmed call's rank; ring: before, dot: after")
        axes.set_ylabel("species (recordings confirmed)")
        axes.grid(axis="x")
        return as_svg(figure, "species", f"precision of {len(species)} species before and after")
