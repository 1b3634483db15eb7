"""Overrides in Hydra's grammar, which `dvc exp run -S` reads."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callboard.core.errors import UserError, nearest, one_line
from callboard.params.base import read_tree, validate
from callboard.params.defaults import PARAMS_FILE, known_keys
from callboard.params.experiment import Experiment
from callboard.params.renamed import RENAMED

PLAIN_WORD = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_]\w*")
"""Text that Hydra's grammar reads as a string without quotes."""

OVERRIDE = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>\w+(\.\w+)*)(=|$)")
"""Sign and dotted key of an override of params.yaml."""


def with_signs(overrides: Iterable[str], tree: Mapping[str, Any]) -> list[str]:
    """Return overrides in the form that Hydra needs for keys that params.yaml omits.

    Setting an omitted key takes a plus; deleting one is dropped.

    Args:
        overrides: As `dvc exp run -S` takes them, with or without signs.
        tree: Nested sections of params.yaml, without defaults of omitted keys.

    Raises:
        UserError: one is not KEY=VALUE, or a key is not a parameter; the message lists the nearest.
    """
    signed: list[str] = []
    added: set[str] = set()
    for override in overrides:
        match = OVERRIDE.match(override)
        if match is None or (match["sign"] != "~" and "=" not in override):
            raise UserError(f"-S {override}: expected KEY=VALUE, such as train.epochs=5")
        if match["key"] in added or _lists(tree, match["key"]):
            signed.append(override)
            continue
        _refuse_unknown(match["key"])
        if match["sign"] != "~":
            signed.append("+" * (not match["sign"]) + override)
            added.add(match["key"])
    return signed


@contextmanager
def overridden(overrides: Iterable[str], text: str = "") -> Iterator[Path]:
    """Yield a temporary copy of params.yaml as `dvc exp run -S` would change it: comments and order stay.

    Args:
        overrides: The overrides.
        text: Text of params.yaml, if not the workspace's file.

    Raises:
        UserError: Hydra cannot read a value, or cannot add or delete a key.
    """
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides  # takes half a second
    from omegaconf.errors import OmegaConfBaseException

    with TemporaryDirectory() as folder:
        changed = Path(folder) / PARAMS_FILE.name
        if text:
            changed.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(PARAMS_FILE, changed)
        try:
            apply_overrides(changed, list(overrides))
        except InvalidArgumentError as error:
            raise UserError(f"-S: {one_line(error.__cause__ or error)}") from None
        except OmegaConfBaseException as error:
            raise UserError(f"-S: {one_line(error)}; Hydra takes ${{…}} for the name of a key") from None
        yield changed


def refuse_bad_params(overrides: Iterable[str]) -> None:
    """Refuse overrides of params.yaml that the stage `check` would refuse.

    Raises:
        UserError: as in `overridden` and `validate`.
    """
    with overridden(overrides) as changed:
        validate(Experiment, read_tree(changed), PARAMS_FILE)


def _lists(tree: Mapping[str, Any], key: str) -> bool:
    """Return whether a tree has a dotted key; True for an element of any list, which Hydra checks."""
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
    raise UserError(f"-S {key}: not a parameter{hint or '; params.yaml and src/callboard/params list them'}")


def hydra_overrides(key: str, value: Any) -> list[str]:
    """Return the `dvc exp run -S` arguments that set a dotted key of params.yaml.

    There are two for a mapping: Hydra would merge it into the existing one, which is deleted first.
    """
    if isinstance(value, dict):
        return [f"~{key}", f"+{key}={_hydra_text(value)}"]
    return [f"{key}={_hydra_text(value)}"]


def _hydra_text(value: Any) -> str:
    """Return a value in Hydra's override grammar."""
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
