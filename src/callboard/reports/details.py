"""One result on one screen: its scores, its verdict, its changes and where its files are."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from callboard.analysis.lines import BoardLine
from callboard.core.console import MISSING
from callboard.reports.board.columns import base_of, changes_of, half_width
from callboard.reports.cv_question import question_text
from callboard.reports.text import (
    LB_LEGENDS,
    computes_text,
    interval_text,
    lb_change_text,
    lb_mark,
    number,
    unlike_text,
    verdict_word,
)
from callboard.results.cv_metrics import meanings
from callboard.results.rows import CV, MARKS, BoardRow, mark_of

if TYPE_CHECKING:
    from callboard.results.leaderboard import LeaderboardEntry
    from callboard.results.result import Result

SPECIES = "plots/species.csv"
LABEL_WIDTH = 12


def details(
    line: BoardLine,
    namesakes: Sequence[BoardRow],
    result: "Result | None",
    entries: Iterable["LeaderboardEntry"],
) -> str:
    """Describe one result, with an empty line between the parts.

    Args:
        line: Judged line of the board.
        namesakes: Other results of the same name.
        result: Files of the result; None where git has lost them.
        entries: Rows of leaderboard.csv.
    """
    row = line.row
    assert row is not None
    parts = [
        _heading(line, row, namesakes),
        _scores(line, row),
        _changed(line, row),
        *([_species(result.text(SPECIES)), _losses(result.curves)] if result else []),
        _files(row, result),
        _submissions(row, entries),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _fact(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}"


def _heading(line: BoardLine, row: BoardRow, namesakes: Sequence[BoardRow]) -> list[str]:
    also = [name for name in row.names if name != row.name]
    date = f"{row.start.astimezone():%Y-%m-%d %H:%M}"
    memo = [text for text in (line.memo, row.note) if text]
    return [
        row.name + (f", also {', '.join(also)}" if also else ""),
        *dict.fromkeys(memo),
        _fact("key", row.key),
        _fact("made", f"{date}, from commit {row.commit[:7] or MISSING}"),
        _fact("trained on", computes_text(row.computed_by)),
        *[
            _fact("same name", f"{other.ref.reference} of {other.start.astimezone():%Y-%m-%d %H:%M}")
            for other in namesakes
        ],
    ]


def _scores(line: BoardLine, row: BoardRow) -> list[str]:
    half, mark = half_width(line), mark_of(row)
    cv = number(row.metrics.get(CV)) + (f" ± {half:.4f}" if half else "") + f" {mark}" * bool(mark)
    shown = (CV, "cv.lwlrap_low", "cv.lwlrap_high")
    others = [
        f"{key.removeprefix('cv.')} {value:g}"
        for key, value in sorted(row.metrics.items())
        if key.startswith("cv.") and key not in shown
    ]
    base = line.base
    lines = [
        _fact("CV", cv),
        _fact("holds for", question_text(row)),
        _fact("", ", ".join(others)),
        *([_fact("", known)] if (known := meanings(sorted(row.metrics))) else []),
        _fact("LB", _lb(row).removeprefix("LB ")),
    ]
    if base:
        lb_change = lb_change_text(number(line.metric_change("lb.public"), "+.4f"), line.lb_judgement)
        lines += [
            _fact("base", f"{base_of(line)}: CV {number(base.metrics.get(CV))}, {_lb(base)}"),
            _fact("against it", f"CV {interval_text(line.change, line.judgement)}, LB public {lb_change}"),
            _fact("verdict", verdict_word(line.judgement) + _chance(line)),
            *([_fact("", unlike)] if (unlike := unlike_text(row, base)) else []),
        ]
    else:
        lines.append(_fact("base", "none on the board"))
    if line.best and line.best.key != row.key:
        lines.append(
            _fact("best", f"{line.best.ref.reference}: CV {interval_text(line.best_change)} against it")
        )
    elif line.best:
        lines.append(
            _fact("best", "this one: the highest CV on these data and split.group that is not optimistic")
        )
    notes = [legend for known, legend in MARKS.items() if known == mark]
    notes += [legend for known, legend in LB_LEGENDS.items() if known == lb_mark(line.lb_judgement)]
    return [*lines, *notes]


def _lb(row: BoardRow) -> str:
    public, private = (number(row.metrics.get(key)) for key in ("lb.public", "lb.private"))
    return f"LB public {public}, private {private}"


def _chance(line: BoardLine) -> str:
    p_better = number(line.judgement.p_better if line.judgement else None, ".2f")
    return "" if p_better == MISSING else f", P(better) {p_better}"


def _changed(line: BoardLine, row: BoardRow) -> list[str]:
    found = changes_of(line)
    if found is None:
        return []
    against = base_of(line) if line.base else f"commit {row.commit[:7]}"
    return [f"changed against {against}" + ("" if found else ": nothing"), *(f"  {text}" for text in found)]


def species_rows(text: str) -> list[tuple[str, float, int]]:
    """Read species, average precision and number of recordings from a `plots/species.csv`, the best first."""
    rows = [
        (row["species"], float(row["ap"] or "nan"), int(row["n_tp"]))
        for row in csv.DictReader(io.StringIO(text))
    ]
    return sorted(rows, key=lambda row: (row[1] != row[1], -row[1]))


def _species(text: str) -> list[str]:
    """List species four side by side, so that 24 take six lines."""
    cells = [f"{species:>4} {number(ap, '.3f'):>5} ({n})" for species, ap, n in species_rows(text)]
    width = max(map(len, cells), default=0) + 3
    n_lines = -(-len(cells) // 4)
    lines = [
        "".join(cell.ljust(width) for cell in cells[first::n_lines]).rstrip() for first in range(n_lines)
    ]
    return (
        ["average precision by species (recordings confirmed)", *(f"  {line}" for line in lines)]
        if cells
        else []
    )


def _losses(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    last = {name: epochs[-1] for name, epochs in curves.items() if epochs}
    if not last:
        return []
    losses = [f"{name} {epoch['loss']:.4f}" for name, epoch in last.items() if "loss" in epoch]
    epochs = max(int(epoch["epoch"]) for epoch in last.values())
    return [f"training loss of the last epoch ({epochs})", f"  {', '.join(losses)}"]


def _files(row: BoardRow, result: "Result | None") -> list[str]:
    lines = [
        _fact("submission", f"md5 {row.submission_md5 or MISSING}"),
        _fact("scores", f"md5 {row.oof_md5 or MISSING} (out of fold)"),
    ]
    if result is None:
        return [*lines, _fact("files", "no commit in this repository has this result any more")]
    if not result.ref.commit:
        return [*lines, _fact("files", "in the work tree")]
    lines.append(
        _fact("files", f"commit {result.ref.commit[:7]}; `git show {result.ref.commit[:7]}:metrics/cv.json`")
    )
    if row.names:
        lines.append(_fact("apply", f"`dvc exp apply {result.ref.commit[:7]}` brings it into the work tree"))
    return lines


def _submissions(row: BoardRow, entries: Iterable["LeaderboardEntry"]) -> list[str]:
    own = [entry for entry in entries if row.submission_md5 and entry.submission_md5 == row.submission_md5]
    if not own:
        return []
    scores = [
        f"  {entry.date or MISSING}: public {number(entry.public)}, "
        f"private {number(entry.private)} {entry.note}"
        for entry in own
    ]
    return ["leaderboard.csv", *(text.rstrip() for text in scores)]
