"""Keys of params.yaml that had another name once, so that what was written under it is still read."""

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, str] = {
    "pseudo.final": "pseudo.rounds"
}  # rounds were a list of teachers and students beside it
"""Old dotted key of a field or section to the new one. A value under the old key takes the place of one under
the new key."""


def renamed(tree: Mapping[str, Any], table: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """Sections of params.yaml with every value under the key that it has now.

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
    """The section at `path`; empty where there is none."""
    section: Any = tree
    for name in path:
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def _copied(tree: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """The section at `path` as a copy that may be changed, as all that it lies in."""
    section = tree
    for name in path:
        below = section.get(name)
        section[name] = dict(below) if isinstance(below, dict) else {}
        section = section[name]
    return section


def renamed_texts(flat: Mapping[str, str], table: Mapping[str, str] = RENAMED) -> dict[str, str]:
    """Flat parameters with every text under the dotted key that it has now.

    Args:
        flat: Dotted key to text.
        table: Old dotted key to new.
    """
    result = dict(flat)
    for old, new in table.items():
        for key in [key for key in result if key == old or key.startswith(f"{old}.")]:
            result[new + key.removeprefix(old)] = result.pop(key)
    return result
