"""The table of experiments: a chain of rows, each a base and a few changes, resolved to parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from callboard.core.errors import UserError, nearest
from callboard.experiments.scaling import factors, scaled
from callboard.experiments.steps import TableStep, is_below
from callboard.params.base import Params, read_tree, text_of_problem, validate
from callboard.params.defaults import with_defaults
from callboard.params.experiment import Experiment
from callboard.params.features import FrontEndParams
from callboard.params.references import INIT_FROM, OF_A_SEED, REFERENCE_KEYS, referenced_results
from callboard.params.scale import ScaleParams

NAME_PART = r"^\w+(\.\w+)*$"
"""Letters, digits, underscores, and single dots inside: git accepts it as part of a ref."""


class TableRow(Params):
    """A row of the table; optional fields have a default."""

    id: str = Field(pattern=NAME_PART)
    variant: str | None = Field(default=None, pattern=NAME_PART)
    """Name that distinguishes rows of one id."""
    block: int | Literal["todo", "footnote", "preset"]
    """Part of the original author's table, or what is outside it; presets are a separate chain."""
    base: str | None = None
    """Name of the row above that this one starts from; only the first row of a chain has none."""
    cv: float | None = Field(default=None, ge=0, le=1)
    """CV as the author noted it; None without a score."""
    lb: float | None = Field(default=None, ge=0, le=1)
    """Public leaderboard score, likewise."""
    verdict: str | None = None
    """The author's verdict, if given without a score."""
    memo_ja: str | None = None
    """The author's own words; None for a preset."""
    memo_en: str
    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    """Dotted key to value, at the competition's scale: differences from the base."""
    alone: dict[str, Any] = Field(default_factory=dict)
    """Likewise for keys that the table otherwise leaves to the workspace; rows based on this one do not
    inherit them."""
    command: str | None = None
    """Command to run instead, if the row is not an experiment."""
    note: str | None = None
    """Differences between the author's words and code, or choices that they leave open."""
    certainty: Literal["code", "inferred"] | None = None
    """Whether the author's code shows the change, or only the memo and neighbouring rows do."""

    @property
    def is_preset(self) -> bool:
        """Whether the row is a recipe of this project, not one of the author's."""
        return self.block == "preset"

    @model_validator(mode="after")
    def _author_s_rows_say_where_they_are_from(self) -> Self:
        if not self.is_preset and (self.memo_ja is None or self.certainty is None):
            raise ValueError("a row of the author's table needs memo_ja and certainty")
        return self

    @model_validator(mode="after")
    def _is_not_named_like_a_seed(self) -> Self:
        if OF_A_SEED.search(self.name):
            raise ValueError(f"{self.name} looks like a seed of a row: `--seed` gives results such names")
        return self

    @property
    def name(self) -> str:
        """Name of the row and of its DVC experiment: `exp0058`, or with its variant `exp0036-thr0.7`."""
        return f"{self.id}-{self.variant}" if self.variant else self.id


class TableFile(Params):
    """The whole file; rows are checked one by one later, so that a message can name the row."""

    rows: list[dict[str, Any]] = Field(min_length=1)


class _Sizes(FrontEndParams):
    """The sections on which sizes of a row depend."""

    scale: ScaleParams


TABLE = Path("experiments.yaml")

Values = dict[str, Any]
"""Dotted key to value."""

ABSENT = object()
"""Sentinel for an absent key."""


@dataclass(frozen=True)
class ExperimentTable:
    """The rows by name, in the table's order: the author's and the presets, two separate chains."""

    rows: dict[str, TableRow]
    resolved: dict[str, Values]
    """Name of a row to its value of every key that the table changes, at the competition's scale."""

    def step(self, name: str) -> TableStep | None:
        """Return the step from the row that a result is compared with; None for the first row of a chain.

        That row is the base, but bases with a value in `alone` that this row does not have are skipped:
        exp0005 repeats exp0001 with a different seed, which rows based on it do not inherit.
        """
        own, base = self.rows[name].alone, self.rows[name].base
        while base and any(own.get(key) != value for key, value in self.rows[base].alone.items()):
            base = self.rows[base].base
        if base is None:
            return None
        before, after = self.values(base), self.values(name)
        return TableStep(base, {key for key in after if before.get(key, ABSENT) != after[key]})

    def needs(self, name: str) -> list[str]:
        """Return the rows whose results this one needs: its start, then the parts of its blend; each once."""
        return referenced_results(self.values(name))

    def start(self, name: str) -> str | None:
        """Return the row whose weights this one starts from, or None."""
        row: str | None = self.values(name).get(INIT_FROM)
        return row

    def leaves_alone(self, key: str, name: str) -> bool:
        """Return whether neither the table nor this row sets a dotted key, so that the workspace decides."""
        return not is_below(key, self.values(name).keys())

    def row(self, name: str) -> TableRow:
        """Return the row of that name.

        Raises:
            UserError: the row does not exist; the message lists the nearest names.
        """
        if name not in self.rows:
            hint = nearest(name, self.rows) or "; `callboard board --author` lists all"
            raise UserError(f"{TABLE} has no row {name!r}{hint}")
        return self.rows[name]

    def resolve(self, name: str, tree: dict[str, Any]) -> Values:
        """Return a row's value of every key that the table changes or it sets alone, sized for some data.

        Args:
            name: Name of the row.
            tree: Nested sections of params.yaml of that data; omitted keys have their defaults.

        Raises:
            UserError: the row does not exist, or a section on which sizes depend is wrong.
        """
        values = self.values(name)
        full = with_defaults(tree)
        if "features.kind" in values:
            look_up(full, "features.kind")
            full["features"] = full["features"] | {"kind": values["features.kind"]}
        context = {section: full[section] for section in ("audio", "features", "scale")}
        sizes = validate(_Sizes, context, "params.yaml")
        found = factors(sizes.scale, look_up(full, "data.source"), sizes)
        return {key: scaled(value, found[key]) if key in found else value for key, value in values.items()}

    def overrides(
        self, name: str, tree: dict[str, Any], sized_by: dict[str, Any] | None = None
    ) -> list[tuple[str, Any]]:
        """Return the parameters of a workspace that a row changes: dotted keys with their new values.

        Args:
            name: Name of the row.
            tree: Nested sections of params.yaml; omitted keys have their defaults.
            sized_by: The same with the user's overrides, on which the row's sizes depend; None without any.

        Raises:
            UserError: as in `resolve`.
        """
        full = with_defaults(tree)
        values = self.resolve(name, full if sized_by is None else sized_by)
        return [(key, value) for key, value in values.items() if look_up(full, key) != value]

    def values(self, name: str) -> Values:
        """Return a row's value of every key that the table changes or it sets alone, as in the competition.

        Raises:
            UserError: the row does not exist.
        """
        return self.resolved[self.row(name).name] | self.rows[name].alone


def read_experiments(path: Path = TABLE) -> ExperimentTable:
    """Read and check the table.

    Raises:
        UserError: the file is missing or not a table, or a row is wrong: a name that another row has, a base
            or needed row that is not above it, an unknown key, a change that changes nothing.
    """
    file = validate(TableFile, read_tree(path), path)
    table = ExperimentTable({}, {})
    for number, entry in enumerate(file.rows, start=1):
        place = f"{path}: {entry.get('id') or f'row {number}'}"
        _append(table, validate(TableRow, entry, place), path)
    return table


def refuse_row_without_result(name: str) -> None:
    """Refuse a name, unknown among results, that a row of the table has.

    Raises:
        UserError: the table has that row; the message has the command that runs it.
    """
    if TABLE.exists() and (row := read_experiments().rows.get(name)):
        raise UserError(
            f"{name} is a row of {TABLE} without a result; `{row.command or f'callboard run {name}'}` runs it"
        )


def _append(table: ExperimentTable, row: TableRow, path: Path) -> None:
    place = f"{path}: {row.name}"
    if row.name in table.rows:
        raise UserError(f"{place}: two rows have this name; give one of them a variant")
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
        raise UserError(f"{place}: base {row.base} is not above it{first}")
    for key, value in (row.changes | row.alone).items():
        if missing := [name for name in referenced_results({key: value}) if name not in table.rows]:
            raise UserError(f"{place}: {key} {missing[0]} is not above it")


def _refuse_bad_changes(base: Values, row: TableRow, place: str) -> None:
    for key, value in row.changes.items():
        if key not in base:
            raise UserError(f"{place}: {key} must be named in the first row too, with its value there")
        if value == base[key]:
            raise UserError(f"{place}: {key} is already {value!r} in its base {row.base}")
    if shared := [key for key in row.alone if key in base]:
        raise UserError(f"{place}: {shared[0]} is set by the table, so it belongs in set, not in alone")


def refuse_bad_value(key: str, value: Any, place: str) -> None:
    """Refuse a value that a dotted key cannot have, whatever the values of other keys.

    Raises:
        UserError: the key does not exist, or the value does not fit it; the message begins with `place`.
    """
    holder = _holder(key)
    if holder is None:
        raise UserError(f"{place}: {key} is not a parameter")
    try:
        holder.model_validate({"value": value})
    except ValidationError as error:
        raise UserError(f"{place}: {key} {value!r}: {text_of_problem(error.errors()[0])}") from None


@cache
def _holder(key: str) -> type[Params] | None:
    """Return a class that checks values of a dotted key; None for an unknown key. Building one takes ms."""
    field = parameter(key)
    if field is None:
        return None
    if key in REFERENCE_KEYS:  # the table has names of rows; running one adds the keys of their results
        field = FieldInfo(annotation=REFERENCE_KEYS[key])
    return create_model("holder", __base__=Params, value=(field.annotation or Any, field))


def parameter(key: str) -> FieldInfo | None:
    """Return the field of a dotted key of params.yaml; None if the key is not a leaf."""
    fields: Mapping[str, FieldInfo] = Experiment.model_fields
    *sections, leaf = key.split(".")
    for name in sections:
        fields = getattr(fields[name].annotation, "model_fields", {}) if name in fields else {}
    found = fields.get(leaf)
    return None if found is None or hasattr(found.annotation, "model_fields") else found


def look_up(tree: dict[str, Any], key: str) -> Any:
    """Return the value of a dotted key.

    Raises:
        UserError: the key is missing.
    """
    value: Any = tree
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise UserError(f"params.yaml: {key}: missing")
        value = value[name]
    return value
