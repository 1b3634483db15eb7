"""The class axis of training: the species, or the song types of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from callboard.model.detector import SedModel
from callboard.model.heads import SedOutput

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ClassAxis:
    """What a network in training tells apart; the classes of a species lie together, species in order."""

    species: list[str]
    """What is scored."""
    class_species: Integers
    """(classes,) position of each class's species, ascending; every species has a class."""
    songtypes: list[str]
    """(classes,) song type; "" = whatever type the species has."""

    @property
    def names(self) -> list[str]:
        """(classes,) as `17:4` where the class is one song type of species 17, else `17`."""
        return [
            f"{self.species[position]}:{songtype}" if songtype else self.species[position]
            for position, songtype in zip(self.class_species, self.songtypes, strict=True)
        ]


def species_classes(clips: pd.DataFrame, species: list[str]) -> ClassAxis:
    """A class per species, whatever the clips."""
    return ClassAxis(species, np.arange(len(species)), [""] * len(species))


def songtype_classes(clips: pd.DataFrame, species: list[str]) -> ClassAxis:
    """A class per song type of the TP rows where a species has several, else one for the species."""
    tp = clips[clips["label_type"] == "tp"]
    types_of = {name: sorted(set(types)) for name, types in tp.groupby("species_id")["songtype_id"]}
    several = [types_of[name] if len(types_of.get(name, [])) > 1 else [""] for name in species]
    return ClassAxis(
        species,
        np.repeat(np.arange(len(species)), [len(types) for types in several]),
        list(chain.from_iterable(several)),
    )


CLASSES: dict[str, Callable[[pd.DataFrame, list[str]], ClassAxis]] = {
    "species": species_classes,
    "songtype": songtype_classes,
}
"""By train.classes: from all annotations and the species to the class axis, the same for every fold."""


def spread_over_classes(clips: pd.DataFrame, axis: ClassAxis) -> pd.DataFrame:
    """The rows once for each class that they speak of, with its position in a column `class_position`.

    A TP or FP row speaks of its own song type, or of its species where that has one class. An FP row of a
    type that no TP row has rejects none of the classes of its species and is left out. A pseudo-label has no
    song type, so it speaks of all classes of its species: that is right for the largest of them.

    Args:
        clips: species_id, songtype_id, label_type.
        axis: With all species of the clips.
    """
    of_species: dict[str, list[int]] = {}
    for column, position in enumerate(axis.class_species):
        of_species.setdefault(axis.species[position], []).append(column)
    columns = [
        [
            column
            for column in of_species[species_id]
            if label_type == "pseudo" or axis.songtypes[column] in ("", songtype_id)
        ]
        for species_id, songtype_id, label_type in zip(
            clips["species_id"], clips["songtype_id"], clips["label_type"], strict=True
        )
    ]
    row = np.repeat(np.arange(len(clips)), [len(own) for own in columns])
    return clips.iloc[row].assign(class_position=np.fromiter(chain.from_iterable(columns), np.int64))


class SpeciesModel(nn.Module):
    """A network that tells song types apart, speaking of species: the largest of a species' classes."""

    def __init__(self, model: SedModel, class_species: Sequence[int] | Integers) -> None:
        """Wrap `model`, whose weights are shared.

        Args:
            model: Its class axis is that of `class_species`.
            class_species: (classes,) position of each class's species, ascending; every species has a class.
        """
        super().__init__()
        self.model = model
        self.first_classes = (np.flatnonzero(np.diff(class_species)) + 1).tolist()  # of all species but one

    def forward(self, image: Tensor) -> SedOutput:
        """The outputs of a normalised `image` (batch, frames, mels)."""
        return self._merge_output(self.model(image))

    def _merge_output(self, output: SedOutput) -> SedOutput:
        *tensors, frequency = output
        merged = [self._merge(values) for values in tensors]
        return SedOutput._make([*merged, None if frequency is None else self._merge_output(frequency)])

    def _merge(self, values: Tensor) -> Tensor:
        parts = torch.tensor_split(values, self.first_classes, dim=-1)
        return torch.stack([part.amax(dim=-1) for part in parts], dim=-1)
