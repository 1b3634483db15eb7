from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.data.annotations import (
    ANNOTATION_COLUMNS,
    read_annotations,
    read_species,
    read_table,
    write_species,
)

HEADER = ",".join(ANNOTATION_COLUMNS)
GOOD = "055088446,3,1,1.5,500.0,3.25,4000.0"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_table_comes_back_as_text_ids_and_float_boxes(tmp_path: Path) -> None:
    path = write(tmp_path / "train_tp.csv", GOOD, "838227e71,03,4,0,0,60,48000")
    table = read_annotations(path, "tp", ["3", "03"])
    assert list(table.columns) == [*ANNOTATION_COLUMNS, "label_type"]
    assert table["recording_id"].tolist() == ["055088446", "838227e71"]
    assert table["species_id"].tolist() == ["3", "03"]
    assert table["songtype_id"].tolist() == ["1", "4"]
    assert table.iloc[0][["t_min", "f_min", "t_max", "f_max"]].tolist() == [1.5, 500.0, 3.25, 4000.0]
    assert table["label_type"].tolist() == ["tp", "tp"]
    assert [str(table[name].dtype) for name in ("t_min", "f_min", "t_max", "f_max")] == ["float64"] * 4


@pytest.mark.parametrize(
    "recording_id",
    ["055088446", "838227e71", "1e5", "0x1F", "NA", "null", "nan", "True", "1_000", "2020-01-01"],
)
def test_ids_that_look_like_something_else_stay_text(tmp_path: Path, recording_id: str) -> None:
    path = write(tmp_path / "train_tp.csv", GOOD.replace("055088446", recording_id))
    assert read_annotations(path, "tp")["recording_id"].tolist() == [recording_id]


def test_column_order_further_columns_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "train_fp.csv"
    names = ["note", *reversed(ANNOTATION_COLUMNS)]
    path.write_text(
        "\ufeff" + ",".join(names) + "\n" + ",".join(["", *reversed(GOOD.split(","))]) + "\n", "utf-8"
    )
    table = read_annotations(path, "fp")
    assert list(table.columns) == [*ANNOTATION_COLUMNS, "label_type"]
    assert table.iloc[0].tolist() == ["055088446", "3", "1", 1.5, 500.0, 3.25, 4000.0, "fp"]


def test_rows_are_counted_as_lines_of_the_file(tmp_path: Path) -> None:
    bad = "a,3,1,3.9,500.0,3.2,4000.0"
    path = write(tmp_path / "train_tp.csv", GOOD, "", bad)
    with pytest.raises(UserError, match=r"^train_tp\.csv row 4: t_max 3\.2 <= t_min 3\.9$"):
        read_annotations(path, "tp")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,3,1,1.5,500,1.5,4000", "row 2: t_max 1.5 <= t_min 1.5"),
        ("a,3,1,-0.5,500,1.5,4000", "row 2: t_min -0.5 is negative"),
        ("a,3,1,0.5,-1,1.5,4000", "row 2: f_min -1.0 is negative"),
        ("a,3,1,0.5,4000,1.5,500", "row 2: f_max 500.0 <= f_min 4000.0"),
        ("a,3,1,0.5,500,soon,4000", "row 2: t_max 'soon' is not a finite number"),
        ("a,3,1,nan,500,1.5,4000", "row 2: t_min 'nan' is not a finite number"),
        ("a,3,1,0.5,500,inf,4000", "row 2: t_max 'inf' is not a finite number"),
        ("a,3,1,0.5,500,1_5,4000", "row 2: t_max '1_5' is not a finite number"),
        ("a,3,1,0.5,500,,4000", "row 2: t_max is empty"),
        (",3,1,0.5,500,1.5,4000", "row 2: recording_id is empty"),
        ("a, ,1,0.5,500,1.5,4000", "row 2: species_id is empty"),
        ("a,3 ,1,0.5,500,1.5,4000", "row 2: species_id '3 ' has leading or trailing blanks"),
        ("a,9,1,0.5,500,1.5,4000", "row 2: unknown species '9'; known species: 3, 5"),
        ("a,3,1,0.5,500,1.5", "row 2: 6 cells, but the header has 7"),
        ("a,3,1,0.5,500,1.5,4000,9", "row 2: 8 cells, but the header has 7"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_its_values(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / "train_tp.csv", row)
    with pytest.raises(UserError) as refusal:
        read_annotations(path, "tp", ["3", "5"])
    assert str(refusal.value) == f"train_tp.csv {message}"


def test_every_bad_row_is_named_up_to_ten(tmp_path: Path) -> None:
    path = write(tmp_path / "train_tp.csv", *(f"a{i},3,1,2,500,1,4000" for i in range(13)))
    with pytest.raises(UserError) as refusal:
        read_annotations(path, "tp")
    lines = str(refusal.value).splitlines()
    assert lines[0].startswith("train_tp.csv row 2:")
    assert lines[9].startswith("train_tp.csv row 11:")
    assert lines[10] == "… and 3 more"


def test_many_species_are_counted_not_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "train_tp.csv", GOOD)
    with pytest.raises(UserError, match="known species: 50 ids, s0 … s49"):
        read_annotations(path, "tp", [f"s{i}" for i in range(50)])


def test_line_numbers_stay_with_their_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "train_tp.csv", GOOD, "", "a,3,1,3.9,500.0,4.2,4000.0")
    assert read_annotations(path, "tp").index.tolist() == [2, 4]


def test_a_row_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train_tp.csv", GOOD, "b,3,1,1,2,3,4", GOOD)
    with pytest.raises(UserError, match=r"train_tp\.csv row 4: repeats row 2"):
        read_annotations(path, "tp")


def test_missing_columns_are_named_beside_those_found(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train_tp.csv", header="recording_id,species_id,songtype_id,t_min,f_min,end,f_max"
    )
    with pytest.raises(UserError, match=r"missing column\(s\) t_max; found recording_id, .*, end, f_max"):
        read_annotations(path, "tp")


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train_tp.csv", header=f"{HEADER},t_min")
    with pytest.raises(UserError, match=r"column\(s\) t_min given twice"):
        read_annotations(path, "tp")


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "train_tp.csv"
    path.write_text("")
    with pytest.raises(UserError, match="found none"):
        read_annotations(path, "tp")


def test_a_tp_table_must_have_rows_and_an_fp_table_need_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train_tp\.csv: no rows"):
        read_annotations(write(tmp_path / "train_tp.csv"), "tp")
    empty = read_annotations(write(tmp_path / "train_fp.csv"), "fp")
    assert len(empty) == 0
    assert list(empty.columns) == [*ANNOTATION_COLUMNS, "label_type"]


def test_a_table_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        read_annotations(tmp_path / "train_tp.csv", "tp")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_annotations(tmp_path, "tp")
    (tmp_path / "train_tp.csv").write_bytes(b"\xff\xfe\x00r")
    with pytest.raises(UserError, match="not UTF-8"):
        read_annotations(tmp_path / "train_tp.csv", "tp")


def test_species_keep_their_order_and_their_spelling(tmp_path: Path) -> None:
    write_species(["10", "007", "2e1", "NA"], tmp_path / "species.csv")
    assert read_species(tmp_path / "species.csv") == ["10", "007", "2e1", "NA"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], "no species"), (["a", "b", "a"], "row 4: repeats row 2"), (['""'], "is empty")],
)
def test_a_species_list_that_makes_no_sense_is_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_species(write(tmp_path / "species.csv", *lines, header="species_id"))


def test_a_table_may_have_another_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "selections.txt"
    path.write_text("Selection\tBegin Time (s)\n1\t0,5\n")
    table = read_table(path, ["Begin Time (s)"], delimiter="\t")
    assert table.to_dict() == {"Begin Time (s)": {2: "0,5"}}
