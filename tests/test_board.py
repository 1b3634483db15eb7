import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from callboard import board
from callboard.board import COLUMNS, LEGEND, Row, as_markdown, print_table, read_rows
from callboard.errors import UserError

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
    BASE,
)
SEQ = Row("exp0058", BASE | {"loss.neg_mask": "seq"}, {"cv.lwlrap": 0.74}, START, "", BASE)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_by_hand() -> None:
    header, rule, plain, seq = as_markdown([PLAIN, SEQ]).splitlines()
    assert cells(header) == list(COLUMNS)
    assert set(rule) <= set("|-: ")
    date = START.astimezone().strftime("%Y-%m-%d %H:%M")
    assert cells(plain) == ["workspace-5f47f7", "0.7118", "0.0200", "0.6500", "0.6400", "", date, "95d8525"]
    assert cells(seq) == ["exp0058", "0.7400", "–", "–", "–", "loss.neg_mask: none → seq", date, ""]


def test_markdown_columns_line_up() -> None:
    assert len({len(line) for line in as_markdown([PLAIN, SEQ]).splitlines()}) == 1


def test_a_pipe_in_a_cell_does_not_break_the_table() -> None:
    row = Row("a|b", BASE, {}, START, "", BASE)
    assert r"a\|b" in as_markdown([row])


def test_without_committed_parameters_nothing_is_said_of_changes() -> None:
    assert cells(as_markdown([replace(SEQ, base={})]).splitlines()[2])[COLUMNS.index("changed")] == "–"


def test_a_board_without_results_is_a_header() -> None:
    assert len(as_markdown([]).splitlines()) == 2


def test_the_terminal_shows_the_same_numbers() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_table([PLAIN, SEQ], console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 results" in printed
    for text in ("exp0058", "0.7118", "0.0200", "0.6500", "loss.neg_mask: none → seq"):
        assert text in printed


@pytest.mark.parametrize("trait", [{"train.select": "best"}, {"pseudo.final": "1"}])
def test_an_optimistic_cv_is_marked_and_explained(trait: dict[str, str]) -> None:
    rows = [PLAIN, replace(SEQ, params=SEQ.params | trait)]
    lines = as_markdown(rows).splitlines()
    assert [cells(line)[1] for line in lines[2:4]] == ["0.7118", "0.7400*"]
    assert lines[-1] == rf"\{LEGEND}"
    console = Console(file=io.StringIO(), width=400)
    print_table(rows, console)
    assert LEGEND in console.file.getvalue()  # type: ignore[attr-defined]


def test_an_honest_cv_needs_no_legend() -> None:
    honest = replace(SEQ, params=SEQ.params | {"train.select": "last", "pseudo.final": "0"})
    assert "*" not in as_markdown([honest])


def stored_run(commit: str, params: dict[str, str]) -> Any:
    """As MLflow gives it."""
    data = SimpleNamespace(params=params, metrics={}, tags={"git.commit": commit})
    return SimpleNamespace(info=SimpleNamespace(run_name="run", start_time=0), data=data)


def test_a_row_is_compared_with_its_own_commit_or_else_with_head(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = {"HEAD": {"seed": "1"}, "older": {"seed": "2"}}
    monkeypatch.setattr(board, "params_at", lambda revision: committed.get(revision, {}))
    monkeypatch.setattr(
        board, "_search", lambda uri: [stored_run(commit, {"seed": "3"}) for commit in ("older", "gone", "")]
    )
    changed = [row.cells()[COLUMNS.index("changed")] for row in read_rows("sqlite:///x.db")]
    assert changed == ["seed: 2 → 3", "seed: 1 → 3", "seed: 1 → 3"]


def test_a_database_that_mlflow_cannot_use_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(UserError, match=r"the results cannot be read: .*mlflow\.db") as refusal:
        read_rows(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(str(refusal.value).splitlines()) == 1


def test_a_server_that_is_down_is_one_sentence_without_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=re.escape("127.0.0.1:9")) as refusal:
        read_rows("http://someone:secret@127.0.0.1:9")
    assert len(str(refusal.value).splitlines()) == 1
    assert "secret" not in str(refusal.value)
