import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from callboard.board import Row
from callboard.board_table import (
    AUTHOR_COLUMNS,
    COLUMNS,
    LEGEND,
    Line,
    as_markdown,
    interval,
    lines_of_results,
    lines_of_table,
    print_table,
    probability,
)
from callboard.comparison import Difference
from tests.test_author_history import toy_table

BASE = {"seed": "416", "loss.neg_mask": "none", "optim.lr": "0.1"}
START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
SCORES = {
    "cv.lwlrap": 0.7118,
    "cv.lwlrap_low": 0.69,
    "cv.lwlrap_high": 0.73,
    "lb.public": 0.65,
    "lb.private": 0.64,
}
PLAIN = Row("workspace-5f47f7", BASE, SCORES, START, "95d8525aaaa", BASE, key="k1")
SEQ = Row("exp0058", BASE | {"loss.neg_mask": "seq"}, {"cv.lwlrap": 0.74}, START, "", BASE, key="k2")
E1 = replace(PLAIN, name="e1", names=("e1",))
E3 = replace(SEQ, name="e3", names=("e3",), key="k3", params=BASE | {"optim.lr": "0.5"})


def cells(text, number):
    return [cell.strip() for cell in text.splitlines()[number + 2].strip("|").split("|")]


def column(text, name, number, columns=COLUMNS):
    return cells(text, number)[[one.name for one in columns].index(name)]


def markdown(*rows):
    return as_markdown(lines_of_results(rows, None))


def test_markdown_by_hand():
    text = markdown(PLAIN, SEQ)
    date = START.astimezone().strftime("%Y-%m-%d %H:%M")
    scores = ["0.7118", "0.0200", "–", "–", "–", "0.6500", "0.6400"]
    plain = ["workspace-5f47f7", *scores, "", "", date, "95d8525"]
    assert cells(text, 0) == plain
    seq = ["exp0058", "0.7400", "–", "workspace-5f47f7", "+0.0282 (–)", "–", "–", "–"]
    assert cells(text, 1) == [*seq, "loss.neg_mask: none → seq", "", date, ""]
    assert cells(text, -2) == [one.name for one in COLUMNS]


def test_markdown_columns_line_up():
    assert len({len(line) for line in markdown(PLAIN, SEQ).splitlines()}) == 1


def test_the_probability_is_shown_where_there_is_an_interval():
    assert probability(Difference(0.01, -0.01, 0.03, 0.841)) == "0.84"
    assert probability(Difference(0.01)) == probability(None) == "–"


def test_a_pipe_in_a_cell_does_not_break_the_table():
    assert r"a\|b" in markdown(replace(PLAIN, name="a|b"))


def test_without_base_and_committed_parameters_nothing_is_said_of_changes():
    assert column(markdown(replace(SEQ, base={})), "changed", 0) == "–"


def test_a_board_without_results_is_a_header():
    assert len(markdown().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Difference(0.0123, -0.004, 0.0286, 0.9), "+0.0123 (-0.0040 … +0.0286)"),
        (Difference(-0.05), "-0.0500 (–)"),
        (None, "–"),
    ],
)
def test_a_change_stands_with_its_interval(change, expected):
    assert interval(change) == expected


def test_the_terminal_shows_the_same_numbers():
    console = Console(file=io.StringIO(), width=300)
    print_table(lines_of_results([PLAIN, SEQ], None), console)
    printed = console.file.getvalue()
    assert "2 results" in printed
    for text in ("exp0058", "0.7118", "0.0200", "0.6500", "+0.0282", "loss.neg_mask: none → seq"):
        assert text in printed


def test_an_optimistic_cv_is_marked_and_explained():
    rows = [PLAIN, replace(SEQ, params=SEQ.params | {"train.select": "best"})]
    text = markdown(*rows)
    assert [column(text, "CV", k) for k in (0, 1)] == ["0.7118", "0.7400*"]
    assert text.splitlines()[-1] == rf"\{LEGEND}"
    console = Console(file=io.StringIO(), width=400)
    print_table(lines_of_results(rows, None), console)
    assert LEGEND in console.file.getvalue()


def test_an_honest_cv_needs_no_legend():
    assert "*" not in markdown(PLAIN, SEQ)


def test_a_result_with_a_name_of_the_table_has_its_memo_and_base():
    text = as_markdown(lines_of_results([E1, E3], toy_table()))
    assert [column(text, "memo", k) for k in (0, 1)] == ["memo of e1", "memo of e3"]
    assert column(text, "base", 1) == "e1"


def test_the_author_s_rows_stand_in_their_order_with_his_scores_beside_ours():
    text = as_markdown(lines_of_table([E3, E1, SEQ], toy_table()), AUTHOR_COLUMNS)

    def shown(name):
        return [column(text, name, k, AUTHOR_COLUMNS) for k in range(7)]

    assert shown("name") == ["e1", "e2", "e3", "", "e4", "", "exp0058"]  # blank lines between blocks
    assert shown("CV") == ["0.7118", "–", "0.7400", "", "–", "", "0.7400"]
    assert shown("author CV") == ["0.7000", "0.7500", "not good", "", "not run", "", "–"]
    assert shown("author LB") == ["0.6000", "not submitted", "–", "", "–", "", "–"]
    assert shown("author Δ CV") == ["–", "+0.0500", "–", "", "–", "", "–"]
    assert shown("memo")[:2] == ["memo of e1", "memo of e2"]


def test_of_two_results_of_a_name_the_newer_takes_the_row_and_the_older_stands_below():
    older = replace(E1, key="k0", metrics={"cv.lwlrap": 0.5})
    blocks = lines_of_table([older, E1], toy_table())
    assert blocks[0][0].row == E1
    assert [line.row for line in blocks[-1]] == [older]


def test_a_row_of_several_names_stands_in_each_of_their_rows():
    both = replace(E1, names=("e1", "e2"))
    first, second, *_ = lines_of_table([both], toy_table())[0]
    assert first.row == second.row == both
    assert second.base == both
    assert second.is_against_author_base
    named = replace(E1, name="first name")
    assert column(as_markdown(lines_of_results([named, E3], toy_table())), "base", 1) == "e1"


def test_a_line_without_result_has_no_metrics():
    assert Line(None).metric("cv.lwlrap") is None
    assert Line(E1).metric_change("cv.lwlrap") is None
