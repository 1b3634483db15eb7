"""Which source files a stage runs: its import closure, and the code entries of `deps` in dvc.yaml.

DVC calls a stage up to date unless a file named in its `deps` changed, so an import that `deps` does not name
would leave old weights in place after an edit.
"""

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from callboard.errors import UserError

CODE_FOLDERS = ("stages/", "src/")
"""Entries of `deps` below these are code; all others are data and left alone."""


def import_closure(root: Path, module: str) -> list[str]:
    """Files of this workspace that importing `module` can reach, relative to `root`, sorted; stages first.

    Imports inside functions count. Parent packages count unless their `__init__` is empty.

    Raises:
        UserError: the workspace has no such module.
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


def _imported_names(path: Path, module: str) -> set[str]:
    """Dotted names that a file imports; of `from a import b` both a and a.b, since b may be a module."""
    names: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("callboard", "stages")}
    return ours | {parent for name in ours for parent in _parents(name)}


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def stage_entries(pipeline: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each stage's name and its entry, that below `do` for a `foreach` stage."""
    for name, stage in pipeline["stages"].items():
        yield name, stage.get("do", stage)


def stage_module(entry: dict[str, Any]) -> str:
    """The module that a stage's command runs.

    Raises:
        UserError: the command is not `python -m <module> …`.
    """
    match = re.match(r"python -m ([\w.]+)", entry["cmd"])
    if not match:
        raise UserError(f"dvc.yaml: expected a cmd like 'python -m stages.x …', found {entry['cmd']!r}")
    return match[1]


def with_code_deps(root: Path, text: str) -> str:
    """dvc.yaml's text with the code entries of every stage's `deps` set to its import closure."""
    yaml = YAML()
    yaml.width = 110
    pipeline = yaml.load(text)
    for _, entry in stage_entries(pipeline):
        closure = import_closure(root, stage_module(entry))
        deps = entry["deps"]
        if [dep for dep in deps if dep.startswith(CODE_FOLDERS)] != closure:
            deps[:] = [dep for dep in deps if not dep.startswith(CODE_FOLDERS)] + closure
    renewed = io.StringIO()
    yaml.dump(pipeline, renewed)
    return renewed.getvalue()
