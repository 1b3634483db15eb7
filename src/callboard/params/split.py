"""How recordings become folds."""

from typing import Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params, Seed


class SplitParams(Params):
    """The `split` section."""

    folds: list[int] = Field(min_length=2)
    """Fold numbers 0 … n-1, spelled out because dvc.yaml runs one train stage per entry."""
    seed: Seed
    stratify: Literal["presence"]
    """presence: folds balanced on the species that a recording has a TP row of."""
    rare_species: Literal["error", "allow"]
    """allow: a species with fewer TP recordings than folds may be absent from some folds."""

    @model_validator(mode="after")
    def _folds_count_up(self) -> Self:
        if self.folds != list(range(len(self.folds))):
            raise ValueError(f"folds must be {list(range(len(self.folds)))}, found {self.folds}")
        return self
