"""Former names of keys in params.yaml, so that older files can still be read."""

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, str] = {"pseudo.final": "pseudo.rounds"}
"""Old dotted key of a field or section to the new one. A value under the old key replaces one under the new
key: `pseudo.rounds` used to be a list of teachers and students, next to `pseudo.final`."""


def renamed(tree: Mapping[str, Any], table: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """Return sections of params.yaml with every value under its current key.

    Args:
        tree: Nested sections, all or some.
        table: Old dotted key to new.
    """
    result = dict(tree)
    for old, new in table.items():
        *path, leaf = old.split(".")
        if leaf in _section(result, path):
            value = _copied(result, path).pop(leaf)
            *path, leaf = new.split(".")
            _copied(result, path)[leaf] = value
    return result


def _section(tree: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    """Return the section at `path`; empty if there is no section."""
    section: Any = tree
    for name in path:
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def _copied(tree: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """Replace the section at `path` and those around it in `tree` by copies, and return that at `path`."""
    section = tree
    for name in path:
        below = section.get(name)
        section[name] = dict(below) if isinstance(below, dict) else {}
        section = section[name]
    return section


def renamed_texts(flat: Mapping[str, str], table: Mapping[str, str] = RENAMED) -> dict[str, str]:
    """Return flat parameters with every text under its current dotted key.

    Args:
        flat: Dotted key to text.
        table: Old dotted key to new.
    """
    result = dict(flat)
    for old, new in table.items():
        for key in [key for key in result if key == old or key.startswith(f"{old}.")]:
            result[new + key.removeprefix(old)] = result.pop(key)
    return result
