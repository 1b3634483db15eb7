from dataclasses import replace

from callboard.analysis.difference import Difference
from callboard.analysis.lines import BoardLine
from callboard.analysis.verdict import judge
from callboard.experiments.steps import TableStep
from callboard.reports.board.agreement import agreement
from tests.experiments.test_author_scores import row as table_row
from tests.experiments.test_author_scores import toy_table
from tests.reports.test_board_columns import E1

FIRST = table_row("e1", cv=0.7, lb=0.6)


def line(name, cv, lb, our_cv, our_lb, change):

    entry = table_row(name, base="e1", cv=cv, lb=lb)
    metrics = {"cv.lwlrap": our_cv, "lb.public": our_lb, "lb.private": 1 - our_lb}
    ours = replace(E1, name=name, names=(name,), key=name, metrics=metrics)
    return BoardLine(ours, entry, FIRST, STEP, E1, change, judgement=judge(change, None))


STEP = TableStep(FIRST.name, {"optim.lr"})

# E1: cv 0.7118, lb public 0.65
LINES = [
    BoardLine(E1, FIRST),
    line("e2", 0.8, 0.7, 0.75, 0.70, Difference(0.0382, 0.01, 0.06, 0.99)),
    line("e3", 0.75, 0.5, 0.70, 0.60, Difference(-0.0118, -0.03, 0.01, 0.2)),
    line("e4", 0.6, 0.65, 0.65, 0.68, Difference(-0.0618)),
    BoardLine(None, table_row("e5", base="e1", cv=0.9), FIRST, STEP),
]


def agreed(blocks, params=E1.params):
    return agreement(blocks, toy_table(), params)


def test_it_says_in_what_the_results_differ_from_the_workspace():
    assert "with a result here, all with params.yaml as it is." in agreed([LINES])
    # optim.lr is the table's to move
    assert "here, all with seed: 5 → 416." in agreed([LINES], E1.params | {"seed": "5", "optim.lr": "0.2"})


def found(text, start):
    (one,) = [text_line for text_line in text.splitlines() if text_line.startswith(f"| {start}")]
    return [cell.strip() for cell in one.strip("|").split("|")]


def test_rows_are_counted_and_ranks_compared():
    text = agreed([LINES[:2], LINES[2:]])
    assert "5 rows in the table, 4 of them with a result here, " in text
    # author LB 0.6 0.7 0.5 0.65 against our 0.65 0.70 0.60 0.68
    assert list(found(text, "author LB | our LB public")[2:4]) == ["4", "+1.00"]
    # private is 1 - public but for e1, 0.64: ranks 2 4 1 3 against 4 1 3 2
    assert found(text, "author LB | our LB private")[3] == "-0.80"


def test_each_change_is_held_against_the_author_s():
    text = agreed([LINES])
    assert found(text, "e2")[4] == "yes, better?"
    assert found(text, "e3")[4] == "no, within noise"
    assert found(text, "e3")[5:] == ["-0.0500", "-0.100", "yes"]
    assert found(text, "e4")[2:5] == ["-0.0618 (–)", "-0.1000", "yes, unsure"]  # no interval
    agreed_in = "changed in the original author's direction in"
    assert f"CV {agreed_in} 2 of 3 rows; by chance 1.3 would, as it rose in 33% of ours" in text
    assert f"public LB {agreed_in} 3 of 3 rows; by chance 1.7 would, as it rose in 67%" in text


def test_a_change_against_another_base_is_not_held_against_his():

    elsewhere = replace(LINES[1], base=replace(E1, names=("other",)))
    assert "CV changed in the original author's direction in 0 of 0 rows." in agreed([[LINES[0], elsewhere]])


def test_without_results_there_is_nothing_to_correlate():
    text = agreed([LINES[4:]])
    assert "1 row in the table, 0 of them" in text
    assert found(text, "our CV    | our LB public")[2:] == ["0", "–", "– … –"]
