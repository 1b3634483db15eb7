"""Parameters completed with the defaults of omitted keys, so that older and newer ones can be compared.

A file, a run in MLflow or a dvc.lock lists the keys that existed or mattered when it was written. A key that
it omits had its default, so parameters are completed before they are compared.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args

from callboard.params.base import Params, read_tree, section_of
from callboard.params.renamed import renamed, renamed_texts

PARAMS_FILE = Path("params.yaml")


def read_full_tree(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read all of params.yaml, with the defaults of omitted keys, without checking it.

    Raises:
        UserError: the file is missing, is not YAML, or is not a mapping.
    """
    return with_defaults(read_tree(path))


def with_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested sections under their current names, with the default of every omitted field.

    Nothing is refused, and unknown keys stay as they are. A whole number becomes a float where a field holds
    floats, as it does in validation.
    """
    return _completed(renamed(tree), _experiment())


@cache
def _experiment() -> type[Params]:
    """Return the class of all sections.

    An import statement would add every section to the code that a stage depends on. Comparing parameters
    changes no number, so a new field of `infer` must not rerun a training that compares some.
    """
    experiment: type[Params] = import_module("callboard.params.experiment").Experiment
    return experiment


def _completed(tree: Mapping[str, Any], cls: type[Params]) -> dict[str, Any]:
    result = dict(tree)
    for name, field in cls.model_fields.items():
        value = tree.get(name, {} if section_of(field) else field.get_default(call_default_factory=True))
        if (section := section_of(field)) and isinstance(value, dict):
            value = _completed(value, section)
        is_whole = type(value) is int and float in _kinds(field.annotation)
        result[name] = float(value) if is_whole else value
    return result


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or else the type alone."""
    return get_args(annotation) or (annotation,)


NOT_OF_A_RESULT = "scale"
"""Section that no stage reads; it changes no result, so it is left out where results are compared."""


def result_params(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return flat parameters of nested sections, without those on which no result depends."""
    return flatten({name: value for name, value in tree.items() if name != NOT_OF_A_RESULT})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested sections to dotted keys and texts; numbers, lists and null become JSON."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def text_value(text: str) -> Any:
    """Return the value that `flatten` wrote as this text; what is not valid JSON was a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def texts_with_defaults(flat: Mapping[str, str]) -> dict[str, str]:
    """Complete flat parameters, dotted key to text, as `with_defaults` and `result_params` do nested ones.

    An empty mapping means unknown parameters and stays empty.
    """
    if not flat:
        return {}
    known = known_keys()
    given = {key: text for key, text in renamed_texts(flat).items() if not _is_of_no_result(key)}
    for key in known.sections & given.keys():  # `sched: {}`
        del given[key]
    for key in known.floats & given.keys():
        if given[key].lstrip("-").isdigit():
            given[key] += ".0"
    # a mapping can be given element by element, as `model.backbone_args.layers`
    listed = given.keys() | {above for key in given for above in _keys_above(key)}
    omitted = {key: text for key, text in known.defaults.items() if key not in listed}
    return given | {key: text for key, text in omitted.items() if not _is_of_no_result(key)}


def _is_of_no_result(key: str) -> bool:
    return key.partition(".")[0] == NOT_OF_A_RESULT


@cache
def _keys_above(key: str) -> tuple[str, ...]:
    """Return the dotted keys of the mappings that contain a key."""
    parts = key.split(".")
    return tuple(".".join(parts[:n]) for n in range(1, len(parts)))


class KnownKeys(NamedTuple):
    """Every dotted key that params.yaml can have."""

    defaults: dict[str, str]
    """Dotted key to the text of its default."""
    floats: frozenset[str]
    """Keys of numbers that need not be whole."""
    sections: frozenset[str]


@cache
def known_keys() -> KnownKeys:
    """Return the keys of all sections, as their classes define them."""
    fields = dict(_fields(_experiment()))
    return KnownKeys(
        flatten(with_defaults({})),
        frozenset(key for key, annotation in fields.items() if float in _kinds(annotation)),
        frozenset(key for key, annotation in fields.items() if _is_section(annotation)),
    )


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Params)


def _fields(cls: type[Params], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and type annotation of every section and value."""
    for name, field in cls.model_fields.items():
        yield f"{prefix}{name}", field.annotation
        if section := section_of(field):
            yield from _fields(section, f"{prefix}{name}.")
