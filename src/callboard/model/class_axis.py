"""The class axis of training: the species, or the song types of each species."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

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
    """The classes of a network in training; a species' classes are adjacent, and species are in order."""

    species: list[str]
    """The species that are scored."""
    class_species: Integers
    """(classes,) position of each class's species, ascending; every species has at least one class."""
    songtypes: list[str]
    """(classes,) song type; "" = all types of the species."""

    @property
    def names(self) -> list[str]:
        """(classes,) names: `17:4` if the class is song type 4 of species 17, `17` if it is all of it."""
        return [
            f"{self.species[position]}:{songtype}" if songtype else self.species[position]
            for position, songtype in zip(self.class_species, self.songtypes, strict=True)
        ]


def species_classes(clips: pd.DataFrame, species: list[str]) -> ClassAxis:
    """Return one class per species, regardless of the clips."""
    return ClassAxis(species, np.arange(len(species)), [""] * len(species))


def songtype_classes(clips: pd.DataFrame, species: list[str]) -> ClassAxis:
    """Return a class for each song type in a species' TP rows if it has several, else one for the species."""
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
"""By train.classes, the function from all annotations and the species to the class axis of all folds."""


def spread_over_classes(clips: pd.DataFrame, axis: ClassAxis) -> pd.DataFrame:
    """Repeat each row for every class that it applies to, and add the class's position as `class_position`.

    A TP or FP row applies to the class of its song type, or of its species if that has only one class. An FP
    row of a song type without TP rows rejects none of its species' classes and is left out. A pseudo-label
    has no song type, so it applies to all classes of its species; it is correct for the largest of them.

    Args:
        clips: species_id, songtype_id, label_type.
        axis: Class axis with all species of the clips.
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
    """Wrapper that merges outputs for song types into outputs for species, by the maximum over classes."""

    def __init__(self, model: SedModel, class_species: Sequence[int] | Integers) -> None:
        """Wrap `model`, sharing its weights.

        Args:
            model: Network with the classes of `class_species`.
            class_species: (classes,) position of each class's species, ascending; every species has a class.
        """
        super().__init__()
        self.model = model
        self.first_classes = (np.flatnonzero(np.diff(class_species)) + 1).tolist()  # except species 0's

    def forward(self, image: Tensor) -> SedOutput:
        """Return the outputs of a normalised `image` (batch, frames, mels)."""
        return self._merge_output(self.model(image))

    def _merge_output(self, output: SedOutput) -> SedOutput:
        *tensors, frequency = output
        merged = [self._merge(values) for values in tensors]
        return SedOutput._make([*merged, None if frequency is None else self._merge_output(frequency)])

    def _merge(self, values: Tensor) -> Tensor:
        spans = pairwise([0, *self.first_classes, None])  # slices, since OpenVINO cannot split
        return torch.stack([values[..., start:stop].amax(dim=-1) for start, stop in spans], dim=-1)
