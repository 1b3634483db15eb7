"""Presets: the values for other data that differ from those in params.yaml."""

import re
import shutil
from collections.abc import Mapping
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.experiments.overrides import hydra_overrides, overridden, with_signs
from callboard.experiments.table import Values, look_up, refuse_bad_value
from callboard.params.base import Params, read_tree, validate
from callboard.params.defaults import PARAMS_FILE, with_defaults
from callboard.params.experiment import Experiment
from callboard.results.git import git, text_at

PRESETS = Path("presets")


class PresetFile(Params):
    """A preset file. All values are below `set`, so that the file is refused in place of params.yaml."""

    set: dict[str, Any]
    """Dotted key to value."""


def preset_path(name: str) -> Path:
    """Return the file of a preset.

    Raises:
        UserError: the preset does not exist.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise UserError(f"no preset {name!r} in {PRESETS}; available: {', '.join(names) or 'none'}")
    return PRESETS / f"{name}.yaml"


def read_preset(path: Path) -> Values:
    """Read a preset as dotted key to value, each value checked on its own.

    Raises:
        UserError: the file cannot be read, or a key or value is wrong.
    """
    values = validate(PresetFile, read_tree(path), path).set
    for key, value in values.items():
        refuse_bad_value(key, value, str(path))
    return values


def with_values(tree: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return a copy of nested sections with values replaced or added."""
    result = deepcopy(dict(tree))
    for key, value in values.items():
        *sections, leaf = key.split(".")
        section = result
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = value
    return result


def apply_preset(path: Path) -> list[str]:
    """Write a preset into params.yaml, completely or not at all; keys that it does not set stay.

    Returns:
        The keys that changed.

    Raises:
        UserError: params.yaml has uncommitted changes, or would be invalid with the preset.
    """
    listed = read_tree(PARAMS_FILE)
    full = with_defaults(listed)
    values = {key: value for key, value in read_preset(path).items() if look_up(full, key) != value}
    if not values:
        return []
    if git("diff", "--name-only", "HEAD", "--", str(PARAMS_FILE)):
        raise UserError(
            f"{PARAMS_FILE} has uncommitted changes; commit them or `git checkout {PARAMS_FILE}`, "
            "so that git can undo the preset"
        )
    write_values(values, f"{PARAMS_FILE} with the preset")
    return list(values)


def write_values(values: Values, place: str, title: str = "") -> None:
    """Write values into params.yaml, completely or not at all; keys that are not among them stay.

    Args:
        values: Dotted key to value.
        place: Name of the new file in errors.
        title: Comment of the first line, if that is to change.

    Raises:
        UserError: params.yaml would be invalid.
    """
    overrides = [text for key, value in values.items() for text in hydra_overrides(key, value)]
    with overridden(with_signs(overrides, read_tree(PARAMS_FILE))) as changed:
        validate(Experiment, read_tree(changed), place)
        if title:
            text = changed.read_text(encoding="utf-8")
            changed.write_text(TITLE.sub(lambda _: f"# {title}", text, count=1), encoding="utf-8")
        with written_whole(PARAMS_FILE) as unfinished:
            shutil.copy(changed, unfinished)


TITLE = re.compile(r"\A# .*")
"""Comment of the first line of params.yaml."""


def keep_params() -> str:
    """Keep params.yaml as it is for later, in git or as a copy, and return how to have it back."""
    text = PARAMS_FILE.read_text(encoding="utf-8")
    if text == text_at("HEAD", str(PARAMS_FILE)):
        return f"`git checkout HEAD {PARAMS_FILE}` undoes it"
    copies = (PARAMS_FILE.with_name(f"{PARAMS_FILE.name}.bak{number or ''}") for number in count())
    copy = next(path for path in copies if not path.exists())
    with written_whole(copy) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return f"the old one is {copy}"
