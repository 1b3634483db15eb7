from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.experiments import seeds as seed_runs
from callboard.experiments.launch import RunOptions
from callboard.params.defaults import read_full_tree, result_params
from callboard.results.rows import CV, BoardRow
from tests.experiments.test_launch import ROOT, Dvc, dvc, mark_as_run  # noqa: F401  a fixture

PARAMS = result_params(read_full_tree(ROOT / "tests/params.yaml"))
START = datetime(2020, 11, 20, tzinfo=UTC)


def result(seed: int, cv: float, name: str = "", **params: str) -> BoardRow:
    changed = PARAMS | {key.replace("__", "."): value for key, value in params.items()} | {"seed": str(seed)}
    name = name or f"exp0051-seed{seed}"
    metrics = {CV: cv, "lb.public": cv - 0.1}
    return BoardRow(name, changed, metrics, START, "", {}, (name,), key=f"{name}{cv}", data_md5="d")


class Board(list[BoardRow]):
    """In MLflow's place; every experiment that DVC runs appears on it."""


@pytest.fixture
def board(dvc: Dvc, monkeypatch: pytest.MonkeyPatch) -> Board:  # noqa: F811
    rows = Board()
    monkeypatch.setattr("callboard.results.rows.rows_so_far", lambda: list(rows))
    ran = dvc.__class__.__call__

    def run(self: Dvc, name: str, overrides: Sequence[str], options: RunOptions, *where: object) -> int:
        status = ran(self, name, overrides, options)
        if not status and not options.is_queued:
            seed = int(overrides[-1].removeprefix("seed="))
            rows.append(result(seed, 0.7 + seed / 100, name))
        return status

    monkeypatch.setattr(Dvc, "__call__", run)
    return rows


def test_what_is_missing_is_run_and_the_noise_printed(
    board: Board,
    dvc: Dvc,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    board += [result(416, 0.72, "exp0051"), result(2, 0.72)]
    cli.dispatch(["noise", "exp0051", "--seeds", "4"])
    assert dvc.calls == [[f"exp0051-seed{k}", "-S", f"seed={k}"] for k in (1, 3)]
    out = capsys.readouterr().out
    assert "exp0051: 4 runs that differ in nothing but the seed" in out
    assert "sd of a run      0.0082      0.0082           –" in out  # of 0.71, 0.72, 0.72, 0.73
    assert "range      0.0200" in out
    # 3.1824 · sqrt(2) · 0.00816: the tables are gone, so that recordings explain nothing
    assert "A difference of CV below 0.037 between two separate runs is within noise." in out


def test_with_all_seeds_there_it_only_prints(
    board: Board,
    dvc: Dvc,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    board += [result(1, 0.70), result(5, 0.72)]
    cli.dispatch(["noise", "exp0051", "--seeds", "2"])
    assert dvc.calls == []
    assert "2 seeds say little" in capsys.readouterr().out


def test_dry_and_queue_run_nothing_now(
    board: Board,
    dvc: Dvc,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.dispatch(["noise", "exp0058", "--seeds", "2", "--dry", "-S", "train.epochs=5"])
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [
        f"exp0058-seed{k}: loss.neg_mask=seq train.epochs=5 seed={k}" for k in (1, 2)
    ]
    assert "exp0058: 0 finished runs; noise needs two seeds" in out
    assert dvc.calls == []
    cli.dispatch(["noise", "exp0058", "--seeds", "2", "--queue"])
    assert [call[1] for call in dvc.calls] == ["--queue"] * 2
    assert "2 queued: run `dvc queue start`" in capsys.readouterr().out


def test_a_result_is_repeated_with_its_own_parameters(
    board: Board,
    dvc: Dvc,  # noqa: F811
) -> None:
    board.append(result(416, 0.7, "mine", train__epochs="7", split__folds="[0, 1]", mixup__mode="none"))
    board[0] = replace(
        board[0],
        params=board[0].params | {"model.backbone_args.layers": "[2, 2]", "model.backbone_args.x": "y"},
    )
    cli.dispatch(["noise", "mine", "--seeds", "2"])
    (call,) = dvc.calls
    assert call[0] == "mine-seed1"
    assert set(call[2::2]) == {
        "train.epochs=7",
        "split.folds=[0,1]",
        "mixup.mode=none",
        "model.backbone_args.layers=[2,2]",
        "+model.backbone_args.x=y",
        "seed=1",
    }


def test_of_a_failure_what_is_finished_counts(
    board: Board,
    dvc: Dvc,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    dvc.failing["exp0051-seed3"] = 7
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(["noise", "exp0051"])
    assert exit_.value.code == 7
    assert dvc.names() == [f"exp0051-seed{k}" for k in (1, 2, 3)]
    printed = capsys.readouterr()
    assert "exp0051: 2 runs that differ" in printed.out
    assert "error: exp0051-seed3 failed; not run: exp0051-seed4, exp0051-seed5" in printed.err


def test_results_of_other_data_or_parameters_are_not_counted(board: Board) -> None:
    board += [
        replace(result(1, 0.7), data_md5="old"),
        replace(result(4, 0.7), clips_md5="old"),
        result(2, 0.7, train__epochs="3"),
        result(3, 0.7),
    ]
    assert seed_runs.runs_of([], board) == [board[3]]


def test_what_cannot_be_repeated_is_refused(board: Board) -> None:
    board.append(result(1, 0.7, "blend", infer__blend='["a@0123456789abcdef"]'))
    for arguments, words in (
        (["exp005"], "no result is called 'exp005'; the nearest are exp005"),
        (["blend"], "a blend has no noise of its own"),
        (["todo-adversarial_validation"], "is not an experiment; run `callboard adversarial`"),
    ):
        with pytest.raises(UserError, match=words):
            cli.dispatch(["noise", *arguments])


def test_a_name_that_is_taken_is_refused_before_anything_runs(
    board: Board,
    dvc: Dvc,  # noqa: F811
) -> None:
    mark_as_run("exp0051-seed2", "seed=2", "train.epochs=3")
    with pytest.raises(
        UserError, match=r"exp0051-seed2 exists on this commit with different parameters \(train.epochs"
    ):
        cli.dispatch(["noise", "exp0051"])
    mark_as_run("exp0051-seed1", "seed=1")
    with pytest.raises(UserError, match=r"exp0051-seed1 is finished but .* `callboard sync` records it"):
        cli.dispatch(["noise", "exp0051", "--seeds", "2"])
    assert dvc.calls == []
