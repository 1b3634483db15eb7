from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.clips import (
    DTYPES,
    build_clips,
    drop_recordings,
    frame_span,
    mel_span,
    read_clips,
    write_clips,
)

CENTRES = np.array([100.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
BOX = {"songtype_id": "1", "f_min": 500.0, "f_max": 4000.0}


def annotations(*rows: tuple[str, str, str, float, float]) -> pd.DataFrame:
    names = ["recording_id", "label_type", "species_id", "t_min", "t_max"]
    return pd.DataFrame([dict(zip(names, row, strict=True)) | BOX for row in rows])


def three() -> pd.DataFrame:
    return annotations(
        ("007", "tp", "3", 1.0, 2.0), ("1e5", "fp", "03", 0.0, 0.01), ("007", "fp", "5", 9.99, 10.0)
    )


@pytest.mark.parametrize(
    ("t_min", "t_max", "span"),
    [
        (0.0, 1.0, (0, 10)),
        (0.05, 0.95, (0, 10)),
        (0.1, 0.2, (1, 2)),
        (0.11, 0.12, (1, 2)),
        (0.19, 0.21, (1, 3)),
        (9.95, 10.0, (99, 100)),
        (10.0, 10.0, (99, 100)),
        (8.0, 12.0, (80, 100)),
    ],
)
def test_a_span_holds_every_frame_it_touches(t_min: float, t_max: float, span: tuple[int, int]) -> None:
    assert frame_span(t_min, t_max, 10.0, 100) == span


def test_a_time_on_a_frame_boundary_stays_there() -> None:
    for frame in range(1, 3000):
        assert frame_span(frame * 0.016, (frame + 5) * 0.016, 62.5, 3751) == (frame, frame + 5)


def test_every_span_is_inside_the_recording_and_not_empty() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        t_min, length = rng.uniform(0, 60), rng.exponential(0.1)
        start, stop = frame_span(t_min, t_min + length, 62.5, 3751)
        assert 0 <= start < stop <= 3751
        assert start <= t_min * 62.5 < stop or stop == 3751


@pytest.mark.parametrize(
    ("f_min", "f_max", "span"),
    [
        (400.0, 2500.0, (1, 4)),
        (500.0, 2000.0, (1, 4)),
        (500.1, 1999.9, (2, 3)),
        (0.0, 20000.0, (0, 6)),
        (2100.0, 2200.0, (3, 4)),  # between two centres: the nearer one
        (3500.0, 3600.0, (4, 5)),
        (0.0, 50.0, (0, 1)),
        (9000.0, 9500.0, (5, 6)),
    ],
)
def test_a_box_holds_the_mel_rows_whose_centre_it_holds_and_at_least_one(
    f_min: float, f_max: float, span: tuple[int, int]
) -> None:
    assert mel_span(f_min, f_max, CENTRES) == span


def test_every_annotation_of_a_usable_recording_becomes_a_clip() -> None:
    clips = build_clips(three(), {"007": 101, "1e5": 51}, 10.0, CENTRES)
    assert list(clips.columns) == list(DTYPES)
    assert clips["clip_id"].tolist() == [0, 1, 2]
    assert clips["recording_id"].tolist() == ["007", "1e5", "007"]
    assert clips["species_id"].tolist() == ["3", "03", "5"]
    assert clips[["start_frame", "stop_frame"]].to_numpy().tolist() == [[10, 20], [0, 1], [99, 100]]
    assert clips[["low_mel", "high_mel"]].to_numpy().tolist() == [[1, 5]] * 3


def test_annotations_of_other_recordings_are_left_out() -> None:
    clips = build_clips(three(), {"007": 101}, 10.0, CENTRES)
    assert clips["clip_id"].tolist() == [0, 1]
    assert clips["species_id"].tolist() == ["3", "5"]


def test_an_annotation_beyond_the_end_is_cut_to_its_recording() -> None:
    clips = build_clips(three(), {"007": 99, "1e5": 51}, 10.0, CENTRES)
    assert clips[["start_frame", "stop_frame"]].to_numpy().tolist()[-1] == [98, 99]


def test_an_annotation_may_end_with_its_recording() -> None:
    n_samples, hop_length = 10_000, 100  # 10 s at 1 kHz, 101 centred frames
    clips = build_clips(three(), {"007": n_samples // hop_length + 1}, 10.0, CENTRES)
    assert clips["stop_frame"].max() == 100


def test_without_a_confirmed_annotation_there_is_nothing_to_learn() -> None:
    with pytest.raises(UserError, match=r"no confirmed \(tp\) annotation"):
        build_clips(three(), {"1e5": 51}, 10.0, CENTRES)


def test_dropping_recordings_numbers_the_rest_anew() -> None:
    clips = build_clips(three(), {"007": 101, "1e5": 51}, 10.0, CENTRES)
    kept = drop_recordings(clips, {"1e5"})
    assert kept["clip_id"].tolist() == [0, 1]
    assert kept["recording_id"].tolist() == ["007", "007"]
    with pytest.raises(UserError, match=r"no confirmed \(tp\) annotation"):
        drop_recordings(clips, {"007"})


def test_clips_come_back_as_written(tmp_path: Path) -> None:
    clips = build_clips(three(), {"007": 101, "1e5": 51}, 10.0, CENTRES)
    write_clips(clips, tmp_path / "data" / "clips.csv")
    pd.testing.assert_frame_equal(read_clips(tmp_path / "data" / "clips.csv"), clips)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["clips.csv"]


def test_a_table_that_is_no_table_of_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; run crop first"):
        read_clips(tmp_path / "clips.csv")
    three().to_csv(tmp_path / "clips.csv", index=False)
    with pytest.raises(
        UserError, match=r"missing column\(s\) clip_id, start_frame, stop_frame, low_mel, high_mel; found"
    ):
        read_clips(tmp_path / "clips.csv")


def test_a_table_of_clips_cut_short_or_without_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    write_clips(build_clips(three(), {"007": 101, "1e5": 51}, 10.0, CENTRES), path)
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(UserError, match=r"^clips\.csv row 4: \d+ cells, but the header has 13$"):
        read_clips(path)
    path.write_text(whole.replace(",10,20,", ",x,20,"))
    with pytest.raises(
        UserError, match=r"clips\.csv: not what its stage writes: .*'x'.*; run its stage again"
    ):
        read_clips(path)
