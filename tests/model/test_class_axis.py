import numpy as np
import pandas as pd
import pytest
import torch

from callboard.model.class_axis import (
    CLASSES,
    SpeciesModel,
    songtype_classes,
    species_classes,
    spread_over_classes,
)
from callboard.model.detector import build_model
from callboard.params.training import TrainParams
from tests.toy_training import fit_params

SPECIES = ["16", "17", "2", "23"]


def clips_of(*rows):
    """Rows given as (label type, species, song type)."""
    return pd.DataFrame(rows, columns=["label_type", "species_id", "songtype_id"])


CLIPS = clips_of(
    ("tp", "23", "4"),
    ("tp", "17", "4"),
    ("tp", "17", "1"),
    ("tp", "23", "1"),
    ("tp", "23", "4"),
    ("tp", "16", "4"),
    ("fp", "16", "1"),
    ("fp", "2", "1"),
    ("fp", "2", "4"),
)


def test_a_species_with_several_confirmed_song_types_has_a_class_for_each():
    axis = songtype_classes(CLIPS, SPECIES)
    assert axis.names == ["16", "17:1", "17:4", "2", "23:1", "23:4"]
    assert axis.class_species.tolist() == [0, 1, 1, 2, 3, 3]
    assert axis.species == SPECIES


def test_species_classes_are_the_species():
    axis = species_classes(CLIPS, SPECIES)
    assert axis.names == SPECIES
    assert axis.class_species.tolist() == [0, 1, 2, 3]


def test_without_a_second_song_type_song_types_are_species():
    clips = CLIPS[CLIPS["songtype_id"] == "4"]
    assert songtype_classes(clips, SPECIES).names == SPECIES


def test_every_class_choice_of_the_params_is_in_its_table():
    assert set(CLASSES) == set(TrainParams.model_fields["classes"].annotation.__args__)


@pytest.mark.parametrize(
    ("row", "classes"),
    [
        (("tp", "17", "4"), ["17:4"]),
        (("fp", "17", "1"), ["17:1"]),
        (("fp", "17", "9"), []),  # nobody has confirmed this type
        (("fp", "16", "9"), ["16"]),
        (("tp", "16", "4"), ["16"]),
        (("pseudo", "17", ""), ["17:1", "17:4"]),
        (("pseudo", "2", ""), ["2"]),
    ],
)
def test_a_row_speaks_of_its_song_type(row, classes):
    axis = songtype_classes(CLIPS, SPECIES)
    spread = spread_over_classes(clips_of(("tp", "23", "1"), row), axis)
    assert [axis.names[position] for position in spread["class_position"]] == ["23:1", *classes]


def test_with_species_as_classes_every_row_is_kept_once():
    spread = spread_over_classes(CLIPS, species_classes(CLIPS, SPECIES))
    pd.testing.assert_frame_equal(spread[CLIPS.columns.tolist()], CLIPS)
    assert [SPECIES[position] for position in spread["class_position"]] == CLIPS["species_id"].tolist()


@pytest.mark.parametrize("frequency_head", [False, True])
def test_a_network_of_song_types_speaks_of_species_in_every_output(frequency_head):
    torch.manual_seed(0)
    network = build_model(fit_params(model__frequency_head=frequency_head).model, 6).eval()
    class_species = np.array([0, 1, 1, 2, 3, 3])
    image = torch.randn(2, 64, 32)
    with torch.inference_mode():
        spoken, raw = SpeciesModel(network, class_species)(image), network(image)
    assert (spoken.frequency is not None) == frequency_head
    pairs = [(spoken, raw)] + ([(spoken.frequency, raw.frequency)] if frequency_head else [])
    for merged, classes in pairs:
        for name in merged._fields[:-1]:
            values = getattr(classes, name)
            of_species = [values[..., class_species == k].amax(dim=-1) for k in range(4)]
            assert torch.equal(getattr(merged, name), torch.stack(of_species, dim=-1))
