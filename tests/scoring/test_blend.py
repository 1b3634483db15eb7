import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.score_tables import score_table
from callboard.results.lookup import find
from callboard.results.result import OUT_OF_FOLD, SUBMISSION
from callboard.scoring.blend import blend_tables, refuse_rescaled, refuse_split_groups
from tests.toy_git import PARAMS, ToyRepository

SPECIES = ["3", "07"]
COLUMNS = ["s3", "s07"]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    repository = ToyRepository(tmp_path / "main")
    add(repository, "a", ["r1", "r2"], [[0.1, 0.2], [0.3, 0.4]])
    add(repository, "b", ["r2", "r1"], [[0.5, 0.0], [0.9, 0.6]])
    return repository


def add(repository, name, recording_ids, scores, species=SPECIES, params=PARAMS):
    table = score_table(recording_ids, species, np.array(scores))
    with_fold = table.copy()
    with_fold.insert(1, "fold", 7)
    outs = {SUBMISSION: repository.cache_table(table), OUT_OF_FOLD: repository.cache_table(with_fold)}
    repository.experiment(name, outs, params)


def references(*names):
    return [find(name).reference for name in names]


@pytest.mark.parametrize("path", [SUBMISSION, OUT_OF_FOLD])
def test_a_blend_is_the_plain_mean_in_the_order_asked_for(repository, path):
    table = blend_tables(references("a", "b"), path, ["r2", "r1"], ["s07", "s3"])
    assert table.columns.tolist() == ["recording_id", "s07", "s3"]
    assert table["recording_id"].tolist() == ["r2", "r1"]
    np.testing.assert_allclose(table[["s07", "s3"]], [[0.2, 0.4], [0.4, 0.5]])


def test_a_blend_of_one_is_that_one_to_the_bit(repository):
    table = blend_tables(references("a"), SUBMISSION, ["r1", "r2"], COLUMNS)
    assert table[COLUMNS].to_numpy().tolist() == [[0.1, 0.2], [0.3, 0.4]]


def test_weights_say_how_much_of_each_part(repository):
    table = blend_tables(references("a", "b"), SUBMISSION, ["r1", "r2"], COLUMNS, [3, 1])
    np.testing.assert_allclose(table[COLUMNS], [[0.3, 0.3], [0.35, 0.3]])


def test_a_part_whose_submission_was_rescaled_is_refused_where_it_is_held_against_out_of_fold_scores(
    repository,
):
    rescaled = {**PARAMS, "infer": {"prevalence": 0.5}}
    add(repository, "c", ["r1", "r2"], [[0.1, 0.2], [0.3, 0.4]], params=rescaled)
    refuse_rescaled(references("a", "b"), "stack")
    (reference,) = references("c")
    with pytest.raises(
        UserError, match=f"infer.stack: infer.prevalence rescaled the submission of {reference}"
    ):
        refuse_rescaled(references("a", "c"), "stack")


def test_a_part_without_key_is_refused_with_the_right_one(repository):
    (reference,) = references("b")
    with pytest.raises(UserError, match=f"infer.blend: 'b' must be an exact reference: {reference}"):
        blend_tables([*references("a"), "b"], SUBMISSION, ["r1", "r2"], COLUMNS)


def test_a_part_with_another_key_is_refused_with_the_right_one(repository):
    (reference,) = references("b")
    with pytest.raises(UserError, match=f"no result is called 'b@{'f' * 16}'; the nearest are {reference}"):
        blend_tables([f"b@{'f' * 16}"], SUBMISSION, ["r1", "r2"], COLUMNS)


def test_parts_of_different_data_are_refused_though_their_recordings_are_called_alike(repository):
    table = score_table(["r1", "r2"], SPECIES, np.array([[0.1, 0.2], [0.3, 0.4]]))
    outs = dict.fromkeys((SUBMISSION, OUT_OF_FOLD), repository.cache_table(table))
    repository.experiment("elsewhere", outs | {"data/source": "other data"}, PARAMS)
    with pytest.raises(UserError, match=r"a@.*, elsewhere@.* were computed on different data"):
        blend_tables(references("a", "elsewhere"), SUBMISSION, ["r1", "r2"], COLUMNS)


@pytest.mark.parametrize(
    ("recording_ids", "columns", "message"),
    [
        (["r1", "r2", "r3"], COLUMNS, r"different recordings .*: missing 1 \(r3, …\), extra none"),
        (["r1"], COLUMNS, r"different recordings .*: missing none, extra 1 \(r2, …\)"),
        (["r1", "r2"], ["s3", "s9"], r"different columns .*: missing 1 \(s9, …\), extra 1 \(s07, …\)"),
    ],
)
def test_a_part_of_other_recordings_or_species_is_refused(repository, recording_ids, columns, message):
    with pytest.raises(UserError, match=message):
        blend_tables(references("a", "b"), SUBMISSION, recording_ids, columns)


def test_a_part_whose_folds_part_a_group_is_refused(repository):
    scores = score_table(["r1", "r2", "r3"], SPECIES, np.zeros((3, 2)))
    for name, fold in (("together", [0, 0, 1]), ("apart", [0, 1, 1])):
        table = scores.assign(fold=fold)
        repository.experiment(name, {OUT_OF_FOLD: repository.cache_table(table)}, PARAMS)
    folds = pd.DataFrame({"recording_id": ["r3", "r1", "r2"], "fold": [0, 1, 1], "group": ["B", "A", "A"]})
    refuse_split_groups(references("together"), folds)
    refuse_split_groups(references("together", "apart"), folds.drop(columns="group"))
    with pytest.raises(
        UserError, match=r"leak: groups .* several folds of apart@\w+: A in \[0, 1\], such as r1 and r2"
    ):
        refuse_split_groups(references("together", "apart"), folds)


def test_groups_of_a_part_are_no_scores(repository):
    table = score_table(["r1", "r2"], SPECIES, np.array([[0.1, 0.2], [0.3, 0.4]])).assign(fold=0, group="A")
    repository.experiment("c", {OUT_OF_FOLD: repository.cache_table(table)}, PARAMS)
    found = blend_tables(references("c"), OUT_OF_FOLD, ["r1", "r2"], COLUMNS)
    assert found.columns.tolist() == ["recording_id", *COLUMNS]
