"""Which source files a stage runs: its import closure, and a fingerprint of them.

DVC calls a stage up to date unless something named in its `deps` changed. Naming every imported file there is
a long list that goes stale, once more for each fold; a stage depends on one file of fingerprints instead.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from callboard.core.errors import UserError


def import_closure(root: Path, module: str) -> list[str]:
    """Files of this workspace that importing `module` can reach, relative to `root`, sorted; stages first.

    Imports inside functions count. Parent packages count unless their `__init__` is empty.

    Raises:
        UserError: the workspace has no such module, or a file is no Python.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_file(root, name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += _imported_names(path, name) | _parents(name)
    if module not in found:
        raise UserError(f"no file for module {module} under {root}")
    files = {path.relative_to(root).as_posix() for path in found.values() if path.stat().st_size}
    return sorted(files, key=lambda file: (not file.startswith("stages/"), file))


def trained_by(root: Path, module: str) -> list[Path]:
    """What a training runs: a stage, all it imports from this project, and the versions of the rest.

    Args:
        root: Of the workspace.
        module: The stage.
    """
    lock = root / "requirements.lock"
    return [*(root / file for file in import_closure(root, module)), *[lock] * lock.is_file()]


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
def _imported_names(path: Path, module: str) -> frozenset[str]:
    """Dotted names that a file imports; of `from a import b` both a and a.b, since b may be a module."""
    names: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("callboard", "stages")}
    return frozenset(ours | {parent for name in ours for parent in _parents(name)})


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{path} line {error.lineno}: {error.msg}") from None


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def code_fingerprint(root: Path, module: str) -> str:
    """A line for each file of the import closure: SHA-256 and path.

    Raises:
        UserError: the workspace has no such module.
    """
    files = import_closure(root, module)
    return "".join(f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n" for file in files)
