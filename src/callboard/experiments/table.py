"""The table of experiments: a chain of rows, each a base and a few changes, resolved to parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from callboard.core.errors import UserError, nearest
from callboard.experiments.steps import TableStep, is_below
from callboard.params.base import Params, read_tree, validate
from callboard.params.defaults import with_defaults
from callboard.params.experiment import Experiment
from callboard.params.references import INIT_FROM, OF_A_SEED, REFERENCE_KEYS, referenced_results

NAME_PART = r"^\w+(\.\w+)*$"
"""Letters, digits, underscores and single dots inside: git takes it as part of a reference."""


class TableRow(Params):
    """An experiment of the table; what may be left out has a default."""

    id: str = Field(pattern=NAME_PART)
    variant: str | None = Field(default=None, pattern=NAME_PART)
    """Tells rows of one id apart."""
    block: int | Literal["todo", "footnote", "preset"]
    """Part of the author's table; todo and footnote stand beside it. Presets are a chain of their own."""
    base: str | None = None
    """Name of the row above that this one starts from; only the first row of a chain has none."""
    cv: float | None = Field(default=None, ge=0, le=1)
    """As the author noted it; none where he has no score."""
    lb: float | None = Field(default=None, ge=0, le=1)
    """Public leaderboard, likewise."""
    verdict: str | None = None
    """The author's, where he judged without a score."""
    memo_ja: str | None = None
    """The author's own words; a preset has none."""
    memo_en: str
    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Dotted key to value, at the competition's scale: what differs from the base."""
    alone: dict[str, Any] = Field(default_factory=dict)
    """The same for keys that the table otherwise leaves to the workspace; rows based on this one do not take
    them over."""
    command: str | None = None
    """What runs instead, where the row is no experiment."""
    note: str | None = None
    """Where the author's words and his code differ, or leave a choice."""
    certainty: Literal["code", "inferred"] | None = None
    """Whether the author's code shows the change, or only his memo and its neighbours do."""

    @property
    def is_preset(self) -> bool:
        """Whether the row is a recipe of ours, not one of the author's."""
        return self.block == "preset"

    @model_validator(mode="after")
    def _author_s_rows_say_where_they_are_from(self) -> Self:
        if not self.is_preset and (self.memo_ja is None or self.certainty is None):
            raise ValueError("a row of the author's needs memo_ja and certainty")
        return self

    @model_validator(mode="after")
    def _is_told_from_other_seeds(self) -> Self:
        if OF_A_SEED.search(self.name):
            raise ValueError(f"{self.name} reads as another seed of a row: `--seed` names results so")
        return self

    @property
    def name(self) -> str:
        """`exp0058`, or with its variant `exp0036-thr0.7`; the name of its experiment in DVC too."""
        return f"{self.id}-{self.variant}" if self.variant else self.id


class TableFile(Params):
    """The whole file; rows are checked one by one, so that a message can name the row."""

    scales: dict[str, dict[str, float]]
    """Value of `data.source` to dotted key to factor."""
    rows: list[dict[str, Any]] = Field(min_length=1)


TABLE = Path("experiments.yaml")

Values = dict[str, Any]
"""Dotted key to value."""

ABSENT = object()
"""What no value of a key is."""


@dataclass(frozen=True)
class ExperimentTable:
    """The rows by name, in the table's order: the author's and the presets, two chains that share no base."""

    rows: dict[str, TableRow]
    scales: dict[str, dict[str, float]]
    """Value of `data.source` to dotted key to factor."""
    resolved: dict[str, Values]
    """Name of a row to its value of every key that the table moves, at the competition's scale."""

    def step(self, name: str) -> TableStep | None:
        """From the row that a result is compared with: its base, past bases that change something else alone.

        exp0005 repeats exp0001 with another seed, which rows based on it do not take over. None for the first
        row of a chain.
        """
        own, base = self.rows[name].alone, self.rows[name].base
        while base and any(own.get(key) != value for key, value in self.rows[base].alone.items()):
            base = self.rows[base].base
        if base is None:
            return None
        before, after = self._values(base), self._values(name)
        return TableStep(base, {key for key in after if before.get(key, ABSENT) != after[key]})

    def needs(self, name: str) -> list[str]:
        """Rows whose results this one takes: what it starts from, then the parts of its blend; each once."""
        return referenced_results(self._values(name))

    def start(self, name: str) -> str | None:
        """The row whose weights this one starts from."""
        row: str | None = self._values(name).get(INIT_FROM)
        return row

    def leaves_alone(self, key: str, name: str) -> bool:
        """Whether a dotted key is the workspace's: neither the table nor this row moves it."""
        return not is_below(key, self._values(name).keys())

    def row(self, name: str) -> TableRow:
        """The row of that name.

        Raises:
            UserError: there is none; the nearest names are told.
        """
        if name not in self.rows:
            hint = nearest(name, self.rows) or f"; the first is {next(iter(self.rows))}"
            raise UserError(f"{TABLE} has no row {name!r}{hint}")
        return self.rows[name]

    def resolve(self, name: str, source: str) -> Values:
        """A row's value of every key that the table moves, and of those that it moves alone.

        Args:
            name: Of the row.
            source: `data.source` of the workspace, which may have a scale of its own.

        Raises:
            UserError: no such row.
        """
        values = self._values(self.row(name).name)
        factors = self.scales.get(source, {})
        return {
            key: scaled(value, factors[key]) if key in factors else value for key, value in values.items()
        }

    def overrides(self, name: str, tree: dict[str, Any]) -> list[tuple[str, Any]]:
        """What a row changes of a workspace's parameters: dotted keys with their new values.

        Args:
            name: Of the row.
            tree: All that params.yaml lists; what it leaves out holds its default.

        Raises:
            UserError: no such row.
        """
        full = with_defaults(tree)
        values = self.resolve(name, look_up(full, "data.source"))
        return [(key, value) for key, value in values.items() if look_up(full, key) != value]

    def _values(self, name: str) -> Values:
        """A row's value of every key that the table moves and of those that it moves alone, unscaled."""
        return self.resolved[name] | self.rows[name].alone


def read_experiments(path: Path = TABLE) -> ExperimentTable:
    """The table as its file has it, checked.

    Raises:
        UserError: the file is missing or no table, or a row is wrong: two of one name, a base or another row
            that it needs does not stand above it, an unknown key, a change that changes nothing.
    """
    file = validate(TableFile, read_tree(path), path)
    table = ExperimentTable({}, file.scales, {})
    for number, entry in enumerate(file.rows, start=1):
        place = f"{path}: {entry.get('id') or f'row {number}'}"
        _append(table, validate(TableRow, entry, place), path)
    moved = {key for values in table.resolved.values() for key in values}
    for source, factors in file.scales.items():
        if unknown := sorted(set(factors) - moved):
            raise UserError(f"{path}: scales.{source} has {unknown[0]}, which no row moves")
    return table


def _append(table: ExperimentTable, row: TableRow, path: Path) -> None:
    place = f"{path}: {row.name}"
    if row.name in table.rows:
        raise UserError(f"{place}: two rows have this name; a variant tells them apart")
    for key, value in (row.changes | row.alone).items():
        refuse_bad_value(key, value, place)
    chain = [name for name, other in table.rows.items() if other.is_preset == row.is_preset]
    _refuse_bad_links(table, row, chain, place)
    if row.base:
        _refuse_bad_changes(table.resolved[row.base], row, place)
    table.rows[row.name] = row
    table.resolved[row.name] = (table.resolved[row.base] if row.base else {}) | row.changes


def _refuse_bad_links(table: ExperimentTable, row: TableRow, chain: list[str], place: str) -> None:
    if chain and not row.base:
        raise UserError(f"{place}: base is missing; only the first row, {chain[0]}, has none")
    if row.base and row.base not in chain:
        first = "" if chain else "; the first row has none"
        raise UserError(f"{place}: base {row.base} does not stand above it{first}")
    for key, value in (row.changes | row.alone).items():
        if missing := [name for name in referenced_results({key: value}) if name not in table.rows]:
            raise UserError(f"{place}: {key} {missing[0]} does not stand above it")


def _refuse_bad_changes(base: Values, row: TableRow, place: str) -> None:
    for key, value in row.changes.items():
        if key not in base:
            raise UserError(f"{place}: {key} must be named in the first row too, with its value there")
        if value == base[key]:
            raise UserError(f"{place}: {key} is {value!r} in its base {row.base} already")
    if moved := [key for key in row.alone if key in base]:
        raise UserError(f"{place}: {moved[0]} is moved by the table, so it belongs to set, not to alone")


def refuse_bad_value(key: str, value: Any, place: str) -> None:
    """Refuse what a dotted key cannot hold, whatever other keys hold.

    Raises:
        UserError: there is no such key, or the value does not fit it; `place` says where it stands.
    """
    holder = _holder(key)
    if holder is None:
        raise UserError(f"{place}: {key} is no parameter")
    try:
        holder.model_validate({"value": value})
    except ValidationError as error:
        raise UserError(f"{place}: {key} {value!r}: {error.errors()[0]['msg']}") from None


@cache
def _holder(key: str) -> type[Params] | None:
    """What checks a value of a dotted key; None where there is no such key. Making one takes milliseconds."""
    field = parameter(key)
    if field is None:
        return None
    if key in REFERENCE_KEYS:  # names of rows stand in the table; running one adds the keys of their results
        field = FieldInfo(annotation=REFERENCE_KEYS[key])
    return create_model("holder", __base__=Params, value=(field.annotation or Any, field))


def parameter(key: str) -> FieldInfo | None:
    """What a dotted key of params.yaml may hold; None where it names no leaf."""
    fields: Mapping[str, FieldInfo] = Experiment.model_fields
    *sections, leaf = key.split(".")
    for name in sections:
        fields = getattr(fields[name].annotation, "model_fields", {}) if name in fields else {}
    found = fields.get(leaf)
    return None if found is None or hasattr(found.annotation, "model_fields") else found


def look_up(tree: dict[str, Any], key: str) -> Any:
    """The value of a dotted key.

    Raises:
        UserError: params.yaml has no such key.
    """
    value: Any = tree
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise UserError(f"params.yaml: {key}: missing")
        value = value[name]
    return value


def scaled(value: Any, factor: float) -> Any:
    """A number times `factor`, a whole one rounded half up; lists element by element, null stays null."""
    match value:
        case list():
            return [scaled(element, factor) for element in value]
        case int():
            return math.floor(value * factor + 0.5)
        case float():
            return value * factor
        case _:
            return value
