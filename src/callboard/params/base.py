"""Loading and checking of params.yaml."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.params.bounds import Within, shortened
from callboard.params.renamed import renamed


class Params(BaseModel):
    """A section of params.yaml, or the sections that one stage reads: frozen, unknown keys refused.

    Every field of a section has a default, which keeps the behaviour from before the field existed: off, if a
    value means that. A section that is left out has the defaults of its fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _sections_may_be_left_out(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: {} for name, field in cls.model_fields.items() if section_of(field)} | tree


def section_of(field: FieldInfo) -> type[Params] | None:
    """Return the class of a field that is a section; None for a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Params) else None


P = TypeVar("P", bound=Params)

Reference = Annotated[str, Field(pattern=r"^.+@[0-9a-f]{16}$")]
"""A finished experiment as `name@key`: exactly this result, not a later one of the same name."""

Seed = Annotated[int, Within(0, 2**32 - 1, "numpy accepts no other seed")]
"""Seed of a stream of random numbers."""

DEFAULT_SEED = 416
"""The seed in params.yaml; the number is arbitrary."""


def load_params(cls: type[P], path: Path = Path("params.yaml")) -> P:
    """Load and check the sections of params.yaml that `cls` has as fields; other sections are not checked.

    The file is parsed as YAML 1.2 with DVC's parser: PyYAML would make `1e-4` a string and `off` a boolean.

    Raises:
        UserError: the message lists every unknown key, wrong type and contradiction, one per line.
    """
    tree = renamed(read_tree(path))
    return validate(cls, {name: tree[name] for name in cls.model_fields if name in tree}, path)


def read_tree(path: Path) -> dict[str, Any]:
    """Read all of params.yaml as plain dicts and lists.

    Raises:
        UserError: the file is missing or cannot be read, or as `parse_tree`.
    """
    with reading(path, missing="run from the root of the workspace"):
        text = path.read_text(encoding="utf-8")
    return parse_tree(text, path)


def parse_tree(text: str, place: Path | str) -> dict[str, Any]:
    """Parse the text of params.yaml, or of another file of that form, as plain dicts and lists.

    Args:
        text: YAML 1.2.
        place: The file, for errors.

    Raises:
        UserError: the text is not YAML, is not a mapping, or has a value that JSON lacks, such as a date.
    """
    with reading(place, "valid YAML"):
        tree = YAML(typ="safe").load(text)
        json.dumps(tree)  # fails for dates, binary data, cycles and endless numbers
    if not isinstance(tree, dict):
        raise UserError(f"{place}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def validate(cls: type[P], tree: dict[str, Any], path: Path | str) -> P:
    """Check `tree` and return it as a `cls`; keys that were renamed since it was written are accepted.

    Raises:
        UserError: the message lists all problems, each with its dotted key and the value found.
    """
    try:
        return cls.model_validate(renamed(tree))
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem)}" for problem in error.errors())
        raise UserError(f"{path}:\n{problems}") from None


def text_of_problem(problem: Any) -> str:
    """Return the text of one of pydantic's errors, as the code of this project wrote it."""
    return str(problem["msg"]).removeprefix("Value error, ")


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    message = text_of_problem(problem)
    match problem["type"]:
        case "extra_forbidden":
            return f"{key}: unknown parameter"
        case "missing":
            return f"{key}: missing"
        case "value_error":
            return f"{key}: {message}" if key else message
        case _:
            return f"{key}: {message}, found {shortened(problem['input'])}"
