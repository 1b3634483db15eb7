from pathlib import Path

import pytest

from callboard.core.code_fingerprint import code_fingerprint, import_closure
from callboard.core.errors import UserError

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


def test_a_file_that_is_no_python_is_named(root: Path) -> None:
    (root / "src/callboard/losses.py").write_text("x = 1\ny = (\n")
    with pytest.raises(UserError, match=r"losses\.py line 2: '\(' was never closed"):
        import_closure(root, "stages.train")


def test_a_fingerprint_changes_with_a_file_of_the_closure_and_with_no_other(root: Path) -> None:
    before = code_fingerprint(root, "stages.train")
    (root / "src/callboard/unused.py").write_text("import callboard.model\n")
    assert code_fingerprint(root, "stages.train") == before
    (root / "src/callboard/rare/corner.py").write_text("from ..shared import y\nx = y + 1\n")
    after = code_fingerprint(root, "stages.train")
    changed = set(after.splitlines()) - set(before.splitlines())
    assert [line.split()[1] for line in changed] == ["src/callboard/rare/corner.py"]
