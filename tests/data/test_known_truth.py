"""test_labels.csv of one's own test recordings: what it says, what it refuses, and the LB that it gives."""

import json
from pathlib import Path

import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.known_truth import read_test_labels
from callboard.data.recording_listing import write_listing
from callboard.data.score_tables import read_score_table, write_score_table
from callboard.data.sources import prepare_source
from callboard.params.data import DataParams, DemoParams
from callboard.params.features import AudioParams
from stages import score
from tests.toy_folder import make_folder, write_noise

AUDIO = AudioParams(sample_rate=48000)
SPECIES, TEST_IDS = ["a", "b", "03"], ["t1", "t0", "t2"]


def table(folder: Path, rows: str, columns: str = "recording_id,species_id,usage") -> Path:
    path = folder / "test_labels.csv"
    path.write_text(f"{columns}\n{rows}", encoding="utf-8")
    return path


def test_rows_are_what_is_present_and_all_else_is_absent(tmp_path: Path) -> None:
    path = table(tmp_path, "t0,03,private\nt1,a,public\nt0,a,private\n")
    assert read_test_labels(path, SPECIES, TEST_IDS).to_csv(index=False).split() == [
        "recording_id,usage,sa,sb,s03",
        "t1,public,1.0,0.0,0.0",
        "t0,private,1.0,0.0,1.0",
        "t2,public,0.0,0.0,0.0",
    ]


def test_without_a_usage_all_are_public(tmp_path: Path) -> None:
    path = table(tmp_path, "t0,03\n", "recording_id,species_id")
    assert set(read_test_labels(path, SPECIES, TEST_IDS)["usage"]) == {"public"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("t11,a,public", r"test_labels.csv row 2: no test recording 't11'; the nearest are t1"),
        ("t0,a,public\nt0,3,public", "row 3: unknown species '3'; the nearest are 03"),
        ("t0,,public", "row 2: unknown species ''"),
        ("t0,a,Public", "row 2: usage must be one of public, private, found 'Public'"),
        ("t0,a,public\nt0,b,private", "row 3: usage private of t0, which an earlier row has as public"),
        ("t0,a,public\nt0,a,public", "row 3: repeats row 2"),
    ],
)
def test_a_wrong_row_is_named(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_test_labels(table(tmp_path, f"{rows}\n"), SPECIES, TEST_IDS)


def test_a_table_without_species_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing column\(s\) species_id"):
        read_test_labels(table(tmp_path, "t0,1\n", "recording_id,sa"), SPECIES, TEST_IDS)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Test recordings `later` with species a, `nothing` without any, and `broken`, which is left out."""
    folder = make_folder(tmp_path / "recordings", n_recordings=2, length_s=3.0)
    write_noise(folder / "test/nothing.wav", 3.0)
    (folder / "test/broken.wav").write_bytes(b"no sound")
    table(folder, "later,a\nbroken,b\n", "recording_id,species_id")
    return folder


def params(folder: Path) -> DataParams:
    return DataParams(source="own", root=str(folder), on_bad_recording="skip", demo=DemoParams())


def test_it_gives_an_lb_as_the_soundscapes_have_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Species b is scored above a, the only true one: its precision is a half."""
    monkeypatch.chdir(tmp_path)
    prepare_source(params(own), AUDIO, Path("source"))
    assert {path.name for path in Path("source/hidden").iterdir()} == {"test_labels.csv"}
    assert list(read_score_table(Path("source/hidden/test_labels.csv"))["recording_id"]) == [
        "later",
        "nothing",
    ]
    sample = pd.read_csv("source/sample_submission.csv").assign(sa=[0.3, 0.1], sb=[0.6, 0.1])
    write_score_table(sample, Path("submission.csv"))
    Path("without").mkdir()
    Path("without/steps.csv").write_text("step\n")
    score.main(["submission.csv", "source/hidden", "lb.json", "--without", "without"])
    assert json.loads(Path("lb.json").read_text()) == {"lb": {"public": 0.5, "private": None}}
    assert "score: LB LWLRAP public 0.5000, 2 recordings" in capsys.readouterr().out


def test_without_the_table_the_truth_is_not_known(own: Path, tmp_path: Path) -> None:
    (own / "test_labels.csv").unlink()
    prepare_source(params(own), AUDIO, tmp_path / "source")
    assert {path.name for path in (tmp_path / "source/hidden").iterdir()} == {".keep"}


def test_a_change_of_it_is_noticed(own: Path, tmp_path: Path) -> None:
    listings = []
    for rows in ("later,a\n", "later,b\n"):
        table(own, rows, "recording_id,species_id")
        write_listing(params(own), tmp_path / "list.csv")
        listings.append((tmp_path / "list.csv").read_text())
    assert "test_labels.csv" in listings[0]
    assert listings[0] != listings[1]
