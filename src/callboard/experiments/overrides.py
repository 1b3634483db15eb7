"""Values in the override grammar of Hydra, which `dvc exp run -S` reads."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callboard.core.errors import UserError, nearest
from callboard.params.defaults import PARAMS_FILE, known_keys
from callboard.params.renamed import RENAMED

PLAIN_WORD = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_]\w*")
"""Text that Hydra's grammar takes for a string without quotes."""

OVERRIDE = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>\w+(\.\w+)*)(=|$)")
"""What an override does, and to which dotted key of params.yaml."""


def with_signs(overrides: Iterable[str], tree: Mapping[str, Any]) -> list[str]:
    """Overrides as Hydra wants them where params.yaml leaves keys out.

    A key that it does not list takes a plus; deleting one is not needed.

    Args:
        overrides: As `dvc exp run -S` takes them, with or without signs.
        tree: All that params.yaml lists.

    Raises:
        UserError: a key is not a parameter; the nearest are named.
    """
    signed: list[str] = []
    added: set[str] = set()
    for override in overrides:
        match = OVERRIDE.match(override)
        if match is None or match["key"] in added or _lists(tree, match["key"]):
            signed.append(override)
            continue
        _refuse_unknown(match["key"])
        if match["sign"] != "~":
            signed.append("+" * (not match["sign"]) + override)
            added.add(match["key"])
    return signed


@contextmanager
def overridden(overrides: Iterable[str]) -> Iterator[Path]:
    """A temporary copy of params.yaml as `dvc exp run -S` would change it: comments and order stay."""
    from dvc.utils.hydra import apply_overrides  # half a second

    with TemporaryDirectory() as folder:
        changed = Path(folder) / PARAMS_FILE.name
        shutil.copy(PARAMS_FILE, changed)
        apply_overrides(changed, list(overrides))
        yield changed


def _lists(tree: Mapping[str, Any], key: str) -> bool:
    """Whether a tree has a dotted key; of elements of a list Hydra is left to judge."""
    value: Any = tree
    for name in key.split("."):
        if isinstance(value, list):
            return True
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def _refuse_unknown(key: str) -> None:
    known, parts = known_keys(), key.split(".")
    if key in known.sections or any(".".join(parts[:n]) in known.defaults for n in range(1, len(parts) + 1)):
        return
    hint = f"; the nearest are {RENAMED[key]}" if key in RENAMED else nearest(key, known.defaults)
    raise UserError(f"-S {key}: not a parameter{hint or '; params.yaml and src/callboard/params have all'}")


def hydra_overrides(key: str, value: Any) -> list[str]:
    """Arguments of `dvc exp run -S` that set a dotted key of params.yaml; a mapping takes two of them.

    Hydra merges a mapping into the one that is there, so that one is deleted first.
    """
    if isinstance(value, dict):
        return [f"~{key}", f"+{key}={_hydra_text(value)}"]
    return [f"{key}={_hydra_text(value)}"]


def _hydra_text(value: Any) -> str:
    """A value in Hydra's override grammar."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list():
            return f"[{','.join(map(_hydra_text, value))}]"
        case dict():
            return f"{{{','.join(f'{key}:{_hydra_text(element)}' for key, element in value.items())}}}"
        case _:
            return value if PLAIN_WORD.fullmatch(value) else _quoted(value)


def _quoted(text: str) -> str:
    doubled = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text)  # elsewhere a backslash stands for itself
    return "'" + doubled.replace("'", "\\'") + "'"
