import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from callboard.analysis.difference import Difference
from callboard.analysis.lines import BoardLine, best_of, judged, lines_of_results, lines_of_table
from callboard.analysis.verdict import Judgement, Verdict, judge
from callboard.experiments.captions import Caption
from callboard.reports.board.columns import BOARD_COLUMNS, author_columns_of
from callboard.reports.board.formats import board_markdown, fitting, print_table
from callboard.reports.details import details
from callboard.reports.text import VERDICT_WORDS, interval_text, verdict_tone, verdict_word
from callboard.results.rows import CV, MARKS, BoardRow
from tests.experiments.test_author_scores import toy_table

BASE = {"seed": "416", "loss.neg_mask": "none", "optim.lr": "0.1"}
START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
SCORES = {
    "cv.lwlrap": 0.7118,
    "cv.lwlrap_low": 0.69,
    "cv.lwlrap_high": 0.73,
    "lb.public": 0.65,
    "lb.private": 0.64,
}
PLAIN = BoardRow("workspace-5f47f7", BASE, SCORES, START, "95d8525aaaa", BASE, key="k1")
SEQ = BoardRow("exp0058", BASE | {"loss.neg_mask": "seq"}, {"cv.lwlrap": 0.74}, START, "", BASE, key="k2")
E1 = replace(PLAIN, name="e1", names=("e1",))
E3 = replace(SEQ, name="e3", names=("e3",), key="k3", params=BASE | {"optim.lr": "0.5"})
CAPTIONS = {name: Caption(row.memo_en, toy_table().step(name)) for name, row in toy_table().rows.items()}


def cells(text, number):
    return [cell.strip() for cell in text.splitlines()[number + 2].strip("|").split("|")]


def column(text, name, number):
    return cells(text, number)[cells(text, -2).index(name)]


def markdown(*rows):
    return board_markdown(lines_of_results(rows, {}))


def test_markdown_by_hand():
    text = markdown(PLAIN, SEQ)
    date = START.astimezone().strftime("%Y-%m-%d %H:%M")
    shown = [
        ("name", "workspace-5f47f7", "exp0058"),
        ("CV", "0.7118", "0.7400"),
        ("±", "0.0200", "–"),
        ("LB public", "0.6500", "–"),
        ("LB private", "0.6400", "–"),
        ("base", "–", "workspace-5f47f7"),
        ("Δ CV", "–", "+0.0282 (–)"),
        ("changed", "", "loss.neg_mask: none → seq"),
        ("date", date, date),
        ("commit", "95d8525", ""),
    ]
    assert [cells(text, number) for number in (-2, 0, 1)] == [list(row) for row in zip(*shown, strict=True)]


def test_a_single_result_has_no_columns_of_comparisons():
    text = board_markdown(judged(lines_of_results([PLAIN], {}), [PLAIN]))
    assert cells(text, -2) == ["name", "CV", "±", "LB public", "LB private", "date", "commit"]
    console = Console(file=io.StringIO(), width=300)
    print_table(judged(lines_of_results([PLAIN], {}), [PLAIN]), console)
    assert "verdict" not in console.file.getvalue()


def test_a_row_called_best_keeps_its_name_and_a_base_of_that_name_its_column():
    best = replace(PLAIN, name="best")
    assert cells(markdown(best), 0)[0] == "best"
    assert column(markdown(best, SEQ), "base", 1) == "best"


def test_markdown_columns_line_up():
    table = [line for line in markdown(PLAIN, SEQ).splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({len(line) for line in table}) == 1


def test_a_pipe_in_a_cell_does_not_break_the_table():
    assert r"a\|b" in markdown(replace(PLAIN, name="a|b"))


def test_without_base_and_committed_parameters_nothing_is_said_of_changes():
    text = markdown(PLAIN, SEQ, replace(SEQ, key="k6", base={}, data_md5="other"))
    assert column(text, "changed", 2) == "–"


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
    assert interval_text(change) == expected


def test_the_terminal_shows_the_same_numbers():
    console = Console(file=io.StringIO(), width=300)
    print_table(lines_of_results([PLAIN, SEQ], {}), console)
    printed = console.file.getvalue()
    assert "2 results" in printed
    for text in ("exp0058", "0.7118", "0.0200", "0.6500", "+0.0282", "loss.neg_mask: none → seq"):
        assert text in printed


def test_an_optimistic_cv_is_marked_and_explained():
    rows = [PLAIN, replace(SEQ, params=SEQ.params | {"train.select": "best"})]
    text = markdown(*rows)
    assert [column(text, "CV", k) for k in (0, 1)] == ["0.7118", "0.7400*"]
    assert text.splitlines()[-1] == rf"\{MARKS['*']}"
    console = Console(file=io.StringIO(), width=400)
    print_table(lines_of_results(rows, {}), console)
    assert MARKS["*"] in console.file.getvalue()


def test_an_honest_cv_needs_no_mark_and_columns_are_explained():
    text = board_markdown(judged(lines_of_results([PLAIN, SEQ], {}), [PLAIN, SEQ]))
    assert "*" not in text
    last = text.splitlines()[-5]
    assert last.startswith("±: half of the 95 % interval of CV; Δ CV: change of CV against the base")
    assert last.endswith("Δ best: change of CV against the best.")
    assert "Δ best" not in board_markdown(lines_of_results([PLAIN], {}), BOARD_COLUMNS[:4])
    assert "±:" not in board_markdown([])


def test_a_result_with_a_name_of_the_table_has_its_memo_and_base():
    text = board_markdown(lines_of_results([E1, E3], CAPTIONS))
    assert [column(text, "memo", k) for k in (0, 1)] == ["memo of e1", "memo of e3"]
    assert column(text, "base", 1) == "e1"


def test_the_author_s_rows_stand_in_their_order_with_his_scores_beside_ours():
    text = board_markdown(lines_of_table([E3, E1, SEQ], toy_table(), CAPTIONS), author_columns_of())

    def shown(name):
        return [column(text, name, k) for k in range(7)]

    assert shown("name") == ["e1", "e2", "e3", "", "e4", "", "exp0058"]  # blank lines between blocks
    assert shown("CV") == ["0.7118", "–", "0.7400", "", "–", "", "0.7400"]
    assert shown("author CV") == ["0.7000", "0.7500", "not good", "", "not run", "", "–"]
    assert shown("author LB") == ["0.6000", "not submitted", "–", "", "–", "", "–"]
    assert shown("author Δ CV") == ["–", "+0.0500", "–", "", "–", "", "–"]
    assert shown("memo")[:2] == ["memo of e1", "memo of e2"]


def test_of_two_results_of_a_name_the_newer_takes_the_row_and_the_older_stands_below():
    older = replace(E1, key="k0", metrics={"cv.lwlrap": 0.5})
    blocks = lines_of_table([older, E1], toy_table(), CAPTIONS)
    assert blocks[0][0].row == E1
    assert [line.row for line in blocks[-1]] == [older]


def test_a_row_of_several_names_stands_in_each_of_their_rows():
    both = replace(E1, names=("e1", "e2"))
    first, second, *_ = lines_of_table([both], toy_table(), CAPTIONS)[0]
    assert first.row == second.row == both
    assert second.base == both
    assert second.is_against_author_base
    named = replace(E1, name="first name")
    assert column(board_markdown(lines_of_results([named, E3], CAPTIONS)), "base", 1) == "e1"


def test_the_best_is_the_highest_honest_cv_of_the_same_data():
    optimistic = replace(
        SEQ, key="k4", params=SEQ.params | {"train.select": "best"}, metrics={"cv.lwlrap": 0.9}
    )
    elsewhere = replace(SEQ, key="k5", data_md5="other", metrics={"cv.lwlrap": 0.8})
    assert best_of([PLAIN, SEQ, optimistic, elsewhere, replace(PLAIN, metrics={})]) == {
        ("", "recording"): SEQ,
        ("other", "recording"): elsewhere,
    }
    text = board_markdown(judged(lines_of_results([PLAIN, SEQ, elsewhere], {}), [PLAIN, SEQ, elsewhere]))
    assert [column(text, "Δ best", k) for k in range(3)] == ["-0.0282 (–)", "best", "best"]
    assert (
        "Best: exp0058 (0.7400), exp0058 (0.8000), for each data set and split.group the highest CV" in text
    )


def test_the_verdict_has_its_interval_its_word_and_its_tone():
    line = BoardLine(
        SEQ,
        base=PLAIN,
        change=Difference(0.03, 0.01, 0.05, 0.99),
        judgement=Judgement(Verdict.BETTER, -0.01, 0.07, 0.93, is_tentative=True),
    )
    text = board_markdown([[line]])
    assert column(text, "Δ CV", 0) == "+0.0300 (-0.0100 … +0.0700)"
    assert [column(text, name, 0) for name in ("P", "verdict")] == ["0.93", "better?"]
    assert verdict_tone(line.judgement) == "better"
    assert verdict_tone(None) == ""


def test_every_verdict_has_its_own_word():
    words = [verdict_word(Judgement(verdict)) for verdict in Verdict]
    assert words == ["better", "worse", "within noise", "unsure", "optimistic"]
    assert set(VERDICT_WORDS) == set(Verdict)


def test_a_leaderboard_s_change_within_noise_is_marked_and_explained():
    base = replace(PLAIN, metrics={"lb.public": 0.64})
    text = board_markdown([[BoardLine(PLAIN, base=base, lb_judgement=Judgement(Verdict.WITHIN_NOISE))]])
    assert column(text, "Δ LB", 0) == "+0.0100 ≈"
    assert "≈ a different seed alone" in text
    assert "≈" not in board_markdown([[BoardLine(PLAIN, base=base, lb_judgement=Judgement(Verdict.BETTER))]])


@pytest.mark.parametrize("unsure", [Judgement(Verdict.UNSURE), Judgement(Verdict.WORSE, is_tentative=True)])
def test_a_leaderboard_s_change_whose_noise_nobody_measured_has_a_question_mark(unsure):
    line = BoardLine(PLAIN, base=replace(PLAIN, metrics={"lb.public": 0.64}), lb_judgement=unsure)
    text = board_markdown([[line]])
    assert column(text, "Δ LB", 0) == "+0.0100 ?"
    assert "? beside a change of the leaderboard score" in text
    assert "0.0100 ?" in details(line, [], None, [])


NAMED = replace(PLAIN, data_md5="d", clips_md5="c")


def of_seeds(cvs: list[float], publics: list[float], privates: list[float]) -> list[BoardRow]:
    scores = zip(cvs, publics, privates, strict=True)
    return [
        replace(
            NAMED,
            key=f"seed {seed}",
            params=BASE | {"optim.lr": "3", "seed": str(seed)},
            metrics=dict(zip((CV, "lb.public", "lb.private"), three, strict=True)),
        )
        for seed, three in enumerate(scores)
    ]


def judged_line(row: BoardRow, base: BoardRow, change: Difference, others: list[BoardRow]) -> BoardLine:
    return judged([[BoardLine(row, base=base, change=change)]], [base, row, *others])[0][0]


def test_on_the_board_an_optimistic_result_is_not_called_better() -> None:
    group = of_seeds([0.7, 0.701, 0.699, 0.7], [0.5] * 4, [0.5] * 4)
    row = replace(NAMED, key="row", params=BASE | {"optim.lr": "9"})
    sure = Difference(0.2, 0.19, 0.21, 1.0, 0.005)
    assert judged_line(row, NAMED, sure, group).judgement.verdict is Verdict.BETTER
    optimistic = replace(row, params=row.params | {"train.select": "best"})
    assert judged_line(optimistic, NAMED, sure, group).judgement.verdict is Verdict.OPTIMISTIC


def test_of_two_equal_results_the_older_is_the_best() -> None:
    older, newer = replace(SEQ, key="older"), replace(SEQ, key="newer")
    assert best_of([PLAIN, older, newer])["", "recording"].key == "older"
    no_number = replace(SEQ, key="NaN", metrics={CV: float("nan")})
    assert best_of([no_number, older])["", "recording"].key == "older"


def test_the_public_leaderboard_is_judged_by_its_own_noise() -> None:
    quiet, loud = [0.5, 0.501, 0.499, 0.5], [0.3, 0.7, 0.2, 0.8]
    row = replace(NAMED, key="row", params=BASE | {"optim.lr": "9"}, metrics=SCORES | {"lb.public": 0.70})
    change = Difference(0.01, -0.02, 0.04, 0.7, 0.01)
    verdicts = [
        judged_line(row, NAMED, change, of_seeds(quiet, *leaderboards)).lb_judgement.verdict
        for leaderboards in ((quiet, loud), (loud, quiet))
    ]
    assert verdicts == [Verdict.BETTER, Verdict.WITHIN_NOISE]


def test_a_best_result_of_other_annotations_has_no_interval() -> None:
    best = replace(NAMED, key="best", metrics={CV: 0.9})
    line = judged([[BoardLine(NAMED)]], [NAMED, best])[0][0]
    assert line.best_change.value == pytest.approx(0.7118 - 0.9)
    other = replace(best, clips_md5="else")
    assert judged([[BoardLine(NAMED)]], [NAMED, other])[0][0].best_change is None


def test_a_narrow_terminal_shows_what_matters_and_names_the_rest():
    blocks = lines_of_results([PLAIN, SEQ], {})
    assert [one.name for one in fitting(BOARD_COLUMNS, blocks[0], 50)] == ["name", "CV", "±", "verdict"]
    assert fitting(BOARD_COLUMNS, blocks[0], 5) == [BOARD_COLUMNS[0]]
    assert fitting(BOARD_COLUMNS, blocks[0], 500) == list(BOARD_COLUMNS)
    for width in (60, 80, 120):
        console = Console(file=io.StringIO(), width=width)
        print_table(blocks, console)
        printed = console.file.getvalue()
        assert max(map(len, printed.splitlines())) <= width
        assert "0.7118" in printed
        assert "No room for" in printed


def test_marks_are_explained_only_where_their_column_is_shown():
    base = replace(PLAIN, metrics={"lb.public": 0.64})
    judgement = judge(Difference(0.01, -0.02, 0.04, 0.7, 0.01), None)
    optimistic = replace(PLAIN, params=PLAIN.params | {"train.select": "best"})
    line = BoardLine(optimistic, base=base, judgement=judgement, lb_judgement=Judgement(Verdict.WITHIN_NOISE))
    legends = ("* CV is optimistic", "≈ a different seed alone", "Seeds were not measured")
    for width, n_explained in ((20, 0), (30, 1), (50, 2), (300, 3)):
        console = Console(file=io.StringIO(), width=width)
        print_table([[line]], console)
        printed = " ".join(console.file.getvalue().split())
        assert sum(legend in printed for legend in legends) == n_explained, (width, printed)


def test_a_line_without_result_has_no_metrics():
    assert BoardLine(None).metric("cv.lwlrap") is None
    assert BoardLine(E1).metric_change("cv.lwlrap") is None
