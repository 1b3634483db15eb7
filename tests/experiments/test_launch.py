import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from callboard import cli
from callboard.core.errors import UserError
from callboard.experiments import launch, seeds
from callboard.experiments.launch import RunOptions
from callboard.experiments.table import TABLE, read_experiments
from callboard.params.base import read_tree
from callboard.results.lookup import find
from callboard.results.result import SUBMISSION
from tests.toy_git import lock_stages

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


def mark_as_run(name: str, *overrides: str, outs: dict[str, str] | None = None) -> None:
    """An experiment of the current commit, as DVC leaves one in git; with a result where `outs` tells it."""
    commit = git("rev-parse", "HEAD").strip()
    apply_overrides(Path("params.yaml"), list(overrides))
    if outs:
        Path("dvc.lock").write_text(yaml.safe_dump({"stages": lock_stages(outs, {})}))
        git("add", "dvc.lock")
    git("commit", "--quiet", "--all", "--allow-empty", "--message", "experiment")
    git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", "HEAD")
    git("reset", "--quiet", "--hard", commit)


class Dvc:
    """In DVC's place: keeps what each experiment is run with, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failing: dict[str, int] = {}

    def __call__(self, name: str, overrides: Sequence[str], options: RunOptions, *where: object) -> int:
        how = ["--queue"] * options.is_queued + ["--force"] * options.is_forced
        self.calls.append([name, *how, *[word for text in overrides for word in ("-S", text)]])
        return self.failing.get(name, 0)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """The current folder is a workspace with the table and the parameters, where nothing has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("CALLBOARD_WORKERS", "1")  # one stage at a time
    for path in (ROOT / TABLE, ROOT / "tests/params.yaml", ROOT / "dvc.yaml"):
        Path(path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "toy")
    fake = Dvc()
    for module in (launch, seeds):
        monkeypatch.setattr(module, "run_experiment", fake)
    return fake


def test_a_row_becomes_an_experiment_of_its_name_in_a_copy_of_the_workspace(dvc: Dvc) -> None:
    cli.dispatch(["run", "exp0058"])
    assert dvc.calls == [["exp0058", "-S", "loss.neg_mask=seq"]]


def test_a_row_without_overrides_is_run_all_the_same(dvc: Dvc) -> None:
    cli.dispatch(["run", "exp0051"])
    assert dvc.calls == [["exp0051"]]


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
        "exp0051: params.yaml unchanged",
    ]
    assert dvc.calls == []


@pytest.mark.parametrize(
    ("own", "names"),
    [(416, ["exp0058", "exp0058-seed1", "exp0058-seed2"]), (1, ["exp0058", "exp0058-seed2"])],
)
def test_seeds_are_that_of_params_yaml_and_the_smallest_others(dvc: Dvc, own: int, names: list[str]) -> None:
    git("config", "user.name", "toy")
    apply_overrides(Path("params.yaml"), [f"seed={own}"])
    cli.dispatch(["run", "exp0058", "--seeds", str(len(names)), "-S", "train.epochs=5"])
    assert dvc.names() == names
    assert [call[-1] for call in dvc.calls[1:]] == ["train.epochs=5"] * (len(names) - 1)
    assert "seed=2" in dvc.calls[-1]


def test_a_name_that_is_no_row_is_refused_before_anything_runs(dvc: Dvc) -> None:
    with pytest.raises(UserError, match=r"no row 'exp58'; the nearest are exp0058"):
        cli.dispatch(["run", "exp0051", "exp58"])
    assert dvc.calls == []


def test_an_id_without_a_row_of_its_own_lists_its_variants(dvc: Dvc) -> None:
    for command in ("run", "noise"):
        with pytest.raises(UserError, match=r"nearest are exp0063-not_0\.5, exp0063-max_focal$"):
            cli.dispatch([command, "exp0063"])


@pytest.mark.parametrize("command", ["show", "audit", "report", "suspects"])
def test_a_row_that_never_ran_is_told_from_an_unknown_name(dvc: Dvc, command: str) -> None:
    words = "exp0058 is a row of experiments.yaml without a result; `callboard run exp0058` runs it"
    with pytest.raises(UserError, match=words):
        cli.dispatch([command, "exp0058"])
    with pytest.raises(UserError, match="no result is called 'nope'; there are no results yet: `dvc repro`"):
        cli.dispatch([command, "nope"])


@pytest.mark.parametrize("command", ["show", "audit"])
@pytest.mark.parametrize("revision", ["HEAD", "kept"])
def test_a_revision_without_a_result_has_one_message_in_all_commands(
    dvc: Dvc, command: str, revision: str
) -> None:
    git("tag", "kept")
    with pytest.raises(UserError, match=f"^{revision} holds no finished result; name one, or commit"):
        cli.dispatch([command, revision])


def test_the_table_is_shown_before_the_first_result(dvc: Dvc, capsys: pytest.CaptureFixture[str]) -> None:
    cli.dispatch(["board", "--author"])
    assert "exp0063-not_0.5" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--dry"]])
def test_a_row_that_is_no_experiment_names_its_command(dvc: Dvc, options: list[str]) -> None:
    with pytest.raises(
        UserError, match="todo-adversarial_validation is not an experiment; run `callboard adversarial`"
    ):
        cli.dispatch(["run", *options, "exp0051", "todo-adversarial_validation"])
    assert dvc.calls == []


def test_an_experiment_that_is_there_is_left_alone_unless_forced(
    dvc: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_as_run("exp0058", "loss.neg_mask=seq")
    cli.dispatch(["run", "exp0058", "exp0051"])
    assert (
        "exp0058 exists on this commit; `callboard run --force exp0058` runs it again"
        in capsys.readouterr().out
    )
    assert dvc.names() == ["exp0051"]
    cli.dispatch(["run", "--force", "exp0058"])
    assert dvc.calls[-1] == ["exp0058", "--force", "-S", "loss.neg_mask=seq"]


@pytest.mark.parametrize("extra", [[], ["-S", "train.epochs=5"]])
def test_an_experiment_of_that_name_with_other_parameters_is_not_taken_for_the_row(
    dvc: Dvc, extra: list[str]
) -> None:
    mark_as_run("exp0058", "loss.neg_mask=seq", "train.epochs=7")
    with pytest.raises(
        UserError, match=r"exp0058 exists .* different parameters \(train.epochs: 7 → (20|5)\)"
    ):
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


@pytest.mark.parametrize("md5", ["0123.dir", "0123"])
def test_a_failure_tells_of_folders_that_the_cache_lacks(
    dvc: Dvc, capsys: pytest.CaptureFixture[str], md5: str
) -> None:
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": lock_stages({"scores/windows": md5}, {})}))
    dvc.failing = {"exp0058": 1}
    with pytest.raises(SystemExit):
        cli.dispatch(["run", "exp0058"])
    words = "dvc.lock names scores/windows, which DVC's cache lacks; `dvc repro`, then commit dvc.lock"
    assert (words in capsys.readouterr().err) == md5.endswith(".dir")


@pytest.fixture
def finishing(dvc: Dvc, monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """The same, where what has run is finished."""

    def finish(name: str, overrides: Sequence[str], options: RunOptions, *where: object) -> int:
        status = dvc(name, overrides, options)
        if not status:
            finish_as(name, *overrides)
        return status

    monkeypatch.setattr(launch, "run_experiment", finish)
    return dvc


def test_a_workspace_without_dvc_lock_is_given_that_of_its_first_result(dvc: Dvc) -> None:
    mark_as_run("exp0058", outs={SUBMISSION: "s"})
    cli.dispatch(["run", "--force", "exp0058"])
    assert Path("dvc.lock").read_text() == git("show", f"{find('exp0058').commit}:dvc.lock")
    assert git("status", "--short", "--", "dvc.lock", "metrics", "plots") == "?? dvc.lock\n"
    Path("dvc.lock").write_text("mine")
    cli.dispatch(["run", "--force", "exp0058"])
    assert Path("dvc.lock").read_text() == "mine"


def finish_as(name: str, *overrides: str) -> str:
    """An experiment of the current commit with a result; its reference."""
    mark_as_run(name, *overrides, outs={SUBMISSION: f"{name} {overrides}"})
    return find(name).reference


def test_a_blend_names_the_results_of_its_parts(dvc: Dvc) -> None:
    first = finish_as("exp0021", *overrides_of("exp0021"))
    second = finish_as("exp0025", *overrides_of("exp0025"))
    cli.dispatch(["run", "--queue", "exp0025-mix"])
    assert f"infer.blend=['{first}','{second}']" in dvc.calls[0]


def overrides_of(name: str) -> list[str]:
    return launch.Plan(read_experiments(), read_tree(Path("params.yaml"))).overrides(name)


@pytest.mark.parametrize("names", [["exp0025-mix"], ["exp0025", "exp0025-mix"]])
def test_what_is_queued_must_have_all_that_it_needs(dvc: Dvc, names: list[str]) -> None:
    finish_as("exp0021", *overrides_of("exp0021"))
    words = (
        "exp0025-mix needs exp0025, not yet finished .*; a queue keeps no order, "
        "so run `callboard run exp0025`"
    )
    with pytest.raises(UserError, match=words):
        cli.dispatch(["run", "--queue", *names])
    assert dvc.calls == []


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["exp0025-mix"], "exp0025-mix needs exp0021 and exp0025, which run first\n"),
        (["exp0025-mix", "exp0025"], "exp0025-mix needs exp0021 and exp0025, which run first\n"),
        (["exp0021", "exp0025-mix"], "exp0025-mix needs exp0025, which runs first\n"),
        (["exp0021", "exp0025", "exp0025-mix"], ""),
    ],
)
def test_what_a_row_needs_comes_first_and_that_is_said(
    finishing: Dvc, names: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.dispatch(["run", *names])
    assert finishing.names() == ["exp0021", "exp0025", "exp0025-mix"]
    assert capsys.readouterr().out == line


def test_what_is_finished_is_not_run_again(finishing: Dvc, capsys: pytest.CaptureFixture[str]) -> None:
    cli.dispatch(["run", "exp0021"])
    cli.dispatch(["run", "--force", "exp0025-mix"])
    assert finishing.names() == ["exp0021", "exp0025", "exp0025-mix"]
    assert ["--force" in call for call in finishing.calls] == [False, False, True]
    assert "exp0025-mix needs exp0025, which runs first" in capsys.readouterr().out
    cli.dispatch(["run", "exp0025-mix"])
    assert len(finishing.calls) == 3


@pytest.fixture
def stages(finishing: Dvc) -> Dvc:
    """The same with rows that start from each other, link1 to link3, and variant, based on link2."""
    tree = YAML(typ="safe").load(TABLE.read_text(encoding="utf-8"))
    tree["rows"][0]["set"]["train.init_from"] = None
    common = {"block": "todo", "memo_ja": "x", "memo_en": "x", "certainty": "code"}
    for name, base, changes in (
        ("link1", "exp0051", {"loss.neg_mask": "seq"}),
        ("link2", "exp0051", {"train.init_from": "link1"}),
        ("link3", "exp0051", {"train.init_from": "link2"}),
        ("variant", "link2", {"mixup.alpha": 0.3}),
    ):
        tree["rows"].append(common | {"id": name, "base": base, "set": changes})
    with TABLE.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(tree, file)
    git("commit", "--quiet", "--all", "--message", "stages")
    return finishing


def test_a_row_starts_from_the_result_of_the_row_it_names(
    stages: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.dispatch(["run", "-S", "train.epochs=5", "link3"])
    assert stages.names() == ["link1", "link2", "link3"]
    added = ["-S", "train.epochs=5"]
    assert stages.calls == [
        ["link1", "-S", "loss.neg_mask=seq", *added],
        ["link2", "-S", f"train.init_from='{find('link1').reference}'", *added],
        ["link3", "-S", f"train.init_from='{find('link2').reference}'", *added],
    ]
    assert capsys.readouterr().out.splitlines() == [
        "link2 starts from link1, which runs first",
        "link3 starts from link2, which runs first",
    ]


@pytest.mark.slow
def test_with_a_seed_a_chain_is_run_under_other_names_and_once(
    stages: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_as("link1", "loss.neg_mask=seq")
    cli.dispatch(["run", "--seed", "3", "link2"])
    cli.dispatch(["run", "--seed", "3", "link3"])
    seed = ["-S", "seed=3"]
    assert stages.calls == [
        ["link1-seed3", "-S", "loss.neg_mask=seq", *seed],
        *[
            [f"{name}-seed3", *["-S", f"train.init_from='{find(start).reference}'"], *seed]
            for name, start in (("link2", "link1-seed3"), ("link3", "link2-seed3"))
        ],
    ]
    capsys.readouterr()
    cli.dispatch(["run", "--seed", "3", "--dry", "link2", "exp0051"])
    there, *_ = capsys.readouterr().out.splitlines()
    assert there == "link2-seed3: exists on this commit"
    cli.dispatch(["run", "--seed", "3", "--dry", "--force", "link2", "exp0051"])
    assert capsys.readouterr().out.splitlines() == [
        "link2-seed3: train.init_from='link1-seed3' seed=3",
        "exp0051-seed3: seed=3",
    ]
    cli.dispatch(["run", "--seed", "4", "--dry", "link2"])
    assert capsys.readouterr().out.splitlines() == [
        "link2-seed4 starts from link1-seed4, which runs first",
        "link1-seed4: loss.neg_mask=seq seed=4",
        "link2-seed4: train.init_from='link1-seed4' seed=4",
    ]


@pytest.mark.slow
def test_a_result_whose_own_start_is_not_finished_now_is_run_again(stages: Dvc) -> None:
    first = finish_as("link1", "loss.neg_mask=seq", "train.epochs=7")
    finish_as("link2", f"train.init_from='{first}'")
    git("commit", "--quiet", "--allow-empty", "--message", "later")
    cli.dispatch(["run", "link3"])
    assert stages.names() == ["link1", "link2", "link3"]


def test_a_row_inherits_what_its_base_starts_from(stages: Dvc) -> None:
    cli.dispatch(["run", "variant"])
    assert stages.names() == ["link1", "variant"]
    assert f"train.init_from='{find('link1').reference}'" in stages.calls[1]


def test_dry_shows_the_names_of_rows_without_keys_and_those_that_come_first(
    stages: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_as("link1", "loss.neg_mask=seq")
    with pytest.raises(UserError, match=r"link3 needs link2, not yet finished .* a queue"):
        cli.dispatch(["run", "--dry", "--queue", "link3"])
    capsys.readouterr()
    cli.dispatch(["run", "--dry", "link3", "exp0025-mix"])
    *comes_first, second, third, of_21, of_25, mix = capsys.readouterr().out.splitlines()
    assert comes_first == [
        "link3 starts from link2, which runs first",
        "exp0025-mix needs exp0021 and exp0025, which run first",
    ]
    assert [second, third] == ["link2: train.init_from=link1", "link3: train.init_from=link2"]
    assert [line.partition(":")[0] for line in (of_21, of_25, mix)] == ["exp0021", "exp0025", "exp0025-mix"]
    assert "infer.blend=[exp0021,exp0025]" in mix
    assert stages.calls == []


def test_a_dry_run_refuses_what_a_run_would(stages: Dvc) -> None:
    mark_as_run("exp0051")
    words = (
        r"exp0051 exists on this commit with different parameters \(train.epochs: .*; `callboard run --force "
    )
    with pytest.raises(UserError, match=words + r"exp0051 -S train\.epochs=5` replaces it"):
        cli.dispatch(["run", "--dry", "-S", "train.epochs=5", "exp0051"])
    with pytest.raises(UserError, match=r"run `callboard run link1 --seed 3 -S train\.epochs=5` first"):
        cli.dispatch(["run", "--dry", "--queue", "--seed", "3", "-S", "train.epochs=5", "link2"])
    assert stages.calls == []


@pytest.mark.parametrize("command", [["run"], ["run", "--dry"], ["noise"], ["noise", "--dry"]])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", r"^-S train\.epochs: expected KEY=VALUE"),
        ("=5", "^-S =5: expected KEY=VALUE"),
        ("train.epochs={5", "^-S: .*{5"),
        ("train.epochs=abc", r"^params.yaml:\n  train.epochs: .* valid integer, found 'abc'$"),
    ],
)
def test_an_override_that_cannot_hold_is_refused_before_anything_runs(
    dvc: Dvc, command: list[str], override: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        cli.dispatch([*command, "exp0051", "-S", override])
    assert dvc.calls == []


def test_a_dry_run_of_noise_shows_chains_with_their_own_seeds(
    stages: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.dispatch(["noise", "link2", "--seeds", "2", "--dry"])
    *told, summary = capsys.readouterr().out.splitlines()
    assert told == [
        line
        for k in (1, 2)
        for line in (
            f"link2-seed{k} starts from link1-seed{k}, which runs first",
            f"link1-seed{k}: loss.neg_mask=seq seed={k}",
            f"link2-seed{k}: train.init_from='link1-seed{k}' seed={k}",
        )
    ]
    assert summary.startswith("link2: 0 finished runs")
    assert stages.calls == []


def test_a_result_of_an_earlier_commit_counts_if_its_parameters_are_the_row_s(stages: Dvc) -> None:
    reference = finish_as("link1", "loss.neg_mask=seq")
    git("commit", "--quiet", "--allow-empty", "--message", "later")
    cli.dispatch(["run", "link2"])
    assert stages.names() == ["link2"]
    assert f"train.init_from='{reference}'" in stages.calls[0]


def test_a_result_of_an_earlier_commit_with_other_parameters_does_not(stages: Dvc) -> None:
    old = finish_as("link1", "loss.neg_mask=seq", "train.epochs=7")
    git("commit", "--quiet", "--allow-empty", "--message", "later")
    cli.dispatch(["run", "link2"])
    assert stages.names() == ["link1", "link2"]
    assert old not in str(stages.calls)


def test_the_newest_result_with_the_parameters_of_the_row_is_taken(stages: Dvc) -> None:
    wanted = finish_as("link1", "loss.neg_mask=seq")
    git("commit", "--quiet", "--allow-empty", "--message", "later")
    finish_as("link1", "loss.neg_mask=seq", "train.epochs=7")
    cli.dispatch(["run", "link2"])
    assert f"train.init_from='{wanted}'" in stages.calls[0]


def test_a_needed_experiment_of_this_commit_with_other_parameters_is_refused(stages: Dvc) -> None:
    finish_as("link1", "loss.neg_mask=seq", "train.epochs=7")
    words = (
        r"link1 exists on this commit with different parameters \(train.epochs: 7 → 20\); .* --force link1"
    )
    with pytest.raises(UserError, match=words):
        cli.dispatch(["run", "link2"])
    assert stages.calls == []


def test_a_failure_of_what_comes_first_stops_what_needs_it(
    stages: Dvc, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.failing = {"link1": 2}
    with pytest.raises(SystemExit):
        cli.dispatch(["run", "link3"])
    assert stages.names() == ["link1"]
    assert "error: link1 failed; not run: link2, link3" in capsys.readouterr().err


def test_the_command_of_dvc_is_that_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "executable", "/bin/echo")
    assert launch.dvc("--version") == 0
    monkeypatch.setattr(launch.sys, "executable", "/bin/false")
    assert launch.dvc("--version") == 1


@pytest.mark.slow
def test_a_chain_works_out_the_parameters_of_each_row_once(
    stages: Dvc, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.dispatch(["run", "link3"])
    asked: list[tuple[str, ...]] = []
    real = launch.with_overrides

    def counting(overrides: Sequence[str]) -> dict[str, str]:
        asked.append(tuple(overrides))
        return real(overrides)

    monkeypatch.setattr(launch, "with_overrides", counting)
    cli.dispatch(["run", "link3"])
    assert len(stages.calls) == 3  # those of the first time
    assert len(asked) == len(set(asked)) == 3
