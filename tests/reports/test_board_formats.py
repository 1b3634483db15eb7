"""Markdown, CSV and HTML of the same lines."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
from rich.console import Console

from callboard.analysis.difference import Difference
from callboard.analysis.lines import BoardLine
from callboard.analysis.seed_noise import SeedNoise
from callboard.analysis.verdict import Judgement, Verdict, judge
from callboard.reports.board.columns import BOARD_COLUMNS, SEEDS_LEGEND, Column, columns_of, estimate_column
from callboard.reports.board.formats import as_csv, board_markdown, print_table
from callboard.reports.board.page import board_html
from callboard.results.rows import CV
from tests.reports.test_board_columns import E1, E3, PLAIN

EVIL = '<script>alert("a|b")</script>'
CHANGE = Difference(0.02824, 0.01, 0.05, 0.99)
LINES = [
    BoardLine(PLAIN, best=E3),
    BoardLine(
        E3,
        base=PLAIN,
        change=CHANGE,
        memo=EVIL,
        judgement=Judgement(Verdict.BETTER, -0.0012, 0.0643, 0.991),
        best=E3,
    ),
    BoardLine(replace(E1, metrics={}), base=PLAIN),
]


class Cells(HTMLParser):
    """Texts and sort values of a page's table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.by: list[list[str]] = []
        self.tags: list[str] = []
        self.is_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.by.append([])
        if tag == "td":
            self.is_cell = True
            self.rows[-1].append("")
            self.by[-1].append(dict(attrs)["data-by"])

    def handle_endtag(self, tag):
        self.is_cell = self.is_cell and tag != "td"

    def handle_data(self, data):
        if self.is_cell:
            self.rows[-1][-1] += data.strip()


def test_all_formats_say_the_same() -> None:
    markdown = [
        [cell.strip().replace(r"\|", "|").replace("&lt;", "<") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in board_markdown([LINES]).splitlines()[2:5]
    ]
    page = Cells(board_html([LINES], "toy"))
    assert page.rows[1:] == markdown
    table = pd.read_csv(io.StringIO(as_csv([LINES])))
    names = [column.name for column in BOARD_COLUMNS]
    pairs = {"CV": "cv", "±": "cv_half_width", "LB public": "lb_public", "LB private": "lb_private"}
    for shown, field in pairs.items():
        texts = [row[names.index(shown)] for row in markdown]
        assert texts == ["–" if pd.isna(value) else f"{value:.4f}" for value in table[field]]
        by = [row[names.index(shown)] for row in page.by[1:]]
        assert pd.to_numeric(pd.Series(by)).equals(table[field].astype(float))
    assert markdown[1][names.index("Δ CV")] == "+0.0282 (-0.0012 … +0.0643)"
    told = table.loc[
        1, ["cv_change", "cv_change_low", "cv_change_high", "p_better", "verdict", "memo"]
    ].tolist()
    assert told == [0.02824, -0.0012, 0.0643, 0.991, "better", EVIL]


def test_no_text_of_the_csv_is_a_formula() -> None:
    memos = {"=HYPERLINK(1)": "'=HYPERLINK(1)", "+1 epoch": "'+1 epoch", "-0.5": "-0.5", "a=b": "a=b"}
    text = as_csv([[replace(LINES[1], memo=memo) for memo in memos]])
    table = pd.read_csv(io.StringIO(text), dtype=str)
    assert table["memo"].tolist() == list(memos.values())
    assert table["cv_change_low"].tolist() == ["-0.0012"] * 4


def printed(columns: Sequence[Column], *lines: BoardLine) -> list[str]:
    """Of people's formats, without line ends; code is between backticks in all of them."""
    console = Console(file=io.StringIO(), width=400)
    print_table([list(lines)], console, columns)
    texts = (
        console.file.getvalue(),
        board_markdown([list(lines)], columns),
        re.sub("</?code>", "`", board_html([list(lines)], "toy", columns)),
    )
    return [" ".join(html.unescape(text).split()) for text in texts]


def test_where_seeds_were_not_measured_it_is_said_once() -> None:
    change = Difference(0.01, -0.02, 0.04, 0.7, 0.01)
    of_recordings = replace(LINES[1], judgement=judge(change, None))
    measured = replace(LINES[1], judgement=judge(change, SeedNoise({CV: 0.01}, 0.01, 10, 11)))
    without_interval = replace(LINES[1], judgement=judge(Difference(0.01), None))
    assert of_recordings.judgement.verdict is measured.judgement.verdict is Verdict.WITHIN_NOISE
    for text in printed(BOARD_COLUMNS, of_recordings, of_recordings, measured):
        assert text.count(SEEDS_LEGEND) == 1
    for text in printed(BOARD_COLUMNS, measured, without_interval, LINES[0]):
        assert SEEDS_LEGEND not in text
    table = pd.read_csv(io.StringIO(as_csv([[of_recordings, measured, without_interval]])))
    assert table["are_seeds_measured"].fillna("").tolist() == [False, True, ""]


def test_another_cv_is_named_and_what_stays_the_pooled_one_s_is_said() -> None:
    columns = columns_of(estimate_column("macro_ap", {PLAIN.key: {"macro_ap": 0.1234}}))
    told = "CV macro_ap is that estimate; ±, Δ, P, verdict and best refer to the pooled LWLRAP."
    for text in printed(columns, *LINES):
        assert text.count(told) == 1
        assert "0.1234" in text
    for text in printed(BOARD_COLUMNS, *LINES):
        assert "that estimate" not in text


def test_a_memo_is_text_on_the_page_and_in_markdown() -> None:
    page = board_html([LINES], "toy")
    assert "<script>alert" not in page
    assert Cells(page).tags.count("script") == 1
    assert "<script>" not in board_markdown([LINES])


def test_the_page_loads_nothing_and_says_verdicts_in_words_and_colour() -> None:
    page = board_html([LINES], "toy")
    assert not re.search(r"(src|href)=|https?://|@import|url\(", page)
    assert '<span class="better">better</span>' in page


def test_a_csv_of_nothing_is_its_header() -> None:
    assert as_csv([[]]).count("\n") == 1
    assert as_csv([[]]).startswith("name,cv,")
    assert as_csv([LINES]).splitlines()[0] == as_csv([[]]).strip()


def test_cv_against_lb_is_drawn_of_three_honest_results() -> None:
    rows = [
        replace(PLAIN, key=str(k), name=f"e{k}", metrics={"cv.lwlrap": 0.1 * k, "lb.public": 0.5})
        for k in range(4)
    ]
    honest = [BoardLine(row) for row in rows]
    optimistic = BoardLine(replace(rows[0], params={"train.select": "best"}))
    assert board_html([[*honest, optimistic]], "toy").count("<circle") == 4
    assert "<svg" not in board_html([honest[:2]], "toy")


def test_a_cv_without_isolation_has_its_own_mark_in_every_format():
    voted = {"pseudo.rounds": "1", "pseudo.isolation": "none", "pseudo.source": "train"}
    lines = [BoardLine(replace(PLAIN, params=PLAIN.params | voted, metrics={CV: 0.5})), BoardLine(E3)]
    console = Console(file=io.StringIO(), width=300)
    print_table([lines], console)
    for text in (
        board_markdown([lines]),
        html.unescape(board_html([lines], "board")),
        console.file.getvalue(),
    ):
        assert "0.5000!" in text
        assert "! CV is not out of fold: models voted on recordings that they had trained on" in text
        assert "* CV is optimistic" not in text.replace("\\", "")
    table = pd.read_csv(io.StringIO(as_csv([lines])))
    assert table["is_unisolated"].tolist() == [True, False]
    assert table["is_optimistic"].tolist() == [True, False]
