"""Agreement between our results and the original author's scores of the same experiments, in Markdown."""

from collections.abc import Callable, Iterable

import numpy as np

from callboard.analysis.correlation import correlation, spearman
from callboard.analysis.lines import Blocks, BoardLine
from callboard.core.console import counted
from callboard.experiments.table import ExperimentTable
from callboard.reports.board.columns import marked_verdict
from callboard.reports.text import interval_text, markdown_table, number
from callboard.results.result import changes

ScoreOf = Callable[[BoardLine], float | None]

COMPARED_SCORES: dict[str, ScoreOf] = {
    "author CV": lambda line: line.author_cv,
    "author LB": lambda line: line.author_lb,
    "our CV": lambda line: line.metric("cv.lwlrap"),
    "our LB public": lambda line: line.metric("lb.public"),
    "our LB private": lambda line: line.metric("lb.private"),
}
COMPARED = (
    ("author LB", "our LB public"),
    ("author LB", "our LB private"),
    ("author CV", "our CV"),
    ("our CV", "our LB public"),
    ("our CV", "our LB private"),
)


def agreement(blocks: Blocks, table: ExperimentTable, params: dict[str, str]) -> str:
    """Describe counts, rank correlations, and for each row whether its change has the original author's sign.

    A change is against the row's base in the table. Rows whose base has no result here, or that lack a score
    of the original author, are left out of the last list.

    Args:
        blocks: Rows of the original author's table with our results.
        table: The original author's table.
        params: Flat parameters of the workspace, from which the results may differ.
    """
    lines = [line for block in blocks for line in block if line.entry]
    n_ours = sum(line.row is not None for line in lines)
    changes = [line for line in lines if line.is_against_author_base]
    parts = [
        "## Agreement with the original author's table\n",
        f"{counted(len(lines), 'row')} in the table, {n_ours} of them with a result here"
        f"{_setting(lines, table, params)}.\n",
        _correlations(lines),
        _tally("CV", [_signs(line.metric_change("cv.lwlrap"), line.author_cv_change) for line in changes])
        + _tally(
            "public LB", [_signs(line.metric_change("lb.public"), line.author_lb_change) for line in changes]
        ),
        _row_by_row(changes),
    ]
    return "\n".join(part for part in parts if part)


def _setting(lines: list[BoardLine], table: ExperimentTable, params: dict[str, str]) -> str:
    """Describe how all results differ from params.yaml in the keys that the table leaves to the workspace."""
    for line in lines:
        if line.row and line.entry and not line.entry.alone:
            name = line.entry.name
            own, workspace = (
                {key: text for key, text in flat.items() if table.leaves_alone(key, name)}
                for flat in (line.row.params, params)
            )
            differences = changes(workspace, own)
            return (
                f", all with {'; '.join(differences)}" if differences else ", all with params.yaml as it is"
            )
    return ""


def _correlations(lines: list[BoardLine]) -> str:
    cells = []
    for first, second in COMPARED:
        pairs = [(COMPARED_SCORES[first](line), COMPARED_SCORES[second](line)) for line in lines]
        known = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
        rho = correlation(spearman, known[:, 0], known[:, 1])
        value, low, high = (
            number(None if np.isnan(x) else x, "+.2f") for x in (rho.value, rho.low, rho.high)
        )
        cells.append([first, second, str(rho.n), value, f"{low} … {high}"])
    header = ["score", "against", "rows", "Spearman's ρ", "95 % over rows"]
    return markdown_table(header, cells, [False, False, True, True, True])


Signs = tuple[float, float] | None
"""Signs of our change and of the original author's, each −1 or 1."""


def _signs(ours: float | None, theirs: float | None) -> Signs:
    """Return the signs of two changes; None if one of them is unknown or zero."""
    if not (ours and theirs and round(ours, 5) and round(theirs, 5)):
        return None
    return np.sign(ours), np.sign(theirs)


def _tally(what: str, signs: Iterable[Signs]) -> str:
    """Describe how often both changes have the same sign, and how often they would by chance."""
    known = np.array([pair for pair in signs if pair]).reshape(-1, 2) > 0
    n_agree = int((known[:, 0] == known[:, 1]).sum())
    text = f"{what} changed in the original author's direction in {n_agree} of {len(known)} rows"
    if not len(known):
        return f"{text}.\n"
    ours, theirs = known.mean(axis=0)
    by_chance = len(known) * (ours * theirs + (1 - ours) * (1 - theirs))
    return (
        f"{text}; by chance {by_chance:.1f} would, as it rose in {ours:.0%} of ours and {theirs:.0%} of "
        "the original author's.\n"
    )


def _row_by_row(lines: list[BoardLine]) -> str:
    cells = []
    for line in lines:
        cv = _signs(line.metric_change("cv.lwlrap"), line.author_cv_change)
        lb = _signs(line.metric_change("lb.public"), line.author_lb_change)
        if line.entry and (cv or lb):
            judged = f", {marked_verdict(line)}" if line.judgement else ""
            cells.append(
                [
                    line.entry.name,
                    line.step.base if line.step else "",
                    interval_text(line.change, line.judgement),
                    number(line.author_cv_change, "+.4f"),
                    _answer(cv) + judged,
                    number(line.metric_change("lb.public"), "+.4f"),
                    number(line.author_lb_change, "+.3f"),
                    _answer(lb),
                ]
            )
    header = ["name", "base", "Δ CV", "author Δ CV", "same sign", "Δ LB public", "author Δ LB", "same sign"]
    return (
        markdown_table(header, cells, [False, False, True, True, False, True, True, False]) if cells else ""
    )


def _answer(signs: Signs) -> str:
    return "–" if signs is None else "yes" if signs[0] == signs[1] else "no"
