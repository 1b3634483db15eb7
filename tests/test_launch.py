import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.utils.hydra import apply_overrides

from callboard import cli, launch
from callboard.errors import UserError
from callboard.table import TABLE

ROOT = Path(__file__).parent.parent


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


def mark_as_run(name: str, *overrides: str) -> None:
    """An experiment of the current commit, as DVC leaves one in git."""
    commit = git("rev-parse", "HEAD").strip()
    apply_overrides(Path("params.yaml"), list(overrides))
    git("commit", "--quiet", "--all", "--allow-empty", "--message", "experiment")
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", "HEAD")
    git("reset", "--quiet", "--hard", commit)


class Dvc:
    """In DVC's place: keeps what follows `dvc exp run --name`, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failing: dict[str, int] = {}

    def __call__(self, *arguments: str) -> int:
        assert arguments[:3] == ("exp", "run", "--name")
        self.calls.append(list(arguments[3:]))
        return self.failing.get(arguments[3], 0)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """The current folder is a workspace with the table and the parameters, where nothing has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in (str(TABLE), "params.yaml", "dvc.yaml"):
        Path(name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "toy")
    fake = Dvc()
    monkeypatch.setattr(launch, "dvc", fake)
    return fake


def test_a_row_becomes_an_experiment_of_its_name_in_a_copy_of_the_workspace(dvc: Dvc) -> None:
    cli.dispatch(["run", "exp0058"])
    assert dvc.calls == [["exp0058", "--temp", "-S", "loss.neg_mask=seq"]]


def test_a_row_without_overrides_is_run_all_the_same(dvc: Dvc) -> None:
    cli.dispatch(["run", "exp0051"])
    assert dvc.calls == [["exp0051", "--temp"]]


def test_rows_are_queued_in_order_each_once_with_what_the_user_adds_last(dvc: Dvc) -> None:
    cli.dispatch(["run", "--queue", "-S", "train.epochs=5", "-S", "seed=1", "exp0058", "exp0051", "exp0058"])
    added = ["-S", "train.epochs=5", "-S", "seed=1"]
    assert dvc.calls == [
        ["exp0058", "--queue", "-S", "loss.neg_mask=seq", *added],
        ["exp0051", "--queue", *added],
    ]


def test_dry_prints_a_line_for_each_row_and_runs_nothing(
    dvc: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.dispatch(["run", "--dry", "exp0058", "exp0052", "exp0051"])
    assert capsys.readouterr().out.splitlines() == [
        "exp0058: loss.neg_mask=seq",
        "exp0052: train.fp_per_epoch=3",
        "exp0051: params.yaml as it is",
    ]
    assert dvc.calls == []


def test_a_name_that_is_no_row_is_refused_before_anything_runs(dvc: Dvc) -> None:
    with pytest.raises(UserError, match=r"no row 'exp58'; the nearest are exp0058"):
        cli.dispatch(["run", "exp0051", "exp58"])
    assert dvc.calls == []


@pytest.mark.parametrize("options", [[], ["--dry"]])
def test_a_row_that_is_no_experiment_names_its_command(dvc: Dvc, options: list[str]) -> None:
    with pytest.raises(
        UserError, match="todo-adversarial_validation is no experiment; run `callboard adversarial`"
    ):
        cli.dispatch(["run", *options, "exp0051", "todo-adversarial_validation"])
    assert dvc.calls == []


def test_an_experiment_that_is_there_is_left_alone_unless_forced(
    dvc: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_as_run("exp0058", "loss.neg_mask=seq")
    cli.dispatch(["run", "exp0058", "exp0051"])
    assert (
        "exp0058 is there on this commit; `callboard run --force exp0058` runs it anew"
        in capsys.readouterr().out
    )
    assert dvc.names() == ["exp0051"]
    cli.dispatch(["run", "--force", "exp0058"])
    assert dvc.calls[-1] == ["exp0058", "--temp", "--force", "-S", "loss.neg_mask=seq"]


@pytest.mark.parametrize("extra", [[], ["-S", "train.epochs=5"]])
def test_an_experiment_of_that_name_with_other_parameters_is_not_taken_for_the_row(
    dvc: Dvc, extra: list[str]
) -> None:
    mark_as_run("exp0058", "loss.neg_mask=seq", "train.epochs=7")
    with pytest.raises(UserError, match=r"exp0058 is there .* other parameters \(train.epochs: 7 → (20|5)\)"):
        cli.dispatch(["run", "exp0058", *extra])
    assert dvc.calls == []


def test_an_experiment_of_an_earlier_commit_does_not_count(dvc: Dvc) -> None:
    mark_as_run("exp0058")
    git("commit", "--quiet", "--allow-empty", "--message", "later")
    cli.dispatch(["run", "exp0058"])
    assert dvc.names() == ["exp0058"]


def test_a_failure_stops_there_names_what_is_left_and_passes_the_status_on(
    dvc: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc.failing = {"exp0057": 3}
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(["run", "exp0051", "exp0057", "exp0058", "exp0059"])
    assert exit_.value.code == 3
    assert dvc.names() == ["exp0051", "exp0057"]
    assert "error: exp0057 failed; not run: exp0058, exp0059" in capsys.readouterr().err


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Experiments that count as finished: name to content key."""
    keys: dict[str, str] = {}

    def find(name: str) -> SimpleNamespace:
        if name not in keys:
            raise UserError(f"no experiment {name}")
        return SimpleNamespace(reference=f"{name}@{keys[name]}")

    monkeypatch.setattr(launch, "find_finished", find)
    return keys


def test_a_blend_names_the_results_of_its_parts(dvc: Dvc, finished: dict[str, str]) -> None:
    finished |= {"exp0021": "0123456789abcdef", "exp0025": "00000000000000e5"}
    cli.dispatch(["run", "--queue", "exp0025-mix"])
    assert "infer.blend=['exp0021@0123456789abcdef','exp0025@00000000000000e5']" in dvc.calls[0]


@pytest.mark.parametrize(
    "names", [["exp0025-mix"], ["exp0025-mix", "exp0025"], ["--queue", "exp0025", "exp0025-mix"]]
)
def test_a_blend_of_what_is_not_finished_is_refused_before_anything_runs(
    dvc: Dvc, finished: dict[str, str], names: list[str]
) -> None:
    finished["exp0021"] = "0123456789abcdef"
    with pytest.raises(UserError, match="exp0025-mix: run exp0021 and exp0025 first: no experiment exp0025"):
        cli.dispatch(["run", *names])
    assert dvc.calls == []


def test_a_blend_may_follow_its_parts(
    dvc: Dvc, finished: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(*arguments: str) -> int:
        finished[arguments[3]] = "0123456789abcdef"
        return dvc(*arguments)

    monkeypatch.setattr(launch, "dvc", finish)
    cli.dispatch(["run", "exp0021", "exp0025", "exp0025-mix"])
    assert dvc.names() == ["exp0021", "exp0025", "exp0025-mix"]


def test_the_command_of_dvc_is_that_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "executable", "/bin/echo")
    assert launch.dvc("--version") == 0
    monkeypatch.setattr(launch.sys, "executable", "/bin/false")
    assert launch.dvc("--version") == 1
