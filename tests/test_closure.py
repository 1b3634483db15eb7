from pathlib import Path

import pytest

from callboard.closure import import_closure, with_code_deps
from callboard.errors import UserError

FILES = {
    "stages/__init__.py": "import sys\n",
    "stages/train.py": "import argparse\nfrom callboard.training import fit\n",
    "stages/check.py": "import json\n",
    "src/callboard/__init__.py": "",
    "src/callboard/training.py": "from callboard import losses\nfrom callboard.model import Net\n",
    "src/callboard/losses.py": "def late():\n    import callboard.rare.corner\n",
    "src/callboard/rare/__init__.py": "from .corner import x\n",
    "src/callboard/rare/corner.py": "from ..shared import y\nx = y\n",
    "src/callboard/shared.py": "y = 1\n",
    "src/callboard/model.py": "class Net: ...\n",
    "src/callboard/unused.py": "import callboard.training\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_closure_by_hand(root: Path) -> None:
    assert import_closure(root, "stages.train") == [
        "stages/__init__.py",
        "stages/train.py",
        "src/callboard/losses.py",
        "src/callboard/model.py",
        "src/callboard/rare/__init__.py",
        "src/callboard/rare/corner.py",
        "src/callboard/shared.py",
        "src/callboard/training.py",
    ]


def test_a_stage_that_imports_nothing_of_ours_is_its_script_alone(root: Path) -> None:
    assert import_closure(root, "stages.check") == ["stages/__init__.py", "stages/check.py"]


def test_an_unknown_stage_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"no file for module stages\.trian"):
        import_closure(root, "stages.trian")


PIPELINE = """\
# a comment at the top
stages:
  check:
    cmd: python -m stages.check params.yaml .check/params.ok
    deps:
    - params.yaml
    - stages/__init__.py
    - stages/check.py
  train:
    matrix:
      fold: ${split.folds}
    cmd: >-
      python -m stages.train
      --fold ${item.fold}
    deps:
    - data/clips.csv
    - src/callboard/gone.py
    params: &train_params
    - seed   # why
  label:
    foreach: ${rounds}
    do:
      cmd: python -m stages.check
      deps:
      - data/clips.csv
    params: *train_params
"""


def test_only_the_code_entries_change(root: Path) -> None:
    renewed = with_code_deps(root, PIPELINE).splitlines()
    old = PIPELINE.splitlines()
    assert [line for line in old if line not in renewed] == ["    - src/callboard/gone.py"]
    added = [line.strip(" -") for line in renewed if line not in old]
    assert added == [
        "stages/train.py",
        *import_closure(root, "stages.train")[2:],
        "stages/__init__.py",
        "stages/check.py",
    ]


def test_renewing_twice_changes_nothing(root: Path) -> None:
    renewed = with_code_deps(root, PIPELINE)
    assert with_code_deps(root, renewed) == renewed


def test_a_command_that_is_not_a_module_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"expected a cmd like 'python -m stages\.x …', found 'make all'"):
        with_code_deps(root, "stages:\n  x:\n    cmd: make all\n    deps: []\n")
