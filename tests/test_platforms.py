"""What Windows lacks is imported where it is used, never when a module is."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import builtins, importlib, pathlib, sys
real = builtins.__import__

def without_posix(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if importer in ("callboard", "stages") and name in ("fcntl", "grp", "pwd", "resource", "termios"):
        raise ImportError(f"{globals['__name__']} imports {name}, which Windows lacks")
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = without_posix  # other packages choose by platform
for root, package in (("src", "callboard"), (".", "stages")):
    sys.path.insert(0, root)
    for path in sorted(pathlib.Path(root, package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        importlib.import_module(".".join(part for part in parts if part != "__init__"))
        print(path.as_posix())
try:
    exec("import fcntl", {"__name__": "callboard.x"})
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_every_module_is_imported_without_what_is_posix_alone() -> None:
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert {"src/callboard/core/files.py", "stages/train.py"} <= set(printed)
    assert printed[-1] == "callboard.x imports fcntl, which Windows lacks"
