"""What experiments.yaml may hold."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params
from callboard.references import OF_A_SEED

NAME_PART = r"^\w+(\.\w+)*$"
"""Letters, digits, underscores and single dots inside: git takes it as part of a reference."""


class Entry(Params):
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
