from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.folds import assign_folds, audit_folds, read_folds, write_folds
from callboard.data.groups import assign_groups, join_copies, read_metadata, site_of
from callboard.params.data import SplitParams

SITES = 12
"""Sites of the recordings of `clips`, of 2, 4, … 24 recordings."""


def params(group: str, n_folds: int = 4, seed: int = 0, rare_species: str = "allow") -> SplitParams:
    return SplitParams.model_validate(
        {"folds": list(range(n_folds)), "seed": seed, "rare_species": rare_species, "group": group}
    )


def table(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=str)


@pytest.fixture(scope="module")
def clips() -> pd.DataFrame:
    """TP rows of six species in the recordings of twelve sites; FP rows alone in those of three more."""
    rows = [
        (f"S{site:02d}_2024{i:04d}_120000", str((site + i % 5) % 6), "tp")
        for site in range(SITES)
        for i in range(2 * site + 2)
    ]
    rows += [(f"F{site}_20240101_{i:06d}", "1", "fp") for site in range(3) for i in range(4)]
    return pd.DataFrame(rows, columns=["recording_id", "species_id", "label_type"], dtype=str)


@pytest.fixture(scope="module")
def metadata(clips: pd.DataFrame) -> pd.DataFrame:
    ids = sorted(set(clips["recording_id"]))
    return table(recording_id=ids, site=[name.partition("_")[0] for name in ids])


def test_a_pattern_and_a_column_of_the_same_sites_give_the_same_folds(
    clips: pd.DataFrame, metadata: pd.DataFrame
) -> None:
    by_column = assign_folds(clips, params("site"), metadata=metadata)
    by_pattern = assign_folds(clips, params("SITE_YYYYMMDD_HHMMSS"))
    pd.testing.assert_frame_equal(by_column, by_pattern)
    assert by_column["group"].nunique() == SITES + 3
    audit_folds(by_column, clips)


@pytest.mark.parametrize("seed", range(5))
def test_groups_lie_whole_in_folds_of_like_sizes_with_like_species(
    clips: pd.DataFrame, metadata: pd.DataFrame, seed: int
) -> None:
    folds = assign_folds(clips, params("site", seed=seed), metadata=metadata)
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    tp = clips[clips["label_type"] == "tp"].merge(folds, on="recording_id")
    sizes = tp["fold"].value_counts()
    assert sizes.max() - sizes.min() <= 8  # the largest site has 24 of 156 recordings
    counts = pd.crosstab(tp["species_id"], tp["fold"])
    assert (counts > 0).all(axis=None)
    fp_only = folds[folds["group"].str.startswith("F")].drop_duplicates("group")
    assert fp_only["fold"].is_unique


@pytest.mark.parametrize("seed", range(10))
def test_as_many_groups_as_folds_leave_no_fold_empty(clips: pd.DataFrame, seed: int) -> None:
    folds = assign_folds(clips, params("SITE_YYYYMMDD_HHMMSS", SITES, seed))
    in_folds = folds[folds["group"].str.startswith("S")].drop_duplicates("group")["fold"]
    assert sorted(in_folds) == list(range(SITES))


def test_folds_by_group_do_not_depend_on_the_order_of_rows(clips: pd.DataFrame) -> None:
    split = params("SITE_YYYYMMDD_HHMMSS")
    shuffled = clips.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(assign_folds(clips, split), assign_folds(shuffled, split))
    others = [assign_folds(clips, params("SITE_YYYYMMDD_HHMMSS", seed=seed)) for seed in range(4)]
    assert any(not other.equals(others[0]) for other in others)


@pytest.mark.parametrize(
    ("pattern", "recording_id", "site"),
    [
        ("SITE_YYYYMMDD_HHMMSS", "A_B_20240131_063000", "A_B"),
        ("SITE_YYMMDD_HHMMSS", "A1_240131_063000", "A1"),
        ("SITE_*", "A1_left_20240131", "A1"),
        ("*-SITE.YYYYMMDD*", "x-A1.20240131T06", "A1"),
        ("SITE+*", "A+1", "A"),
        ("prefix_SITE", "prefix_SITE", "SITE"),
    ],
)
def test_a_pattern_finds_the_site(pattern: str, recording_id: str, site: str) -> None:
    assert assign_groups([recording_id], params(pattern), table(recording_id=[])).to_dict() == {
        recording_id: site
    }


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("june/north/A_20260601_060000.wav", "A"),
        ("june/north/20260601_060000.wav", "north"),
        ("S_1_20260601_060000.wav", "S_1"),
        ("SM4_260601_060000.wav", "SM4"),
        ("SM4_20260601_060000_001.wav", "SM4"),
        ("20260601_060000.wav", ""),
        ("a.wav", ""),
    ],
)
def test_the_site_is_the_folder_or_what_the_name_has_before_the_date(name: str, site: str) -> None:
    assert site_of(name) == site


@pytest.mark.parametrize("recording_id", ["_20240131_063000", "A_2024013_063000", "A_20240131_063000_2", "a"])
def test_an_id_that_does_not_match_the_pattern_is_named(recording_id: str) -> None:
    ids = ["A_20240131_063000", recording_id]
    with pytest.raises(UserError, match=f"HHMMSS: 1 recording id of a different form: {recording_id}$"):
        assign_groups(ids, params("SITE_YYYYMMDD_HHMMSS"), table(recording_id=[]))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            "site",
            "recordings.csv: no site for 2 training recordings: r2, r3; split.group site needs one for each",
        ),
        (
            "sites",
            "'sites' is not a column of recordings.csv; the nearest are site; its columns are site, fold",
        ),
        ("recording_id", "'recording_id' is not a column of recordings.csv; its columns are site, fold"),
        ("fold", "column fold must have the folds of split.folds, 0, 1, 2, 3; found 0, 1, 2"),
    ],
)
def test_a_group_that_cannot_be_found_is_refused(group: str, message: str) -> None:
    metadata = table(recording_id=["r0", "r1", "r2"], site=["A", "B", ""], fold=["0", "1", "2"])
    if group == "fold":
        metadata = pd.concat([metadata, table(recording_id=["r3"], site=["A"], fold=["0"])])
    rows = pd.DataFrame(
        [(f"r{i}", "a", "tp") for i in range(4)], columns=["recording_id", "species_id", "label_type"]
    )
    with pytest.raises(UserError) as error:
        assign_folds(rows, params(group), metadata=metadata)
    assert message in str(error.value)


def test_sites_that_differ_only_in_case_are_refused() -> None:
    ids = ["Ridge_1", "ridge_2", "creek_3"]
    with pytest.raises(
        UserError, match=r"SITE_\*: names that differ only in case, blanks or Unicode form: 'Ridge', 'ridge'$"
    ):
        assign_groups(ids, params("SITE_*"), table(recording_id=[]))
    with pytest.raises(UserError, match=r"split.group site: names that differ only in case, .*: 'R', 'r'$"):
        assign_groups(ids, params("site"), table(recording_id=ids, site=["R", "r", "c"]))


@pytest.mark.parametrize(
    "names",
    [("Par\u00e1", "Para\u0301"), ("north ridge", "north  ridge"), ("north ridge", "north\u00a0ridge")],
)
def test_sites_that_look_the_same_are_refused_with_what_differs(names: tuple[str, str]) -> None:
    ids = ["r1", "r2", "r3"]
    with pytest.raises(UserError, match="differ only in case, blanks or Unicode form") as error:
        assign_groups(ids, params("site"), table(recording_id=ids, site=[*names, "c"]))
    assert all(ascii(name) in str(error.value) for name in names)


def test_fewer_groups_than_folds_are_refused_with_the_folds_that_fit(clips: pd.DataFrame) -> None:
    ids = sorted(clips["recording_id"].unique())
    metadata = table(recording_id=ids, site=["abc"[k % 3] for k in range(len(ids))])
    with pytest.raises(UserError, match=r"found 3; split\.folds=\[0, 1, 2\] has as many folds"):
        assign_folds(clips, params("site"), {}, metadata)


def test_without_a_table_a_column_is_refused_with_what_is_missing(clips: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"no recordings.csv with that column; write one .*SITE$"):
        assign_folds(clips, params("site"))
    with pytest.raises(UserError, match=r"needs a recordings.csv in data.root with the column fold"):
        assign_folds(clips, params("fold"))


@pytest.mark.parametrize("group", ["", " ", "SITE_SITE", "SITE*", "SITE*_HHMMSS", "*SITE_YYYYMMDD"])
def test_a_group_that_says_nothing_is_refused(group: str) -> None:
    with pytest.raises(ValueError, match="group"):
        params(group)


def test_own_folds_are_taken_as_they_are(clips: pd.DataFrame, metadata: pd.DataFrame) -> None:
    own = metadata.assign(fold=[str(i % 3) for i in range(len(metadata))])
    folds = assign_folds(clips, params("fold", 3), metadata=own.sample(frac=1, random_state=2))
    assert list(folds) == ["recording_id", "fold"]
    assert folds["fold"].tolist() == [i % 3 for i in range(len(own))]


def test_own_folds_without_a_tp_recording_in_each_are_refused(
    clips: pd.DataFrame, metadata: pd.DataFrame
) -> None:
    own = metadata.assign(fold=np.where(metadata["site"].str.startswith("F"), "1", "0"))
    with pytest.raises(UserError, match="no TP recording in fold 1: nothing to validate on there"):
        assign_folds(clips, params("fold", 2), metadata=own)


def test_own_folds_that_part_copies_are_a_leak(clips: pd.DataFrame, metadata: pd.DataFrame) -> None:
    own = metadata.assign(fold=[str(i % 3) for i in range(len(metadata))])
    first, second = own["recording_id"].iloc[:2]
    folds = assign_folds(clips, params("fold", 3), dict.fromkeys([first, second], "same"), own)
    with pytest.raises(
        UserError, match=rf"leak: groups in several folds: {first} in \[0, 1\], such as {first} and"
    ):
        audit_folds(folds, clips)


def test_fewer_groups_than_folds_and_rare_species_are_refused_by_name(clips: pd.DataFrame) -> None:
    split = params("SITE_YYYYMMDD_HHMMSS", SITES + 1)
    with pytest.raises(
        UserError, match=f"at least 13 groups by split.group SITE_.* with TP rows, found {SITES}"
    ):
        assign_folds(clips, split)
    rare = pd.DataFrame(
        [("S00_20240000_120000", "9", "tp"), ("S01_20240000_120000", "9", "tp")], columns=clips.columns
    )
    strict = params("SITE_YYYYMMDD_HHMMSS", 3, rare_species="error")
    with pytest.raises(UserError, match=r"fewer groups by split.group SITE_.* than the 3 folds: 9 \(2\)"):
        assign_folds(pd.concat([clips, rare]), strict)


def test_groups_with_equal_content_are_joined_also_through_others() -> None:
    ids = ["a1", "a2", "b1", "b2", "c1", "d1"]
    groups = pd.Series([name[0] for name in ids], index=pd.Index(ids, name="recording_id"))
    digests = {"a2": "x", "b1": "x", "b2": "y", "c1": "y", "d1": "z"}
    assert join_copies(groups, digests).to_dict() == dict.fromkeys(ids[:5], "a") | {"d1": "d"}
    assert join_copies(groups, {}).equals(groups)


def test_copies_of_recordings_are_a_group_of_the_table(tmp_path: Path, clips: pd.DataFrame) -> None:
    first, second = "S00_20240000_120000", "S05_20240003_120000"
    folds = assign_folds(clips, params("recording"), dict.fromkeys([first, second], "same"))
    write_folds(folds, tmp_path / "folds.csv")
    read = read_folds(tmp_path / "folds.csv")
    pd.testing.assert_frame_equal(read, folds)
    group = read.set_index("recording_id")["group"]
    assert group[second] == first
    assert group.nunique() == len(group) - 1


def test_a_group_in_two_folds_is_a_leak_with_names(clips: pd.DataFrame) -> None:
    folds = assign_folds(clips, params("SITE_YYYYMMDD_HHMMSS"))
    last = folds.index[folds["group"] == "S11"][-1]
    folds.loc[last, "fold"] = (folds.loc[last, "fold"] + 1) % 4
    with pytest.raises(
        UserError, match=r"leak: groups in several folds: S11 in \[\d, \d\], such as S11_20240000"
    ):
        audit_folds(folds, clips)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recording,site\nr1,A\n", r"missing column\(s\) recording_id"),
        ("recording_id,site\nr1,A\nr1,A\n", "row 3: recording r1 is repeated"),
        ("recording_id,site\nr1,A \n", "row 2: site 'A ' has leading or trailing blanks"),
        ("recording_id,site\n,A\n", "row 2: recording_id is empty"),
        ("recording_id,site\nr1\n", "row 2: 1 cells, but the header has 2"),
    ],
)
def test_a_bad_table_of_recordings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recordings.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_metadata(tmp_path / "recordings.csv")


def test_a_folds_table_with_a_recording_without_group_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("recording_id,fold,group\nr1,0,A\nr2,1,\n")
    with pytest.raises(UserError, match="row 3: recording r2 has no group"):
        read_folds(tmp_path / "folds.csv")
