import ast
import re
import sys
from pathlib import Path

import pytest

from callboard.core import code_fingerprint as module
from callboard.core.code_fingerprint import (
    NUMERICAL_PACKAGES,
    code_fingerprint,
    import_closure,
    source_digest,
)
from callboard.core.errors import UserError

ROOT = Path(__file__).parents[2]

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


# what counts as a change


def fingerprint_with(root: Path, text: str) -> str:
    """The stage's, with `text` as one of its files."""
    (root / "src/callboard/model.py").write_text(text)
    return code_fingerprint(root, "stages.train")


PLAIN = """\
from functools import cache

LIMIT = 1.0

class Net:
    size: int = 3
    def forward(self, x):
        y = x * self.size
        return y
"""

DESCRIBED = """\
'''What it is about.'''

# a remark
from functools import (
    cache,
)
LIMIT = 1.0
'Loudness above which a call is clipped.'

class Net:
    "A network."

    size: int = 3  # of its only layer
    '''Of its
    only layer.'''

    def forward( self,x ):
        u'''Multiply.'''
        y = (
            x
            * self.size
        )
        return y
"""


def test_docstrings_comments_and_formatting_are_no_part_of_a_fingerprint(root: Path) -> None:
    assert fingerprint_with(root, DESCRIBED) == fingerprint_with(root, PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x * self", "x + self"),
        ("1.0", "1"),
        ("size: int = 3", "size: float = 3"),
        ("    size: int = 3\n", ""),
        ("(self, x)", "(self, x=0)"),
        ("(self, x)", "(self, *, x)"),
        ("class Net:", "class Net(object):"),
        ("cache", "cache as c"),
        ("        return y", "    return y"),
    ],
)
def test_whatever_runs_is_part_of_a_fingerprint(root: Path, old: str, new: str) -> None:
    assert old in PLAIN
    other = PLAIN.replace(old, new)
    ast.parse(other)
    assert fingerprint_with(root, other) != fingerprint_with(root, PLAIN)


EVERY_KIND = r"""
@decorated(1, *a, key=None, **b)
async def f(x: "int" = 1, /, y=-2.5e-3, *args, z=1j, **kw) -> None:
    async with a as b, c: await b
    return {**x, 1: [*y, ...], "é\U0001fae8": b"\x00"} if not x[1:, ::2] else {i for i in y if i}
def g():
    try: yield (n := 1) < 2 <= 3
    except* ValueError as e: raise KeyError from e
    match x:
        case {"a": [1, *rest], **more} | P(q=None) if rest: del rest
        case _: lambda *, k=u"u": f"a{k!r:>{n}}" f"{k=}" "b" rf"\d{{{k}}}"
"""


def test_a_fingerprint_is_the_same_in_every_python(root: Path) -> None:
    """Also under 3.12 and 3.13, whose trees differ: empty pieces of f-strings, and empty fields."""
    lines = fingerprint_with(root, EVERY_KIND).splitlines()
    assert next(line for line in lines if line.endswith("model.py")).startswith("cb85d58847a5a660")


def test_a_package_that_only_says_its_contract_is_no_part_of_a_closure(root: Path) -> None:
    before = code_fingerprint(root, "stages.train")
    (root / "src/callboard/__init__.py").write_text('"""Nothing runs here."""\n')
    assert code_fingerprint(root, "stages.train") == before


# versions

LOCK = """\
# a remark on torch==0
iterative-stratification==0.1.9
numpy==2.4.6
rich==15.0.0
scikit_learn==1.9.1
torch==2.11.0 ; sys_platform == "linux"
"""


@pytest.fixture
def locked(root: Path) -> Path:
    (root / "requirements.lock").write_text(LOCK)
    (root / "src/callboard/model.py").write_text("import torch.nn, rich\nfrom sklearn import metrics\n")
    return root


def test_a_fingerprint_ends_with_the_versions_of_imported_numerical_packages(locked: Path) -> None:
    lines = code_fingerprint(locked, "stages.train").splitlines()
    assert [line for line in lines if "==" in line] == ["scikit-learn==1.9.1", "torch==2.11.0"]
    assert "==" not in code_fingerprint(locked, "stages.check")


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("torch==2.11.0", "torch==2.11.1", True),
        ("rich==15.0.0", "rich==16.0.0", False),
        ("numpy==2.4.6", "numpy==2.5.0", False),  # nothing here imports it
        ("# a remark", "# another", False),
    ],
)
def test_a_version_counts_where_it_can_change_a_number(
    locked: Path, old: str, new: str, changes: bool
) -> None:
    before = code_fingerprint(locked, "stages.train")
    (locked / "requirements.lock").write_text(LOCK.replace(old, new))
    assert (code_fingerprint(locked, "stages.train") != before) == changes


def test_a_numerical_package_without_a_version_is_refused(locked: Path) -> None:
    (locked / "src/callboard/shared.py").write_text("import timm\n")
    expected = (
        "stages.train imports timm, but neither requirements.lock nor requirements-birdnet.lock has its"
    )
    with pytest.raises(UserError, match=expected):
        code_fingerprint(locked, "stages.train")


WITHOUT_NUMBERS = {
    *("huggingface_hub", "safetensors"),  # fetch and open weights
    *("pydantic", "ruamel", "yaml"),  # parse parameters
    *("filelock", "psutil", "threadpoolctl"),  # ask the machine, or wait for it
    *("rich", "tqdm", "jinja2", "markupsafe", "matplotlib"),  # show
    *("alembic", "dvc", "mlflow", "sqlalchemy"),  # record
}
"""What stages may import besides NUMERICAL_PACKAGES; whoever imports another one says where it belongs."""


def test_every_package_that_a_stage_imports_is_known_to_change_numbers_or_not_to() -> None:
    project = Path(__file__).parents[2]
    stages = [path.stem for path in (project / "stages").glob("*.py") if path.stem != "__init__"]
    files = {file for stage in stages for file in import_closure(project, f"stages.{stage}")}
    imported = set()
    for file in files:
        for node in ast.walk(ast.parse((project / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    foreign = imported - sys.stdlib_module_names - {"callboard", "stages"}
    assert foreign - WITHOUT_NUMBERS <= set(NUMERICAL_PACKAGES)


def with_source_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package that `source_digest` reads be the one in `root`."""
    monkeypatch.setattr(module, "__file__", str(root / "src/callboard/core/code_fingerprint.py"))
    source_digest.cache_clear()
    module._read_source.cache_clear()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("src/callboard/training.py", True),
        ("src/callboard/losses.py", True),
        ("src/callboard/rare/corner.py", True),
        ("src/callboard/model.py", True),
        ("requirements.lock", True),
        ("src/callboard/unused.py", False),
        ("stages/train.py", False),
    ],
)
def test_a_digest_of_sources_changes_with_what_the_module_can_reach(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: bool
) -> None:
    (root / "requirements.lock").write_text("numpy==1\n")
    with_source_in(root, monkeypatch)
    before = source_digest("callboard.training")
    (root / name).write_text(f"{(root / name).read_text()}# more\n")
    with_source_in(root, monkeypatch)
    assert (source_digest("callboard.training") != before) == changes


MEMOS = {
    (path.relative_to(ROOT / "src").with_suffix("").as_posix().replace("/", "."), named.strip('"'))
    for path in (ROOT / "src").rglob("*.py")
    for named in re.findall(r'(?:JsonCache|shared_cache)\("\w+", (.+?)\)', path.read_text(encoding="utf-8"))
}


def test_memos_are_found() -> None:
    assert len(MEMOS) >= 5


@pytest.mark.parametrize("memo", sorted(MEMOS), ids=str)
def test_what_a_memo_is_computed_by_is_found_without_parsing(memo: tuple[str, str]) -> None:
    user, named = memo
    computed_by = user if named == "__name__" else named
    reached = {path.relative_to(ROOT).as_posix() for path in module._reached(computed_by)}
    closure = set(import_closure(ROOT, computed_by)) - {"src/callboard/__init__.py"}
    assert closure
    assert closure <= reached
