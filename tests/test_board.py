import io
from datetime import UTC, datetime

from rich.console import Console

from callboard.board import COLUMNS, Row, as_markdown, print_table

BASE = {"seed": "416", "loss.neg_mask": "none"}
START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
PLAIN = Row(
    "workspace-5f47f7",
    BASE,
    {
        "cv.lwlrap": 0.7118,
        "cv.lwlrap_low": 0.69,
        "cv.lwlrap_high": 0.73,
        "lb.public": 0.65,
        "lb.private": 0.64,
    },
    START,
    "95d8525aaaa",
)
SEQ = Row("exp0058", BASE | {"loss.neg_mask": "seq"}, {"cv.lwlrap": 0.74}, START, "")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_by_hand() -> None:
    header, rule, plain, seq = as_markdown([PLAIN, SEQ], BASE).splitlines()
    assert cells(header) == list(COLUMNS)
    assert set(rule) <= set("|-: ")
    date = START.astimezone().strftime("%Y-%m-%d %H:%M")
    assert cells(plain) == ["workspace-5f47f7", "0.7118", "0.0200", "0.6500", "0.6400", "", date, "95d8525"]
    assert cells(seq) == ["exp0058", "0.7400", "–", "–", "–", "loss.neg_mask: none → seq", date, ""]


def test_markdown_columns_line_up() -> None:
    assert len({len(line) for line in as_markdown([PLAIN, SEQ], BASE).splitlines()}) == 1


def test_a_pipe_in_a_cell_does_not_break_the_table() -> None:
    row = Row("a|b", BASE, {}, START, "")
    assert r"a\|b" in as_markdown([row], BASE)


def test_without_committed_parameters_nothing_is_said_of_changes() -> None:
    assert cells(as_markdown([SEQ], {}).splitlines()[2])[COLUMNS.index("changed")] == "–"


def test_a_board_without_results_is_a_header() -> None:
    assert len(as_markdown([], BASE).splitlines()) == 2


def test_the_terminal_shows_the_same_numbers() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_table([PLAIN, SEQ], BASE, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 results" in printed
    for text in ("exp0058", "0.7118", "0.0200", "0.6500", "loss.neg_mask: none → seq"):
        assert text in printed
