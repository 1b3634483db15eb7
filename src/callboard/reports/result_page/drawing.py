"""Matplotlib figures as SVG inside a page, in the page's light or dark colours.

Figures are drawn in marker colours, which become CSS variables of page.css; text stays text.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, LINE, ACCENT = "#010203", "#010204", "#010205", "#010206"
BETTER, WORSE, PAPER = "#010207", "#010208", "#010209"
CSS_VARIABLES = {
    INK: "--ink",
    QUIET: "--quiet",
    LINE: "--line",
    ACCENT: "--accent",
    BETTER: "--better",
    WORSE: "--worse",
    PAPER: "--paper",
}
"""Marker colour to CSS variable."""

SERIES = ("#3f8fc4", "#d9822b", "#4aa564", "#a877c9", "#c9617a", "#8c8c3c", "#3aa6a0", "#9a7b5f")
"""Colours of the lines of a figure; their contrast to white and to near-black is above 2.8."""

PANEL_INCHES = 5.2
"""Width of a panel: two fit side by side on a desktop, and one on a phone with its text readable."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "callboard",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def panel(width: float, height: float) -> Iterator[tuple["Figure", "Axes"]]:
    """Make a figure with one pair of axes, to be drawn and saved inside the block; sizes in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


@contextmanager
def rows_of_panels(width: float, heights: Sequence[float]) -> Iterator[tuple["Figure", list["Axes"]]]:
    """Make a figure of stacked panels that share their x axis, as in `panel`; sizes in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
        yield figure, list(axes[:, 0])


def as_svg(figure: "Figure", name: str, alt: str) -> Markup:
    """Convert the figure to an SVG element for HTML, without namespace and metadata, with unique ids.

    Args:
        figure: Figure drawn in marker or other colours.
        name: Prefix of every id, different for each figure of a page.
        alt: Description for readers who cannot see it.
    """
    buffer = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in CSS_VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))
