import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.commands.detections import FORMATS
from callboard.core.errors import UserError
from callboard.data.archive import ArchiveFile
from callboard.data.label_formats.audacity import read_audacity
from callboard.data.label_formats.form import ReadOptions
from callboard.data.label_formats.raven import read_raven
from callboard.scoring.detections import (
    DETECTION_COLUMNS,
    DETECTION_FORMATS,
    StoredPredictions,
    detections,
    merge_windows,
    presence,
    read_thresholds,
    write_detections,
)
from callboard.scoring.predictions import MANIFEST, ShardTotals, _write_table

WINDOWS = [
    ("a.wav", 0.0, 2.0, "x1", 0.4),
    ("a.wav", 1.5, 3.5, "x1", 0.9),
    ("a.wav", 3.5, 5.5, "x1", 0.5),  # touches
    ("a.wav", 6.0, 8.0, "x1", 0.7),
    ("a.wav", 1.5, 3.5, "07", 0.6),
    ("site/b.wav", 0.0, 1.2, "x1", 0.3),
]
SCORES = {"a.wav": {"3": 0.01, "07": 0.5, "x1": 0.8}, "site/b.wav": {"3": 0.0, "07": 0.1, "x1": 0.2}}


def rows(*cells: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=DETECTION_COLUMNS)


def write_predictions(
    folder: Path, windows: pd.DataFrame, floor: float = 0.1, length_s: float = 8.0
) -> StoredPredictions:
    return write_shards(folder, SCORES, windows, floor, length_s)


def write_shards(
    folder: Path,
    scores: dict[str, dict[str, float]],
    windows: pd.DataFrame | None = None,
    floor: float = 0.1,
    length_s: float = 8.0,
) -> StoredPredictions:
    """A shard for each recording, as `callboard predict` could have made."""
    windows = rows(*WINDOWS)[:0] if windows is None else windows
    species = list(next(iter(scores.values())))
    about = {
        "detector": "exp1@0123456789abcdef",
        "key": "0123",
        "species": species,
        "floor": floor,
        "band_hz": [50.0, 4000.0],
    }
    for number, (name, of_species) in enumerate(scores.items()):
        table = pd.DataFrame(
            {"recording": name, "length_s": length_s, "species": species, "score": list(of_species.values())}
        )
        file = ArchiveFile(name, f"/sound/{name}", 8, 0)
        manifest = {MANIFEST: json.dumps(ShardTotals([file], length_s, 0, 1))}
        of_recording = windows[windows["recording"] == name]
        for kind, content in (("recordings", table), ("windows", of_recording)):
            _write_table(content, folder / kind / f"{number}.parquet", manifest)
    (folder / "about.json").write_text(json.dumps(about))
    return StoredPredictions.open(folder)


@pytest.fixture
def predictions(tmp_path: Path) -> StoredPredictions:
    return write_predictions(tmp_path / "june", rows(*WINDOWS))


def test_windows_that_overlap_or_touch_are_one_detection() -> None:
    expected = rows(
        ("a.wav", 0.0, 5.5, "x1", 0.9),
        ("a.wav", 1.5, 3.5, "07", 0.6),
        ("a.wav", 6.0, 8.0, "x1", 0.7),
        ("site/b.wav", 0.0, 1.2, "x1", 0.3),
    )
    shuffled = rows(*WINDOWS).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(merge_windows(shuffled), expected)
    assert merge_windows(rows().astype({"start_s": float, "end_s": float, "score": float})).empty


def test_windows_touch_although_their_times_were_rounded_differently() -> None:
    assert 0.1 + 0.2 > 0.3
    touching = rows(("a.wav", 0.0, 0.3, "x1", 0.9), ("a.wav", 0.1 + 0.2, 0.6, "x1", 0.5))
    pd.testing.assert_frame_equal(merge_windows(touching), rows(("a.wav", 0.0, 0.6, "x1", 0.9)))
    apart = rows(("a.wav", 0.0, 0.3, "x1", 0.9), ("a.wav", 0.301, 0.6, "x1", 0.5))
    assert len(merge_windows(apart)) == 2


def test_detections_cover_the_time_of_their_windows_and_no_other() -> None:
    draw = np.random.default_rng(0)
    start = draw.integers(0, 60, 200) / 2
    table = pd.DataFrame(
        {
            "recording": draw.choice(["r0", "r1"], 200),
            "start_s": start,
            "end_s": start + draw.integers(1, 5, 200) / 4,
            "species": draw.choice(["a", "b", "c"], 200),
            "score": draw.random(200),
        }
    )
    joined = merge_windows(table)

    def covered(content: pd.DataFrame) -> set[tuple[str, str, int]]:
        return {
            (row.recording, row.species, tick)
            for row in content.itertuples()
            for tick in range(round(row.start_s * 4), round(row.end_s * 4))
        }

    assert covered(joined) == covered(table)
    assert 0 < len(joined) < len(table)
    assert sorted(joined.groupby(["recording", "species"])["score"].max()) == sorted(
        table.groupby(["recording", "species"])["score"].max()
    )
    for _, one in joined.groupby(["recording", "species"]):
        assert (one["start_s"].to_numpy()[1:] > one["end_s"].to_numpy()[:-1]).all()


def test_a_threshold_is_reached_by_a_score_that_equals_it(predictions: StoredPredictions) -> None:
    found = pd.concat(detections(predictions, {"x1": 0.7, "07": 0.61}), ignore_index=True)
    assert found.to_numpy().tolist() == [["a.wav", 1.5, 3.5, "x1", 0.9], ["a.wav", 6.0, 8.0, "x1", 0.7]]
    of_recordings = pd.concat(presence(predictions, {"x1": 0.8, "07": 0.6}), ignore_index=True)
    found = of_recordings.set_index(["recording", "species"])["is_present"]
    assert found.to_dict() == {
        ("a.wav", "x1"): 1,
        ("a.wav", "07"): 0,
        ("site/b.wav", "x1"): 0,
        ("site/b.wav", "07"): 0,
    }


def read(text: str, predictions: StoredPredictions) -> dict[str, float]:
    return read_thresholds(text, predictions.species, predictions.reference)


def test_a_table_of_thresholds_leaves_species_without_one_out(
    predictions: StoredPredictions, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("species,threshold,n\n07,0.5,9\n3,,2\n")
    assert read(str(tmp_path / "t.csv"), predictions) == {"07": 0.5}
    assert read("0.25", predictions) == {"3": 0.25, "07": 0.25, "x1": 0.25}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.5", r"threshold 1\.5 must be from 0 to 1"),
        ("nan", "must be from 0 to 1"),
        ("gone.csv", "gone"),
        ("species\n07\n", "missing column.*threshold"),
        ("species,threshold\n7,0.5\n", "row 2: species '7' is not one of the predictions: 3, 07, x1"),
        ("species,threshold\n07,high\n", "row 2: threshold must be a number from 0 to 1, found 'high'"),
        ("species,threshold\n07,0.5\n07,0.6\n", "row 3: species '07' is repeated"),
        ("species,threshold\n07,\n", "no species has a threshold"),
        (
            "species,threshold,scores_of\n07,0.5,\nx1,,exp1@76543210fedcba98\n",
            "row 3: thresholds for scores of exp1@7654.*, and these are of exp1@0123.*; `callboard",
        ),
    ],
)
def test_a_wrong_threshold_is_refused(
    predictions: StoredPredictions, tmp_path: Path, text: str, said: str
) -> None:
    if "\n" in text:
        (tmp_path / "t.csv").write_text(text)
        text = str(tmp_path / "t.csv")
    with pytest.raises(UserError, match=said):
        read(text, predictions)


def test_thresholds_of_the_same_result_are_taken_whatever_its_name(
    predictions: StoredPredictions, tmp_path: Path
) -> None:
    key = predictions.reference.partition("@")[2]
    (tmp_path / "t.csv").write_text(f"species,threshold,scores_of\n07,0.5,a-branch@{key}\n")
    assert read(str(tmp_path / "t.csv"), predictions) == {"07": 0.5}


def test_the_floor_limits_thresholds_of_windows_alone(predictions: StoredPredictions, tmp_path: Path) -> None:
    low = {"x1": 0.05, "07": 0.5}
    said = r"threshold 0\.05 of species x1 is below the floor of .*june, 0\.1, .* --floor 0\.05"
    with pytest.raises(UserError, match=said):
        write_detections(predictions, low, "csv", tmp_path / "list")
    assert not (tmp_path / "list").exists()
    write_detections(predictions, low, "presence", tmp_path / "list")
    assert set(pd.read_csv(tmp_path / "list/presence.csv", dtype=str)["species"]) == {"x1", "07"}


ALL = {"x1": 0.1, "07": 0.1}


def test_the_command_offers_every_format() -> None:
    assert [*DETECTION_FORMATS, "occupancy"] == list(FORMATS)


def test_every_format_holds_the_same_detections(predictions: StoredPredictions, tmp_path: Path) -> None:
    expected = pd.concat(detections(predictions, ALL), ignore_index=True)
    for name in DETECTION_FORMATS:
        n_files, n_rows = write_detections(predictions, ALL, name, tmp_path / name)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        assert (len(files), n_rows) == (n_files, len(expected))
    found = pd.read_csv(tmp_path / "csv/detections.csv", dtype={"species": str})
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "parquet/detections.parquet"), expected)

    times = expected[["start_s", "end_s", "species"]].to_numpy().tolist()
    for folder, suffix, read in (
        ("raven", ".callboard.selections.txt", read_raven),
        ("audacity", ".callboard.txt", read_audacity),
    ):
        tables = [read(tmp_path / folder / f"{name}{suffix}", ReadOptions()) for name in ("a", "site/b")]
        labels = pd.concat([table.labels for table in tables])
        assert labels[["t_min", "t_max", "species"]].to_numpy().tolist() == times
        assert set(labels["verdict"]) == {"open"}  # a score is no verdict
    sequence = read_raven(tmp_path / "raven-sequence/detections.selections.txt", ReadOptions()).labels
    assert sequence[["t_min", "t_max", "species"]].to_numpy().tolist() == times
    raven = pd.read_csv(tmp_path / "raven/site/b.callboard.selections.txt", sep="\t")
    columns = ["Begin File", "File Offset (s)", "Low Freq (Hz)", "High Freq (Hz)", "Score"]
    assert raven[columns].to_numpy().tolist() == [["b.wav", 0.0, 50.0, 4000.0, 0.3]]


def test_times_of_a_sequence_count_from_its_first_recording_for_more_than_a_day(tmp_path: Path) -> None:
    found = write_predictions(tmp_path / "june", rows(*WINDOWS), length_s=30 * 3600 + 0.123456789)
    write_detections(found, ALL, "raven-sequence", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/detections.selections.txt", sep="\t")
    assert table["Selection"].tolist() == [1, 2, 3, 4]
    last = table.iloc[-1]
    assert last[["Begin Path", "Begin File"]].tolist() == ["/sound/site/b.wav", "b.wav"]
    assert last["Begin Time (s)"] == 108000.123456789
    assert last["End Time (s)"] == pytest.approx(108000.123456789 + 1.2, abs=1e-9)
    assert last["File Offset (s)"] == 0.0
    nothing = write_predictions(tmp_path / "may", rows(*WINDOWS)[:0])
    write_detections(nothing, ALL, "raven-sequence", tmp_path / "none")
    header = (tmp_path / "none/detections.selections.txt").read_text().splitlines()
    assert [line.split("\t") for line in header] == [list(table.columns)]


def test_a_sequence_is_in_the_order_of_paths_and_not_of_shards(tmp_path: Path) -> None:
    found = write_shards(tmp_path / "june", dict(reversed(SCORES.items())), rows(*WINDOWS))
    write_detections(found, ALL, "raven-sequence", tmp_path / "out")
    begins = pd.read_csv(tmp_path / "out/detections.selections.txt", sep="\t").groupby("Begin File")
    assert begins["Begin Time (s)"].min().to_dict() == {"a.wav": 0.0, "b.wav": 8.0}


def test_tables_are_in_the_order_of_recordings_and_not_of_the_names_of_shards(tmp_path: Path) -> None:
    found = write_shards(tmp_path / "june", dict(reversed(SCORES.items())), rows(*WINDOWS))
    write_detections(found, ALL, "csv", tmp_path / "out")
    assert pd.read_csv(tmp_path / "out/detections.csv")["recording"].unique().tolist() == list(SCORES)


def test_recordings_that_would_shift_a_sequence_are_named(tmp_path: Path, capsys) -> None:
    found = write_predictions(tmp_path / "june", rows(*WINDOWS))
    files = [ArchiveFile(name, str(tmp_path / name), 8, 0) for name in ("a.wav", "damaged.wav")]
    manifest = {MANIFEST: json.dumps(ShardTotals(files, 8.0, 1, 1))}
    _write_table(found.table("recordings", "0.parquet"), found.folder / "recordings/0.parquet", manifest)
    write_detections(found, ALL, "raven-sequence", tmp_path / "none-left")
    said = capsys.readouterr().err
    assert "1 skipped recording not in the sequence: damaged.wav; leave them out in Raven too" in said
    assert "no longer there" not in said  # all were moved
    (tmp_path / "a.wav").touch()
    write_detections(found, ALL, "raven-sequence", tmp_path / "one-left")
    assert "1 recording of the sequence no longer there: site/b.wav" in capsys.readouterr().err


def test_an_output_with_files_is_left_alone(predictions: StoredPredictions, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("")
    with pytest.raises(UserError, match="is not an empty folder"):
        write_detections(predictions, ALL, "csv", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_recordings_that_differ_in_their_suffix_alone_would_share_a_table(tmp_path: Path) -> None:
    twin = [("a.flac", *cells[1:]) for cells in WINDOWS if cells[0] == "a.wav"]
    found = write_predictions(tmp_path / "june", rows(*WINDOWS))
    both = rows(*WINDOWS[:5], *twin)
    both.to_parquet(tmp_path / "june/windows/0.parquet", index=False)
    with pytest.raises(UserError, match=r"a\.wav: another recording differs only in its suffix; rename one"):
        write_detections(found, ALL, "raven", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_path_that_leaves_the_folder_is_not_written(tmp_path: Path) -> None:
    found = write_predictions(tmp_path / "june", rows(*WINDOWS))
    rows(("../../evil.wav", 0.0, 1.0, "x1", 0.9)).to_parquet(tmp_path / "june/windows/0.parquet", index=False)
    with pytest.raises(UserError, match="leaves its folder"):
        write_detections(found, ALL, "audacity", tmp_path / "out")


def test_a_name_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path) -> None:
    found = write_predictions(tmp_path / "june", rows(*WINDOWS))
    rows(("=1+1.wav", 0.0, 1.0, "x1", 0.9)).to_parquet(tmp_path / "june/windows/0.parquet", index=False)
    write_detections(found, ALL, "csv", tmp_path / "out")
    assert "\n'=1+1.wav,0.0,1.0,x1,0.9\n" in (tmp_path / "out/detections.csv").read_text()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`callboard predict` writes it"):
        StoredPredictions.open(tmp_path)
    write_predictions(tmp_path, rows(*WINDOWS))
    for path in (tmp_path / "recordings").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no shard is finished yet"):
        StoredPredictions.open(tmp_path)
