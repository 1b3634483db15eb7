"""corrections.csv by hand: what each verdict makes of an annotation, and every way in which it is refused."""

from pathlib import Path

import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS
from callboard.data.clips import read_clips
from callboard.data.corrections import (
    CORRECTION_COLUMNS,
    corrected,
    read_corrections,
    read_labels,
    write_corrections,
)
from tests.stages.test_crop import Source, source  # noqa: F401

LENGTHS_S = {"055088446": 10.0, "1e5": 10.0, "NA": 4.0}
SPECIES = ["3", "03"]
HEADER = ",".join(CORRECTION_COLUMNS)
CONFIRMED = "055088446,3,1,0.5,500.0,1.0,2000.0"
REJECTED = "1e5,03,4,2.1234,500.0,3.0,2000.0"
ROOT = Path(__file__).parents[2]


def labels() -> pd.DataFrame:
    rows = [[*row.split(","), kind] for row, kind in ((CONFIRMED, "tp"), (REJECTED, "fp"))]
    table = pd.DataFrame(rows, columns=[*ANNOTATION_COLUMNS, "label_type"], dtype=str)
    return table.astype(dict.fromkeys(["t_min", "f_min", "t_max", "f_max"], "float64"))


def correct(tmp_path: Path, *rows: str) -> pd.DataFrame:
    path = tmp_path / "corrections.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return corrected(labels(), read_corrections(path), SPECIES, LENGTHS_S)


def test_a_column_that_the_next_review_would_drop_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text(f"{HEADER},who\ntp,{CONFIRMED},present,,,me\n")
    with pytest.raises(UserError, match=r"^corrections\.csv: unknown column\(s\) who; must be kind, "):
        read_corrections(path)


def test_a_quote_that_is_not_closed_does_not_swallow_the_rows_below(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^corrections\.csv row 2: a quote .* is not closed"):
        correct(tmp_path, f'tp,{CONFIRMED},absent,,"note', f'fp,{REJECTED},present,,"')


def test_what_is_written_is_read_again_and_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    rows = [["tp", "=x()", "3", "1", "0.5", "500.0", "1.0", "2000.0", "absent", "@m", '"a, b"\nc']]
    write_corrections(pd.DataFrame(rows, columns=CORRECTION_COLUMNS), path)
    assert "\ntp,'=x(),3" in path.read_text()
    assert read_corrections(path).to_numpy().tolist() == rows


def test_what_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text("before")
    row = dict.fromkeys(CORRECTION_COLUMNS, "x") | {"note": "a\r\nb"}
    with pytest.raises(UserError, match=r"corrections\.csv: would not be read again as written; nothing was"):
        write_corrections(pd.DataFrame([row]), path)
    assert path.read_text() == "before"


def test_without_rows_nothing_changes(tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(correct(tmp_path), labels())


@pytest.mark.parametrize(
    ("kind", "box", "verdict", "expected"),
    [
        ("tp", CONFIRMED, "present", ["tp", "fp"]),
        ("tp", CONFIRMED, "absent", ["fp", "fp"]),
        ("tp", CONFIRMED, "unsure", ["fp"]),
        ("fp", REJECTED, "present", ["tp", "tp"]),
        ("fp", REJECTED, "absent", ["tp", "fp"]),
        ("fp", REJECTED, "unsure", ["tp"]),
        ("missing", "NA,3,1,1,500,2,2000", "present", ["tp", "tp", "fp"]),
        ("missing", "NA,3,1,1,500,2,2000", "absent", ["tp", "fp", "fp"]),
        ("missing", "NA,3,1,1,500,2,2000", "unsure", ["tp", "fp"]),
    ],
)
def test_a_verdict_gives_the_box_its_label(
    tmp_path: Path, kind: str, box: str, verdict: str, expected: list[str]
) -> None:
    result = correct(tmp_path, f"{kind},{box},{verdict},,")
    assert result["label_type"].tolist() == expected
    assert result.dtypes.to_dict() == labels().dtypes.to_dict()


def test_a_missing_label_gets_the_reviewed_span_up_to_the_end_of_the_recording(tmp_path: Path) -> None:
    result = correct(tmp_path, "missing,NA,03,4,3.25,500,4.75,2000,present,exp@0 r0/fold1,faint")
    (added,) = result[result["recording_id"] == "NA"].to_dict("records")
    assert added == {
        "recording_id": "NA", "species_id": "03", "songtype_id": "4", "label_type": "tp",
        "t_min": 3.25, "f_min": 500.0, "t_max": 4.0, "f_max": 2000.0,
    }  # fmt: skip


def test_times_that_a_spreadsheet_rounded_are_still_those_of_the_annotation(tmp_path: Path) -> None:
    result = correct(tmp_path, "fp,1e5,03,4,2.123,500,3,2000,present,,")
    assert result["t_min"].tolist() == [0.5, 2.1234]
    assert result["label_type"].tolist() == ["tp", "tp"]


def test_a_box_of_another_song_type_is_another_annotation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 2: species 03 in 1e5 at .* has no fp annotation"):
        correct(tmp_path, "fp,1e5,03,1,2.1234,500,3,2000,present,,")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"TP,{CONFIRMED},absent,,", "row 2: kind must be one of tp, fp, missing, found 'TP'"),
        (f"tp,{CONFIRMED},yes,,", "row 2: verdict must be one of present, absent, unsure, found 'yes'"),
        (f"tp,{CONFIRMED},,,", "verdict must be one of present, absent, unsure, found ''"),
        ("missing,x,3,1,1,500,2,2000,present,,", "row 2: 'x' is not a training recording"),
        ("missing,NA,17,1,1,500,2,2000,present,,", "row 2: unknown species '17'"),
        ("missing,NA,3,,1,500,2,2000,present,,", "row 2: songtype_id is empty"),
        ("missing,NA,3,1,a,500,2,2000,present,,", "row 2: t_min 'a' must be a number >= 0"),
        ("missing,NA,3,1,-1,500,2,2000,present,,", "row 2: t_min '-1' must be a number >= 0"),
        ("missing,NA,3,1,1,inf,2,2000,present,,", "row 2: f_min 'inf' must be a number"),
        ("missing,NA,3,1,2,500,2,2000,present,,", "row 2: t_max 2 <= t_min 2"),
        ("missing,NA,3,1,4,500,5,2000,present,,", "row 2: t_min 4 is beyond the recording's end at 4 s"),
        (
            "tp,055088446,3,1,0.6,500,1.0,2000,absent,,",
            "row 2: species 3 in 055088446 at 0.6–1 s has no tp annotation",
        ),
        (f"fp,{CONFIRMED},present,,", "row 2: species 3 in 055088446 at 0.5–1 s has no fp annotation"),
        (
            "missing,055088446,3,1,0.9,500,2,2000,present,,",
            "row 2: kind is 'missing', but species 3 in 055088446 at 0.9–2 s has a tp annotation",
        ),
    ],
)
def test_a_row_that_says_nothing_sound_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        correct(tmp_path, row)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (f"tp,{CONFIRMED},absent,,", f"tp,{CONFIRMED},absent,,", "row 3: repeats corrections.csv row 2"),
        (
            f"tp,{CONFIRMED},absent,,",
            f"tp,{CONFIRMED},unsure,,",
            "row 3: contradicts 'absent' in corrections.csv row 2",
        ),
        (
            "missing,NA,3,1,1,500,2,2000,present,,",
            "missing,NA,3,1,1.5,500,3,2000,absent,,",
            "row 3: contradicts 'present' in corrections.csv row 2",
        ),
    ],
)
def test_two_verdicts_on_one_thing_are_refused(tmp_path: Path, first: str, second: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        correct(tmp_path, first, second)
    assert message in str(refusal.value)


def test_two_song_types_in_one_box_have_a_verdict_each(tmp_path: Path) -> None:
    second = CONFIRMED.replace("055088446,3,1,", "055088446,3,4,")
    rows = [[*row.split(","), "tp"] for row in (CONFIRMED, second)]
    table = pd.DataFrame(rows, columns=[*ANNOTATION_COLUMNS, "label_type"], dtype=str).astype(
        labels().dtypes.to_dict()
    )
    path = tmp_path / "corrections.csv"
    path.write_text(f"{HEADER}\ntp,{CONFIRMED},absent,,\ntp,{second},present,,\n")
    result = corrected(table, read_corrections(path), SPECIES, LENGTHS_S)
    assert result[["songtype_id", "label_type"]].to_numpy().tolist() == [["4", "tp"], ["1", "fp"]]


def test_two_missing_calls_of_a_recording_are_two(tmp_path: Path) -> None:
    result = correct(
        tmp_path, "missing,NA,3,1,1,500,2,2000,present,,", "missing,NA,3,1,2,500,3,2000,present,,"
    )
    assert (result["recording_id"] == "NA").sum() == 2


def test_a_rejected_copy_of_a_box_that_was_confirmed_too_stays_one_row(tmp_path: Path) -> None:
    both = pd.concat([labels(), labels().head(1).assign(label_type="fp")], ignore_index=True)
    (tmp_path / "corrections.csv").write_text(f"{HEADER}\ntp,{CONFIRMED},absent,,\n")
    result = corrected(both, read_corrections(tmp_path / "corrections.csv"), SPECIES, LENGTHS_S)
    assert result["label_type"].tolist() == ["fp", "fp"]


def test_without_a_path_the_labels_are_as_delivered(tmp_path: Path) -> None:
    (tmp_path / "species.csv").write_text("species_id\n3\n03\n")
    for kind, row in (("tp", CONFIRMED), ("fp", REJECTED)):
        (tmp_path / f"train_{kind}.csv").write_text(f"{','.join(ANNOTATION_COLUMNS)}\n{row}\n")
    pd.testing.assert_frame_equal(read_labels(tmp_path), labels())


def test_the_file_of_this_repository_has_the_columns() -> None:
    assert read_corrections(ROOT / "corrections.csv").columns.tolist() == CORRECTION_COLUMNS


def crop(source: Source, *corrections: str, use: bool) -> bytes:  # noqa: F811
    (source.root / "corrections.csv").write_text("\n".join(corrections) + "\n")
    source.params["data"]["corrections"] = use
    source.crop()
    return (source.root / "data/clips.csv").read_bytes()


def test_crop_without_corrections_does_not_even_read_them(source: Source) -> None:  # noqa: F811
    assert crop(source, "no table", use=False) == crop(source, HEADER, use=True)


def test_crop_with_corrections_writes_the_reviewed_labels(source: Source) -> None:  # noqa: F811
    crop(
        source,
        HEADER,
        "tp,NA,03,1,0,500,2,2000,absent,,",
        "missing,838227e71,03,1,1.5,500,2.5,2000,present,,",
        use=True,
    )
    clips = read_clips(Path("data/clips.csv"))
    assert clips[["recording_id", "label_type", "species_id"]].to_numpy().tolist() == [
        ["055088446", "tp", "3"],
        ["838227e71", "tp", "03"],
        ["NA", "fp", "03"],
        ["838227e71", "fp", "3"],
        ["055088446", "fp", "03"],
    ]
    added = clips.loc[1]
    assert (added["start_frame"], added["stop_frame"], added["t_max"]) == (150, 200, 2.0)


def test_crop_refuses_corrections_of_other_data(source: Source) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"corrections\.csv row 2: 'other' is not a training recording"):
        crop(source, HEADER, "missing,other,3,1,0,500,2,2000,present,,", use=True)
    assert source.written() == []
