"""Results that unlike machines trained: what each report says of them, and nothing where nothing is known."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from callboard.analysis.difference import Difference
from callboard.analysis.gains import Gain
from callboard.analysis.lines import BoardLine
from callboard.analysis.pair import Pair
from callboard.analysis.verdict import Judgement, Verdict
from callboard.core.compute import Compute
from callboard.reports.board.agreement import agreement
from callboard.reports.board.columns import BOARD_COLUMNS
from callboard.reports.board.formats import as_csv
from callboard.reports.details import details
from callboard.reports.diff import pair_html, pair_markdown, verdict_sentence
from callboard.reports.result_page import page
from callboard.reports.result_page.page import read_head
from callboard.reports.seeds import gains_markdown, noise_lines
from callboard.reports.text import UNLIKE, UNLIKE_LEGEND, computes_text, unlike_text
from callboard.results.rows import CV, BoardRow
from tests.analysis.test_verdict import seeds
from tests.experiments.test_author_scores import toy_table
from tests.reports.test_board_columns import BASE, E1, E3
from tests.reports.test_board_formats import printed
from tests.toy_results import result_in, workspace

__all__ = ["workspace"]

HERE = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1")
THERE = replace(HERE, processor="Intel Xeon (AVX512)", precision="bfloat16")
TWO_THREADS = replace(HERE, threads=2)
JUDGEMENT = Judgement(Verdict.BETTER, 0.01, 0.07, 0.99)
SAID = (
    "trained with unlike processors and precisions: AMD EPYC (AVX2), float32 vs Intel Xeon (AVX512), "
    "bfloat16, which alone can change scores as much as a different seed"
)


def trained_by(row: BoardRow, *computes: Compute) -> BoardRow:
    return replace(row, own_computes=frozenset(computes))


def line_of(row: BoardRow, base: BoardRow) -> BoardLine:
    return BoardLine(row, base=base, change=Difference(0.03, 0.01, 0.07), judgement=JUDGEMENT)


ALIKE = line_of(trained_by(E3, HERE), trained_by(E1, HERE))
UNLIKE_LINE = line_of(trained_by(E3, THERE), trained_by(E1, HERE))
OLDER = line_of(E3, trained_by(E1, HERE))


@pytest.mark.parametrize(
    ("base", "row", "said"),
    [
        ([HERE], [TWO_THREADS], "trained with unlike numbers of threads: 1 thread vs 2 threads, which"),
        ([HERE], [THERE], SAID),
        (
            [HERE],
            [replace(HERE, device="cuda", processor="NVIDIA H200", torch="2.15.0")],
            "trained with unlike devices and processors and versions of torch: cpu, AMD EPYC (AVX2), torch "
            "2.14.1 vs cuda, NVIDIA H200, torch 2.15.0, which",
        ),
        (
            [HERE, TWO_THREADS],
            [HERE],
            "trained with unlike numbers of threads: 1 thread and 2 threads vs 1 thread, which",
        ),
        (
            [HERE, replace(TWO_THREADS, torch="2.15.0"), THERE],
            [THERE],
            "trained with unlike processors and numbers of threads and precisions and versions of torch: "
            "AMD EPYC (AVX2), 1 thread, float32, torch 2.14.1 and AMD EPYC (AVX2), 2 threads, float32, torch "
            "2.15.0 and Intel Xeon (AVX512), 1 thread, bfloat16, torch 2.14.1 vs Intel Xeon (AVX512), "
            "1 thread, bfloat16, torch 2.14.1, which",
        ),
    ],
)
def test_what_differs_is_said_by_hand(base: list[Compute], row: list[Compute], said: str) -> None:
    assert unlike_text(trained_by(E3, *row), trained_by(E1, *base)).startswith(said)


def test_alike_or_unknown_results_need_no_words() -> None:
    for line in (ALIKE, OLDER):
        assert line.row
        assert unlike_text(line.row, line.base) == ""
    assert unlike_text(trained_by(E3, HERE, THERE), None) == ""


def test_a_record_in_words() -> None:
    assert computes_text(frozenset()) == "not recorded"
    assert computes_text(frozenset([HERE])) == "cpu AMD EPYC (AVX2), 1 thread, float32, torch 2.14.1"
    assert computes_text(frozenset([TWO_THREADS, HERE])) == (
        "mixed: cpu AMD EPYC (AVX2), 1 thread, float32, torch 2.14.1; "
        "cpu AMD EPYC (AVX2), 2 threads, float32, torch 2.14.1"
    )


def test_the_board_marks_a_verdict_on_unlike_results_and_explains_the_mark_once() -> None:
    for text in printed(BOARD_COLUMNS, ALIKE, UNLIKE_LINE, UNLIKE_LINE):
        assert text.count(f"better {UNLIKE}") == 2
        assert text.count(UNLIKE_LEGEND) == 1
    for text in printed(BOARD_COLUMNS, ALIKE, OLDER, replace(UNLIKE_LINE, judgement=None)):
        assert UNLIKE not in text
    table = pd.read_csv(io.StringIO(as_csv([[ALIKE, UNLIKE_LINE, OLDER, BoardLine(E1)]])))
    assert table["is_trained_unlike_base"].fillna("").tolist() == [False, True, False, ""]
    assert table["verdict"].fillna("").tolist() == ["better"] * 3 + [""]


def test_the_change_from_an_unlike_best_result_is_marked_too() -> None:
    change = Difference(0.01, -0.02, 0.04)
    to_best = BoardLine(trained_by(E3, THERE), best=trained_by(E1, HERE), best_change=change)
    for text in printed(BOARD_COLUMNS, to_best):
        assert f"… +0.0400) {UNLIKE}" in text
        assert UNLIKE_LEGEND in text
    alike = replace(to_best, best=trained_by(E1, THERE))
    assert not any(UNLIKE in text for text in printed(BOARD_COLUMNS, alike))


def test_the_agreement_with_the_author_marks_it_too() -> None:
    table = toy_table()
    entry = table.rows["e2"]
    step = table.step("e2")
    for line, n_marks in ((UNLIKE_LINE, 1), (ALIKE, 0)):
        of_author = replace(line, entry=entry, step=step, author_base=table.rows["e1"])
        text = agreement([[of_author]], table, BASE)
        assert text.count(UNLIKE) == n_marks
        assert "better" in text


def test_one_screen_says_what_trained_a_result_and_how_its_base_differs() -> None:
    text = details(UNLIKE_LINE, [], None, [])
    assert f"trained on  {computes_text(frozenset([THERE]))}\n" in text
    assert f"            {SAID}\n" in text
    for line in (ALIKE, OLDER):
        assert "unlike" not in details(line, [], None, [])
    assert "trained on  not recorded\n" in details(OLDER, [], None, [])


def pair_from(line: BoardLine) -> Pair:
    assert line.row
    assert line.base
    return Pair(line.base, line.row, line.change, line.judgement, {})


def test_a_diff_says_it_after_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pair, "species", [])
    assert verdict_sentence(pair_from(UNLIKE_LINE)).endswith(
        f"better by more than chance. They were {SAID}. CV holds for new recordings of these places."
    )
    assert SAID in pair_markdown(pair_from(UNLIKE_LINE), False)
    assert SAID in pair_html(pair_from(UNLIKE_LINE), (None, None))
    for line in (ALIKE, OLDER):
        assert verdict_sentence(pair_from(line)).endswith(
            "better by more than chance. CV holds for new recordings of these places."
        )


@pytest.mark.parametrize(("line", "is_said"), [(UNLIKE_LINE, True), (ALIKE, False), (OLDER, False)])
def test_a_report_says_it_beside_its_verdict(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: BoardLine,
    is_said: bool,
) -> None:
    shown: Callable[..., BoardLine] = lambda *_: line  # noqa: E731
    monkeypatch.setattr(page, "judged_line", shown)
    monkeypatch.setattr(page, "read_captions", dict)
    head = read_head(result_in(workspace), line.row, [])
    assert (SAID in head.reason) == is_said
    assert line.row
    assert ("trained on", computes_text(line.row.computed_by)) in head.facts
    assert ("trained on", "not recorded") in read_head(result_in(workspace), None, []).facts


def test_a_gain_of_pairs_that_are_not_alike_is_marked() -> None:
    def gain_of(*lines: BoardLine) -> Gain:
        pairs = [(line.row, line.base) for line in lines if line.row and line.base]
        return Gain("e3", [row for row, _ in pairs], "e1", pairs, judgements={CV: JUDGEMENT})

    text = gains_markdown([gain_of(ALIKE, UNLIKE_LINE)])
    assert f"better {UNLIKE} " in text
    assert text.count(UNLIKE_LEGEND) == 1
    assert UNLIKE not in gains_markdown([gain_of(ALIKE, OLDER)])


def test_noise_is_told_apart_from_unlike_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callboard.analysis.seed_noise.difference", lambda a, b: None)
    group = seeds(0.70, 0.71, 0.72, 0.80, 0.82)
    mixed = [trained_by(row, HERE) for row in group[:3]] + [trained_by(row, TWO_THREADS) for row in group[3:]]
    said = [
        "The runs were trained with unlike numbers of threads: 1 thread vs 2 threads.",
        "The sd is that among runs trained alike; the range is that of all runs.",
    ]
    lines = noise_lines("x", mixed)
    assert lines[0] == "x: 5 runs that differ in the seed and in what trained them"
    assert set(said) <= set(lines)
    assert noise_lines("x", [mixed[0], mixed[3]]) == [
        "x: 2 finished runs; noise needs two seeds of runs trained alike"
    ]
    for alike in (group, [*mixed[:3], *group[3:]]):
        lines = noise_lines("x", alike)
        assert lines[0] == "x: 5 runs that differ in nothing but the seed"
        assert not [line for line in lines if "unlike" in line]
