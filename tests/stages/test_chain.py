"""A row that starts from another, run by name with DVC."""

import re

import pytest
from ruamel.yaml import YAML

from callboard.results.dvc_lock import all_outs, parse_lock
from tests.conftest import Workspace
from tests.stages.test_one_run import CALLBOARD, callboard

pytestmark = pytest.mark.slow


FOLDS = [0, 1, 2]
PAIRS = ["0-1", "0-2", "1-2"]


def add_rows(workspace: Workspace) -> None:
    """A first stage, and a nested round that starts from its weights and hardly moves them."""
    yaml = YAML()
    path = workspace.root / "experiments.yaml"
    table = yaml.load(path)
    table["rows"][0]["set"]["train.init_from"] = None
    common = {"block": "todo", "base": "exp0051", "memo_ja": "x", "memo_en": "x", "certainty": "code"}
    folds = {"split.folds": FOLDS}
    table["rows"].append(common | {"id": "link1", "alone": folds | {"train.ema_decay": 0.5}})
    nested = {"pseudo.isolation": "nested", "pseudo.held_out.pairs": PAIRS}
    changes = {"train.init_from": "link1", "optim.lr": 5e-10, "pseudo.rounds": 1}
    table["rows"].append(common | {"id": "link2", "set": changes, "alone": folds | nested})
    yaml.dump(table, path)
    workspace.commit()


def test_nested_students_start_from_a_row_that_runs_first_without_their_teachers_folds(
    workspace: Workspace,
) -> None:
    add_rows(workspace)
    printed = callboard(workspace, "run", "link2")
    assert "link2 starts from link1, which runs first" in printed
    assert len(re.findall(r"train: fold \d, .*, from link1@[0-9a-f]{16}, ", printed)) == 2 * len(FOLDS)
    for pair in PAIRS:
        assert f"network: link1 without {pair}, 2 epochs" in printed
        assert f"network: r0/folds{pair}, 2 epochs" in printed
    told = callboard(workspace, "audit", "link2")
    assert "isolated: no teacher had seen its recording, or what its student is validated on" in told
    lines = callboard(workspace, "board").splitlines()
    assert ["*" in line for line in lines if "| link" in line] == [False, False]
    assert "link2 exists on this commit" in callboard(workspace, "run", "link2")


def test_a_lost_folder_hinders_no_row_and_is_named_with_what_heals_it(workspace: Workspace) -> None:
    run = ("run", "exp0058", "--jobs", "1")
    callboard(workspace, *run)
    workspace.dvc("exp", "remove", "exp0058")
    lock = parse_lock(workspace.read("dvc.lock"), "dvc.lock")
    md5 = all_outs(lock)["scores/windows"]
    (workspace.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()

    callboard(workspace, *run)
    assert "1 folder that DVC's cache lacks: scores/windows" in workspace.command(*CALLBOARD, "doctor").stdout

    workspace.dvc("repro")
    assert "DVC's cache lacks: scores/windows" not in workspace.command(*CALLBOARD, "doctor").stdout
