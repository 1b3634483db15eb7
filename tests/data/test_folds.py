import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.folds import assign_folds, audit_copies, audit_folds, read_folds, write_folds
from callboard.params.data import SplitParams


def params(n_folds=5, seed=0, rare_species="error"):
    return SplitParams(folds=list(range(n_folds)), seed=seed, stratify="presence", rare_species=rare_species)


def annotations(*rows):
    """Rows given as (recording, species, label type)."""
    return pd.DataFrame(rows, columns=["recording_id", "species_id", "label_type"], dtype=str)


@pytest.fixture
def clips():
    """60 TP recordings of 3 species, every fifth with two; 30 FP-only recordings; FP rows in 10 TP ones."""
    rows = [(f"r{i:03d}", str(i % 3), "tp") for i in range(60)]
    rows += [(f"r{i:03d}", str((i + 1) % 3), "tp") for i in range(0, 60, 5)]
    rows += [(f"r{i:03d}", str(i % 3), "fp") for i in range(50, 90)]
    return annotations(*rows)


def test_no_recording_is_in_two_folds(clips):
    folds = assign_folds(clips, params())
    assert folds["recording_id"].is_unique
    assert set(folds["recording_id"]) == set(clips["recording_id"])
    audit_folds(folds, clips)


def test_every_species_divides_evenly_over_the_folds(clips):
    folds = assign_folds(clips, params()).set_index("recording_id")["fold"]
    tp_recordings = clips[clips["label_type"] == "tp"].drop_duplicates()
    counts = pd.crosstab(tp_recordings["species_id"], tp_recordings["recording_id"].map(folds))
    assert counts.shape == (3, 5)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 2


def test_fp_only_recordings_divide_evenly_by_their_rejected_species(clips):
    folds = assign_folds(clips, params()).set_index("recording_id")["fold"]
    fp_only = clips[clips["recording_id"] >= "r060"]
    counts = pd.crosstab(fp_only["species_id"], fp_only["recording_id"].map(folds))
    assert (counts == 2).all(axis=None)


def test_folds_do_not_depend_on_the_order_of_rows(clips):
    shuffled = clips.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(assign_folds(clips, params()), assign_folds(shuffled, params()))


def test_fp_rows_do_not_move_the_folds_of_tp_recordings(clips):
    tp = clips[clips["label_type"] == "tp"]
    of_all = assign_folds(clips, params())
    pd.testing.assert_frame_equal(
        assign_folds(tp, params()),
        of_all[of_all["recording_id"].isin(tp["recording_id"])].reset_index(drop=True),
    )


def test_the_seed_moves_recordings(clips):
    assert not assign_folds(clips, params()).equals(assign_folds(clips, params(seed=1)))


def test_rare_species_are_refused_with_their_counts_and_the_switch(clips):
    rare = annotations(("r000", "rare", "tp"), ("r001", "rarer", "tp"), ("r002", "rare", "tp"))
    with pytest.raises(UserError, match=r"rare \(2\), rarer \(1\); .*split.rare_species=allow"):
        assign_folds(pd.concat([clips, rare]), params())


def test_several_boxes_in_a_recording_do_not_make_a_species_less_rare(clips):
    boxes = annotations(*[("r000", "rare", "tp")] * 9, ("r001", "rare", "tp"))
    with pytest.raises(UserError, match=r"rare \(2\); "):
        assign_folds(pd.concat([clips, boxes]), params())


def test_fewer_recordings_than_folds_are_refused_even_with_allow():
    few = annotations(*((f"r{i}", "a", "tp") for i in range(4)), ("r9", "a", "fp"))
    with pytest.raises(UserError, match="5 folds need at least 5 TP recordings, found 4"):
        assign_folds(few, params(rare_species="allow"))


@pytest.mark.parametrize("seed", range(20))
def test_six_recordings_fill_five_folds(seed):
    few = annotations(*((f"r{i}", str(i % 4), "tp") for i in range(6)), ("r9", "1", "fp"))
    folds = assign_folds(few, params(seed=seed, rare_species="allow"))
    tp_folds = folds.loc[folds["recording_id"] != "r9", "fold"]
    assert sorted(tp_folds.unique()) == [0, 1, 2, 3, 4]
    audit_folds(folds, few)


def test_recordings_fewer_than_folds_lie_apart_in_an_order_that_the_seed_gives(clips):
    few = annotations(("r7", "0", "fp"), ("r8", "0", "fp"), ("r9", "1", "fp"))
    whole = pd.concat([clips[clips["label_type"] == "tp"], few])
    tables = [assign_folds(whole, params(seed=seed)).set_index("recording_id") for seed in range(20)]
    folds = [table["fold"].loc[["r7", "r8", "r9"]].tolist() for table in tables]
    assert all(len(set(of_seed)) == 3 for of_seed in folds)
    assert len(set(map(tuple, folds))) > 3


def test_a_single_species_can_be_split():
    one = annotations(*((f"r{i}", "a", "tp") for i in range(10)))
    assert assign_folds(one, params())["fold"].value_counts().tolist() == [2] * 5


def test_ids_that_look_like_numbers_stay_text(tmp_path):
    ids = ["055088446", "838227e71", "007", "7", "1e3"]
    folds = assign_folds(annotations(*((name, "3", "tp") for name in ids)), params())
    write_folds(folds, tmp_path / "folds.csv")
    pd.testing.assert_frame_equal(read_folds(tmp_path / "folds.csv"), folds)
    assert set(folds["recording_id"]) == set(ids)


def test_a_planted_leak_is_caught_and_named(clips):
    folds = assign_folds(clips, params())
    moved = folds[folds["recording_id"] == "r055"].assign(fold=lambda row: (row["fold"] + 1) % 5)
    with pytest.raises(UserError, match=r"leak: .*r055 \(fp\+tp rows\) in folds \[\d, \d\]"):
        audit_folds(pd.concat([folds, moved]), clips)


def test_a_recording_without_a_fold_is_caught(clips):
    folds = assign_folds(clips, params())
    pseudo = annotations(("r900", "0", "pseudo"))
    with pytest.raises(UserError, match="without a fold: r900"):
        audit_folds(folds, pd.concat([clips, pseudo]))


def test_only_pseudo_labels_of_test_recordings_need_no_fold(clips):
    folds = assign_folds(clips, params())
    pseudo = annotations(("t1", "0", "pseudo"))
    audit_folds(folds, pd.concat([clips, pseudo]), ["t1", "t2"])
    for other in (annotations(("t1", "0", "tp")), annotations(("r900", "0", "pseudo"))):
        with pytest.raises(UserError, match=r"without a fold: (t1|r900)"):
            audit_folds(folds, pd.concat([clips, pseudo, other]), ["t1", "t2"])


def test_a_recording_nobody_annotated_is_caught(clips):
    folds = assign_folds(clips, params())
    with pytest.raises(UserError, match="without any annotation: r060, r061"):
        audit_folds(folds, clips[clips["label_type"] == "tp"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recording_id,fold\nr1,0\nr1,1\n", "leak: recording r1 is listed more than once"),
        ("recording_id,fold\nr1,0\nr2,x\n", "row 3: fold must be a number, found 'x'"),
        ("recording_id,fold\nr1,-1\n", "row 2: fold must be a number, found '-1'"),
        ("recording,fold\nr1,1\n", r"missing column\(s\) recording_id; found recording, fold"),
        ("recording_id,fold\nr1,0\n\nr2,x\n", "row 4: fold must be a number"),
    ],
)
def test_a_bad_folds_table_is_refused(tmp_path, text, message):
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_folds(path)


def test_a_missing_folds_table_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"folds.csv: not found; the split stage writes it"):
        read_folds(tmp_path / "folds.csv")


def test_copies_are_in_one_fold_and_count_as_one_recording(clips):
    copies = [f"copy{i}" for i in range(10)]
    more = pd.concat([clips, annotations(*((name, "0", "tp") for name in copies))])
    digests = dict.fromkeys(["r000", *copies], "same")
    folds = assign_folds(more, params(), digests)
    assert folds["recording_id"].tolist() == sorted({*clips["recording_id"], *copies})
    of_copies = folds[folds["recording_id"].isin(digests)]
    assert of_copies["fold"].nunique() == 1
    sizes = folds[~folds["recording_id"].isin(copies)]["fold"].value_counts()
    assert sizes.max() - sizes.min() <= 2
    audit_folds(folds, more)
    alone = annotations(*((name, "alone", "tp") for name in copies))
    with pytest.raises(UserError, match=r"alone \(1\)"):
        assign_folds(pd.concat([more, alone]), params(), digests)


def test_without_copies_digests_change_no_fold(clips):
    digests = {name: f"of {name}" for name in clips["recording_id"]}
    pd.testing.assert_frame_equal(assign_folds(clips, params(), digests), assign_folds(clips, params()))


def test_a_recording_that_is_a_copy_with_fp_rows_alone_follows_the_one_with_tp_rows(clips):
    digests = {"r089": "same", "r003": "same"}
    fold = assign_folds(clips, params(), digests).set_index("recording_id")["fold"]
    assert fold["r089"] == fold["r003"]


def test_copies_in_different_folds_are_a_leak_with_names(clips):
    folds = assign_folds(clips, params()).sort_values("fold", ignore_index=True)
    apart = folds["recording_id"].iloc[[0, -1]].tolist()
    with pytest.raises(UserError, match=f"leak: .* in different folds: {' = '.join(apart)}"):
        audit_copies(folds, dict.fromkeys(apart, "same"))
    together = folds["recording_id"].iloc[:2].tolist()
    assert audit_copies(folds, dict.fromkeys(together, "same") | {apart[1]: "alone"}) == [
        " = ".join(together)
    ]
