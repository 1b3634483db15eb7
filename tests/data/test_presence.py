import numpy as np
import pandas as pd
import pytest

from callboard.data.presence import relabeled_presence, species_presence


@pytest.fixture
def annotations():
    return pd.DataFrame({"recording_id": ["r2", "r1", "r2", "r9"], "species_id": ["b", "a", "b", "a"]})


def test_presence_by_hand(annotations):
    expected = np.array([[True, False, False], [False, True, False], [False, False, False]])
    np.testing.assert_array_equal(
        species_presence(annotations, ["r1", "r2", "r3"], ["a", "b", "c"]), expected
    )


def test_no_annotations_give_an_empty_table(annotations):
    assert not species_presence(annotations.iloc[:0], ["r1"], ["a", "b"]).any()


def test_an_unknown_species_is_refused(annotations):
    with pytest.raises(ValueError, match=r"species \['b'\] are annotated but not among the 1 species"):
        species_presence(annotations, ["r1"], ["a"])


def test_positive_pseudo_labels_count_as_confirmed_and_absences_and_rejections_do_not():
    columns = ["recording_id", "species_id", "label_type"]
    clips = pd.DataFrame([("a", "x", "tp"), ("a", "y", "fp"), ("b", "x", "fp")], columns=columns)
    pseudo = pd.DataFrame(
        [("b", "x", 0.4), ("b", "y", 0.0), ("t", "y", 1.0)], columns=["recording_id", "species_id", "target"]
    )
    assert relabeled_presence(clips, pseudo, ["a", "b"], ["x", "y"]).tolist() == [
        [True, False],
        [True, False],
    ]
    every = relabeled_presence(clips, pseudo.drop(columns="target"), ["a", "b"], ["x", "y"])
    assert every.tolist() == [[True, False], [True, True]]
