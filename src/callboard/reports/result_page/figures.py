"""Figures of lines, dots and bars; each function returns one SVG."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from callboard.reports.result_page.drawing import (
    ACCENT,
    BETTER,
    INK,
    LINE,
    PANEL_INCHES,
    QUIET,
    SERIES,
    WORSE,
    as_svg,
    panel,
)
from callboard.reports.result_page.evidence import N_BINS, Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[Mapping[str, float]]
"""Epochs of a fold, each with the columns that have a value."""

LEGEND_LETTERS = 60
"""Number of letters in a row of a panel's legend; the line before each label takes the room of 5."""


def draw_curves(
    curves: Mapping[str, Curve], column: str, label: str, name: str, beside: Iterable[Curve] = ()
) -> Markup:
    """Draw a column of the learning curves, a line per fold, with dots if not every epoch has a value.

    Args:
        curves: Label to epochs.
        column: Column to draw.
        label: Label of the y axis.
        name: Prefix of every id of the SVG.
        beside: Curves of figures next to this one, which its axes make room for too.
    """
    from matplotlib.ticker import MaxNLocator

    with panel(PANEL_INCHES, 3.1) as (figure, axes):
        for number, (fold, epochs) in enumerate(curves.items()):
            points = _points(epochs, column)
            marker = "o" if len(points) < len(epochs) or len(points) == 1 else None
            colour = SERIES[number % len(SERIES)]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=fold)
        for epochs in beside:
            axes.update_datalim(_points(epochs, column))
        axes.autoscale_view()
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.legend(
            ncols=min(len(curves), LEGEND_LETTERS // (5 + max(map(len, curves)))),
            loc="lower left",
            bbox_to_anchor=(-0.02, 1),
            handlelength=1.2,
            columnspacing=1,
        )
        return as_svg(figure, name, f"{label} over epochs, one line for each of {len(curves)} folds")


def _points(epochs: Curve, column: str) -> list[tuple[float, float]]:
    return [(epoch["epoch"], epoch[column]) for epoch in epochs if column in epoch]


def draw_species(table: pd.DataFrame) -> Markup:
    """Draw the average precision of each species as a dot.

    Args:
        table: species, ap and n_tp, in the order of drawing from the top.
    """
    with panel(PANEL_INCHES, 1.0 + 0.25 * len(table)) as (figure, axes):
        places = np.arange(len(table))[::-1]
        axes.hlines(places, 0, table["ap"], color=LINE, linewidth=3)
        axes.plot(table["ap"], places, "o", color=ACCENT, markersize=7)
        for place, value in zip(places, table["ap"], strict=True):
            if np.isfinite(value):
                axes.annotate(f"{value:.2f}", (value, place), (7, -3), textcoords="offset points", fontsize=9)
        _name_rows(axes, table)
        axes.set_xlim(0, 1.08)
        axes.set_xlabel("average precision over recordings, out of fold")
        return as_svg(figure, "species", "average precision of each species with its number of recordings")


def draw_losses(table: pd.DataFrame) -> Markup:
    """Draw each species' share of the points that LWLRAP falls short of 1, as bars next to `draw_species`.

    Args:
        table: species, n_tp and lost (share in 0 … 1), in the order of drawing from the top.
    """
    with panel(PANEL_INCHES, 1.0 + 0.25 * len(table)) as (figure, axes):
        places = np.arange(len(table))[::-1]
        axes.barh(places, 100 * table["lost"], color=WORSE, height=0.55, alpha=0.85)
        axes.plot(100 * table["n_tp"] / table["n_tp"].sum(), places, "|", color=INK, markersize=11)
        _name_rows(axes, table)
        axes.set_xlabel("share of all lost points, % (tick: share of the recordings)")
        return as_svg(figure, "losses", "share of the lost points of LWLRAP of each species")


def _name_rows(axes: "Axes", table: pd.DataFrame) -> None:
    """Label the y axis the same way in every figure of the table, so that they line up side by side."""
    axes.set_yticks(
        np.arange(len(table))[::-1], [f"{row.species} ({row.n_tp})" for row in table.itertuples()]
    )
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.set_ylabel("species (recordings confirmed)")


def draw_cv_against_lb(
    cv: NDArray[np.float64], lb: NDArray[np.float64], marked: tuple[float, float], part: str
) -> Markup:
    """Draw every result as a dot, with the one of the report ringed.

    Args:
        cv: (results,) OOF LWLRAP.
        lb: (results,) LWLRAP of the leaderboard.
        marked: CV and LB of the report's result.
        part: public or private.
    """
    with panel(PANEL_INCHES, 3.6) as (figure, axes):
        axes.plot(cv, lb, "o", color=ACCENT, markersize=5, alpha=0.6, markeredgewidth=0)
        axes.plot(*marked, "o", color=WORSE, markersize=7)
        axes.plot(*marked, "o", markerfacecolor="none", markeredgecolor=WORSE, markersize=14)
        is_right = marked[0] > (cv.min() + cv.max()) / 2
        axes.annotate(
            "this result",
            marked,
            (-12 if is_right else 12, -3),
            textcoords="offset points",
            ha="right" if is_right else "left",
            color=WORSE,
            weight="bold",
        )
        axes.margins(0.08)
        axes.grid()
        axes.set_xlabel("CV, LWLRAP out of fold")
        axes.set_ylabel(f"LB {part}, LWLRAP")
        return as_svg(figure, f"lb-{part}", f"CV against {part} LB of {len(cv)} results, this one marked")


def draw_reliability(bins: Reliability) -> Markup:
    """Draw the share of present cells over their mean score, with intervals, counts and the diagonal."""
    with panel(PANEL_INCHES, 3.6) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":")
        below = np.maximum(bins.share_present - bins.low, 0)
        above = np.maximum(bins.high - bins.share_present, 0)
        axes.errorbar(
            bins.mean_score,
            bins.share_present,
            [below, above],
            fmt="o-",
            color=ACCENT,
            linewidth=1.2,
            capsize=2,
        )
        for score, high, count in zip(bins.mean_score, bins.high, bins.count, strict=True):
            axes.annotate(
                f"{count}",
                (score, high),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=QUIET,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.1)
        axes.set_xlabel("mean recording score of the bin")
        axes.set_ylabel("share that annotators confirmed")
        alt = "share of confirmed cells over their score, against the diagonal of perfect calibration"
        return as_svg(figure, "reliability", alt)


def draw_histogram(groups: Mapping[str, NDArray[np.float64]]) -> Markup:
    """Draw a histogram of the scores of each group, in % of the group.

    Args:
        groups: Label to scores in 0 … 1; the first two are drawn as bars, further ones as an outline.
    """
    with panel(PANEL_INCHES, 3.6) as (figure, axes):
        edges = np.linspace(0, 1, 2 * N_BINS + 1)
        for colour, (label, scores) in zip((BETTER, WORSE, QUIET), groups.items(), strict=False):
            shares = 100 * np.histogram(scores, edges)[0] / max(len(scores), 1)
            is_outline = colour == QUIET
            axes.stairs(
                shares,
                edges,
                fill=not is_outline,
                color=colour,
                alpha=1 if is_outline else 0.5,
                label=f"{label}, {len(scores):,}",
            )
        axes.set_xlim(0, 1)
        axes.set_xlabel("recording score")
        axes.set_ylabel("cells of the group, %")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), fontsize=9)
        return as_svg(figure, "histogram", f"histograms of recording scores: {', '.join(groups)}")


def draw_pseudo_labels(counts: pd.DataFrame, number: int) -> Markup:
    """Draw the pseudo-labels of a round by species, stacked by kind of recording.

    Args:
        counts: Species as index, a column of counts per kind of recording.
        number: Number of the round.
    """
    with panel(PANEL_INCHES, 1.3 + 0.25 * len(counts)) as (figure, axes):
        places = np.arange(len(counts))[::-1]
        start = np.zeros(len(counts))
        for colour, kind in zip(SERIES, counts.columns, strict=False):
            axes.barh(places, counts[kind], left=start, color=colour, height=0.6, label=kind)
            start += counts[kind].to_numpy()
        for place, total in zip(places, start, strict=True):
            axes.annotate(f"{total:.0f}", (total, place), (4, -3), textcoords="offset points", fontsize=9)
        axes.set_yticks(places, [str(name) for name in counts.index])
        axes.margins(x=0.12)
        axes.set_xlabel("pseudo-labels")
        axes.set_ylabel("species")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), fontsize=9, ncols=2)
        return as_svg(figure, f"pseudo-{number}", f"pseudo-labels of round {number} by species")
