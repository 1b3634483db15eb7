"""Values in the override grammar of Hydra, which `dvc exp run -S` reads."""

import re
from typing import Any

PLAIN_WORD = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_]\w*")
"""Text that Hydra's grammar takes for a string without quotes."""


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
