import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.experiments.author_scores import author_runs, author_verdict, import_runs
from callboard.experiments.presets import read_preset, with_values
from callboard.experiments.table import ExperimentTable, TableRow, read_experiments
from callboard.params.base import read_tree
from callboard.params.defaults import result_params
from callboard.results.rows import read_rows
from tests.toy_results import runs

ROOT = Path(__file__).parents[2]
COMPETITION = with_values(read_tree(ROOT / "tests/params.yaml"), read_preset(ROOT / "presets/rfcx.yaml"))
PRESET = {"seed": 1, "optim": {"lr": 0.1}, "model": {"backbone": "resnet18", "backbone_args": {"depth": 3}}}


def row(name: str, **fields: Any) -> TableRow:
    texts = {"block": 1, "memo_ja": f"{name} メモ", "memo_en": f"memo of {name}", "certainty": "code"}
    return TableRow.model_validate({"id": name} | texts | fields)


def toy_table(*more: TableRow) -> ExperimentTable:
    rows = [
        row("e1", cv=0.7, lb=0.6, set={"optim.lr": 0.1}),
        row("e2", base="e1", cv=0.75, set={"optim.lr": 0.3}, note="odd"),
        row("e3", base="e1", verdict="not good", set={"optim.lr": 0.5}, alone={"model.backbone_args": {}}),
        row("e4", base="e1", block=2, set={"optim.lr": 0.7}),
        row("beside", base="e1", block="todo", command="callboard adversarial"),
        *more,
    ]
    resolved = {entry.name: {"optim.lr": 0.1} | entry.changes for entry in rows}
    return ExperimentTable({entry.name: entry for entry in rows}, resolved)


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def imported(folder: Path) -> dict[str, Any]:
    found = {run.data.tags["callboard.row"]: run for run in runs(folder, "author")}
    assert all(run.info.run_name == f"{name} (author)" for name, run in found.items())
    return found


def test_every_row_of_the_table_and_nothing_beside_it_becomes_a_run() -> None:
    table = read_experiments(ROOT / "experiments.yaml")
    made = author_runs(table, COMPETITION)
    assert len(made) == 77
    assert sum("cv.lwlrap" in run.metrics for run in made) == 62
    assert sum("lb.public" in run.metrics for run in made) == 62
    told = [run.tags["callboard.verdict"] for run in made if not run.metrics]
    assert (told.count("not good"), told.count("not run")) == (6, 8)
    assert len({run.name for run in made}) == 77


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cv": 0.8, "lb": 0.7}, "scored"),
        ({"lb": 0.7}, "scored"),
        ({"cv": 0.8}, "not submitted"),
        ({}, "not run"),
        ({"verdict": "not good"}, "not good"),
    ],
)
def test_a_verdict_is_the_author_s_or_what_is_missing(fields: dict[str, Any], expected: str) -> None:
    assert author_verdict(row("e", **fields)) == expected


def test_params_are_the_preset_with_the_row_in_place() -> None:
    first, _, third, _ = author_runs(toy_table(), PRESET)
    assert first.params == result_params(PRESET)
    assert third.params == {
        "seed": "1",
        "optim.lr": "0.5",
        "model.backbone": "resnet18",
        "model.backbone_args": "{}",
    }


def test_an_imported_run_says_whose_numbers_it_holds(folder: Path) -> None:
    assert import_runs(author_runs(toy_table(), PRESET)) == "4 new"
    found = imported(folder)
    assert list(found) == ["e4", "e3", "e2", "e1"]  # newest first: the table's order
    second = found["e2"]
    assert second.info.status == "FINISHED"
    assert second.data.metrics == {"cv.lwlrap": 0.75}
    assert second.data.tags["mlflow.note.content"] == "memo of e2\n\ne2 メモ\n\nodd"
    assert second.data.tags["callboard.base"] == "e1"
    assert second.data.tags["callboard.verdict"] == "not submitted"
    assert "optimistic, not out of fold" in second.data.tags["callboard.cv_definition"]
    assert found["e3"].data.metrics == {}
    assert found["e4"].data.tags["callboard.block"] == "2"


def test_an_import_that_was_killed_before_the_end_of_a_run_makes_it_anew(folder: Path) -> None:
    from mlflow import MlflowClient

    made = author_runs(toy_table(), PRESET)
    import_runs(made)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    client.set_terminated(imported(folder)["e2"].info.run_id, "RUNNING")
    assert import_runs(made) == "3 unchanged, 1 renewed"
    assert imported(folder)["e2"].info.status == "FINISHED"


def test_a_second_import_changes_nothing(folder: Path) -> None:
    made = author_runs(toy_table(), PRESET)
    import_runs(made)
    first = {name: (run.info.run_id, run.data.to_dictionary()) for name, run in imported(folder).items()}
    assert import_runs(made) == "4 unchanged"
    assert {n: (r.info.run_id, r.data.to_dictionary()) for n, r in imported(folder).items()} == first


def test_a_table_of_several_pages_is_known_as_a_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = author_runs(toy_table(), PRESET)
    import_runs(made)
    monkeypatch.setattr("callboard.results.stored_runs.RUNS_PER_CALL", 1)
    assert import_runs(made) == "4 unchanged"


def test_a_changed_memo_is_renewed_in_the_same_run(folder: Path) -> None:
    import_runs(author_runs(toy_table(), PRESET))
    before = imported(folder)["e4"].info.run_id
    table = toy_table()
    table.rows["e4"] = row("e4", base="e1", block=2, memo_en="better words", set={"optim.lr": 0.7})
    assert import_runs(author_runs(table, PRESET)) == "3 unchanged, 1 renewed"
    after = imported(folder)["e4"]
    assert after.info.run_id == before
    assert after.data.tags["mlflow.note.content"].startswith("better words")


def test_a_changed_score_replaces_the_run_and_a_row_that_is_gone_takes_its_run_along(folder: Path) -> None:
    import_runs(author_runs(toy_table(row("e5", base="e1", cv=0.9)), PRESET))
    table = toy_table()
    table.rows["e2"] = row("e2", base="e1", set={"optim.lr": 0.3})
    assert import_runs(author_runs(table, PRESET)) == "3 unchanged, 1 renewed, 1 removed"
    found = runs(folder, "author")
    assert sorted(run.data.tags["callboard.row"] for run in found) == ["e1", "e2", "e3", "e4"]
    assert imported(folder)["e2"].data.metrics == {}


def test_an_import_that_was_killed_is_completed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", die)
        with pytest.raises(KeyboardInterrupt):
            import_runs(author_runs(toy_table(), PRESET))
    assert import_runs(author_runs(toy_table(), PRESET)) == "1 renewed, 3 new"
    assert len(runs(folder, "author")) == 4


def test_the_board_of_results_does_not_take_them_for_results(folder: Path) -> None:
    import_runs(author_runs(toy_table(), PRESET))
    assert read_rows() == []


def test_a_database_that_mlflow_cannot_use_is_one_sentence(folder: Path) -> None:
    (folder / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(UserError, match=r"the table cannot be imported: .*mlflow\.db") as refusal:
        import_runs(author_runs(toy_table(), PRESET))
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.slow
def test_the_whole_table_is_imported_within_seconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("dvc.yaml", "tests/params.yaml", "experiments.yaml", "presets"):
        (folder / Path(path).name).symlink_to(ROOT / path)
    monkeypatch.chdir(folder)
    start = time.monotonic()
    cli.dispatch(["import"])
    assert time.monotonic() - start < 60
    assert capsys.readouterr().out == "import: 77 rows of experiments.yaml, 77 new\n"
    cli.dispatch(["import"])
    assert "77 unchanged" in capsys.readouterr().out
