"""Fingerprints of the code that a stage runs: its source files and the packages that its numbers come from.

DVC considers a stage up to date unless something listed in its `deps` changed. A list of every imported file
would be long, go stale, and be repeated for each fold; a stage depends on one file of fingerprints instead.

A fingerprint covers what runs, not how it is written: docstrings, comments and formatting do not count.
Versions come from the lock files, which DVC can watch and every clone shares; DVC cannot see which versions
are installed.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from callboard.core.errors import UserError

LOCKS = ("requirements.lock", "requirements-birdnet.lock")
"""Files of exact package versions, at the root of a workspace."""

NUMERICAL_PACKAGES = {
    "ai_edge_litert": "ai-edge-litert",
    "iterstrat": "iterative-stratification",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "soundfile": "soundfile",
    "timm": "timm",
    "torch": "torch",
    "torchaudio": "torchaudio",
}
"""Packages whose version can change a number: name in an import to name in a lock file.

soundfile brings the decoders, iterstrat assigns the folds. Other packages that stages import only parse,
plot, record or move files. CUDA's packages and triton are not listed, since torch pins them exactly; timm's
networks compute nothing with torchvision.
"""

MODULE_NAME = re.compile(r"\bcallboard(?:\.\w+)+")
FROM_IMPORT = re.compile(r"^ *from (callboard[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
"""Import of modules, or of names in one, on one line or in brackets."""


class _Module(NamedTuple):
    """A source file reduced to what matters for a fingerprint."""

    imports: frozenset[str]
    """Dotted names of this project that it imports; both a and a.b for `from a import b`."""
    packages: frozenset[str]
    """Other packages that it imports."""
    digest: str
    """SHA-256 of its syntax tree; empty if nothing in it runs."""


def import_closure(root: Path, module: str) -> list[str]:
    """Return the workspace files that importing `module` can reach: paths below `root`, stages first, sorted.

    Imports inside functions count. Parent packages count unless nothing in their `__init__` runs.

    Raises:
        UserError: the module is not in the workspace, or a file is not valid Python.
    """
    return list(_closure(root, module))


def code_fingerprint(root: Path, module: str) -> str:
    """Return a line for each file of the import closure and for each numerical package that it imports.

    Raises:
        UserError: the module is not in the workspace, a file is not valid Python, or no lock file lists a
            package.
    """
    closure = _closure(root, module)
    imported = {name for source in closure.values() for name in source.packages}
    packages = sorted(NUMERICAL_PACKAGES[name] for name in imported & NUMERICAL_PACKAGES.keys())
    versions = _locked_versions(root)
    if unknown := [package for package in packages if package not in versions]:
        raise UserError(f"{module} imports {unknown[0]}, but neither {' nor '.join(LOCKS)} has its version")
    lines = [f"{source.digest}  {file}\n" for file, source in closure.items()]
    return "".join(lines + [f"{package}=={versions[package]}\n" for package in packages])


@cache
def source_digest(module: str) -> str:
    """Return a digest of the files of this package that a module can reach, and of the lock files.

    Takes milliseconds, since no file is parsed: docstrings and comments count too, and so does each module
    that a file only names.
    """
    root = Path(__file__).resolve().parents[3]
    locks = [path for name in LOCKS if (path := root / name).is_file()]
    digests = [_read_source(path).digest for path in (*sorted(_reached(module)), *locks)]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


def _reached(module: str) -> set[Path]:
    package = Path(__file__).resolve().parents[1]
    reached: set[Path] = set()
    waiting = [module]
    while waiting:
        path = package.joinpath(*waiting.pop().split(".")[1:]).with_suffix(".py")
        if path.is_file() and path not in reached:
            reached.add(path)
            waiting += _read_source(path).named
    return reached


class _Source(NamedTuple):
    """A file as it is, not parsed."""

    digest: bytes
    named: list[str]
    """Dotted names that can be modules of this package."""


@cache
def _read_source(path: Path) -> _Source:
    content = path.read_bytes()
    text = content.decode("utf-8")
    parts = [f"{base}.{name}" for base, names in FROM_IMPORT.findall(text) for name in names.split()]
    named = MODULE_NAME.findall(text) + [part.strip("(),") for part in parts]
    return _Source(hashlib.sha256(content).digest(), named)


def _closure(root: Path, module: str) -> dict[str, _Module]:
    found: dict[str, _Module] = {}
    files: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_file(root, name)
        if path is None or name in found:
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = _read_module(path, path.read_text(encoding="utf-8"), package)
        files[name] = path.relative_to(root).as_posix()
        waiting += found[name].imports | _parents(name)
    if module not in found:
        raise UserError(f"no file for module {module} under {root}")
    running = {files[name]: source for name, source in found.items() if source.digest}
    return dict(sorted(running.items(), key=lambda item: (not item[0].startswith("stages/"), item[0])))


def _module_file(root: Path, module: str) -> Path | None:
    base = root / "src" if module.split(".")[0] == "callboard" else root
    path = base.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:n]) for n in range(1, len(parts))}


@cache
def _read_module(path: Path, text: str, package: str) -> _Module:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UserError(f"{path} line {error.lineno}: {error.msg}") from None
    dump: list[str] = []
    imported: set[str] = set()
    for node in _dump(tree, dump):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        else:
            base = _absolute(node, package)
            imported |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    ours = {name for name in imported if name.split(".")[0] in ("callboard", "stages")}
    runs = not all(_is_silent(node, tree) for node in tree.body)
    return _Module(
        imports=frozenset(ours.union(*map(_parents, ours))),
        packages=frozenset(name.split(".")[0] for name in imported - ours),
        digest=hashlib.sha256("".join(dump).encode()).hexdigest() if runs else "",
    )


def _dump(node: ast.AST, dump: list[str]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Append a syntax tree to `dump` as text that is the same in every Python version, and yield its imports.

    The output of `ast.dump` depends on the version, which decides which empty fields it writes.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    dump += (type(node).__name__, "(")
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("ctx", "kind"):
            continue
        dump += (name, "=")
        for item in value if isinstance(value, list) else (value,):
            if not isinstance(item, ast.AST):
                dump += (ascii(item), ",")  # repr depends on the Unicode version
            elif not _is_silent(item, node):
                yield from _dump(item, dump)
    dump.append(")")


def _is_silent(node: ast.AST, parent: ast.AST) -> bool:
    """Return whether a node does nothing: a docstring, or the empty end of an f-string in Python 3.12.

    Any string that is a statement of its own counts as a docstring, also after a constant or a field.
    """
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant) and not node.value


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _locked_versions(root: Path) -> dict[str, str]:
    """Map normalised package names to their versions in the lock files."""
    lines = [line for name in LOCKS if (root / name).is_file() for line in (root / name).open()]
    pinned = re.findall(r"^([\w.-]+)==([^\s;#]+)", "".join(lines), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned}
