import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callboard import cli
from callboard.core.compute import Compute
from callboard.core.errors import UserError
from callboard.results import rows as board
from callboard.results.mlflow.record import Origin
from callboard.results.mlflow.track import record
from callboard.results.rows import BoardRow, mark_of, read_rows
from callboard.results.stored_runs import StoredRun
from tests.toy_results import result_in, workspace, write_workspace

ROOT = Path(__file__).parents[2]

__all__ = ["workspace"]

START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)


def row(**params: str) -> BoardRow:
    return BoardRow("run", {"infer.blend": "[]"} | params, {}, START, "", {})


@pytest.mark.parametrize(
    "trait",
    [
        {"train.select": "best"},
        {"train.select": "best_loss"},
        {"sched.name": "plateau"},
        {"pseudo.rounds": "1"},
    ],
)
def test_an_optimistic_cv_is_known_by_its_parameters(trait: dict[str, str]) -> None:
    assert row(**trait).is_optimistic
    assert not row(**{"train.select": "last", "pseudo.rounds": "0"}).is_optimistic


def test_students_of_nested_teachers_have_an_honest_cv() -> None:
    nested = {"pseudo.rounds": "2", "pseudo.isolation": "nested"}
    assert not row(**nested).is_optimistic
    assert row(**nested, **{"train.select": "best"}).is_optimistic


HERE = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1")
THERE = replace(HERE, threads=2)


def test_a_blend_is_computed_by_what_computed_its_parts_and_a_chain_also_by_what_began_it() -> None:
    here, there = (replace(row(), own_computes=frozenset([compute])) for compute in (HERE, THERE))
    blend = replace(row(**{"infer.blend": '["a@0", "b@1", "c@2"]'}), parts=(here, there, row()))
    assert blend.computed_by == {HERE, THERE}
    assert replace(here, begun_from=there).computed_by == {HERE, THERE}
    assert replace(here, begun_from=row()).computed_by == here.computed_by == {HERE}
    assert row().computed_by == frozenset()


VOTED = {"pseudo.rounds": "1", "pseudo.isolation": "none", "pseudo.source": "train"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"pseudo.source": "train_test"}, True),
        ({"pseudo.source": "test"}, False),
        ({"pseudo.isolation": "recording"}, False),
        ({"pseudo.isolation": "nested"}, False),
        ({"pseudo.rounds": "0"}, False),
    ],
)
def test_a_result_is_unisolated_if_networks_labelled_what_they_had_trained_on(
    change: dict[str, str], expected: bool
) -> None:
    found = row(**(VOTED | change))
    assert found.is_unisolated is expected
    assert found.is_optimistic or not found.is_unisolated
    assert mark_of(found) == ("!" if expected else "*" if found.is_optimistic else "")


def blend_of(*digits: str) -> dict[str, str]:
    """Parameters of a blend of the results with these keys."""
    return {"infer.blend": json.dumps([f"a@{digit * 16}" for digit in digits])}


def test_a_blend_is_unisolated_if_a_part_is() -> None:
    parts = [stored_run("", {}, key="0" * 16), stored_run("", VOTED, key="1" * 16)]
    blends = [stored_run("", blend_of(*digits)) for digits in ("0", "1", "01", "02")]
    found = [row.is_unisolated for row in rows_of([*parts, *blends])]
    assert found == [False, True, False, True, True, False]


def test_a_blend_is_optimistic_if_a_part_is_or_is_unknown() -> None:
    honest, optimistic = (
        stored_run("", {}, key="0" * 16),
        stored_run("", {"pseudo.rounds": "1"}, key="1" * 16),
    )
    blends = [stored_run("", blend_of(*digits) | {"pseudo.rounds": "1"}) for digits in ("0", "1", "01", "02")]
    rows = rows_of([honest, optimistic, *blends])
    assert [found.is_optimistic for found in rows] == [False, True, False, True, True, True]


@pytest.mark.parametrize("trait", [{"train.select": "best"}, {"pseudo.rounds": "1"}, VOTED])
def test_a_result_is_no_more_honest_than_the_weights_that_it_started_from(trait: dict[str, str]) -> None:
    first = [stored_run("", {}, key="0" * 16), stored_run("", trait, key="1" * 16)]
    second = [stored_run("", {"train.init_from": f"a@{k * 16}"}, key=f"{k}a") for k in "01"]
    third = stored_run("", {"train.init_from": "b@1a"})  # two links behind
    unknown = stored_run("", {"train.init_from": "gone@2"})
    rows = rows_of([*first, *second, third, unknown, stored_run("", {"train.init_from": "null"})])
    assert [found.is_optimistic for found in rows] == [False, True, False, True, True, True, False]
    voted = trait is VOTED
    assert [found.is_unisolated for found in rows] == [False, voted, False, voted, voted, False, False]


def rows_of(stored: list[StoredRun]) -> list[BoardRow]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "stored_runs", lambda: stored)
        return read_rows()


def stored_run(commit: str, params: dict[str, str], **tags: str) -> StoredRun:
    texts = {"git.commit": commit} | {f"callboard.{name}": text for name, text in tags.items()}
    return StoredRun("run", 0, params, {}, texts)


@pytest.mark.parametrize(
    ("note", "told"),
    [
        ("Against 95d8525: loss.neg_mask: none → seq", ""),
        ("Against 95d8525: no other parameter\n\nlook at species 3", "look at species 3"),
        ("Against my hopes: worse", "Against my hopes: worse"),
    ],
)
def test_a_note_is_what_a_person_wrote(note: str, told: str) -> None:
    run = StoredRun("run", 0, tags={"mlflow.note.content": note})
    assert [row.note for row in rows_of([run])] == [told]


def test_a_row_knows_the_parameters_of_its_own_commit_and_of_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    committed = {"HEAD": {"seed": "1"}, "older": {"seed": "2"}}
    monkeypatch.setattr(board, "params_of", lambda revision: committed.get(revision, {}))
    rows = rows_of([stored_run(commit, {"seed": "3"}) for commit in ("older", "gone", "")])
    assert [found.base for found in rows] == [{"seed": "2"}, {}, {}]


def test_a_database_that_mlflow_cannot_use_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(UserError, match=r"the results cannot be read: .*mlflow\.db") as refusal:
        read_rows()
    assert len(str(refusal.value).splitlines()) == 1


def test_a_server_that_is_down_is_one_sentence_without_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=re.escape("127.0.0.1:9")) as refusal:
        read_rows()
    assert len(str(refusal.value).splitlines()) == 1
    assert "secret" not in str(refusal.value)


@pytest.mark.slow
def test_the_whole_board_is_written_at_once(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = workspace.parent
    for path in ("dvc.yaml", "experiments.yaml", "tests/params.yaml"):
        (main / Path(path).name).symlink_to(ROOT / path)
    monkeypatch.chdir(main)
    record(result_in(workspace), Origin("exp0001", "c0ffee0"))
    record(result_in(write_workspace(main / "other", "seq")), Origin("exp0058", "c0ffee0"))
    cli.dispatch(["board", "--author", "--output", "docs/board.md"])
    assert capsys.readouterr().out == "board: 2 results in docs/board.md\n"
    text = (main / "docs/board.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| exp0")]
    assert len(set(lines)) == 77
    assert lines[:2] == ["exp0001", "exp0002"]
    assert "77 rows in the table, 2 of them with a result here, all with " in text
    cli.dispatch(["board"])
    printed = capsys.readouterr().out
    assert "Remove the loss of negatives: sequence part" in printed
    assert "author" not in printed.splitlines()[0]
