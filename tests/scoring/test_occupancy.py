from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from callboard.cli import dispatch
from callboard.core.errors import UserError
from callboard.scoring.detections import StoredPredictions, read_thresholds
from callboard.scoring.occupancy import read_places, write_occupancy
from tests.scoring.test_detections import write_shards

AM1, AM2 = "AM1_20260601_060000.wav", "AM1_20260602_060000.wav"
NIGHT, FIELD = "AM1_20260604_230000.wav", "in_the_field_20260602_060000.flac"
SCORES = {
    AM1: {"3": 0.9, "07": 0.1},
    AM2: {"3": 0.2, "07": 0.1},
    NIGHT: {"3": 0.4, "07": 0.5},
    FIELD: {"3": 0.6, "07": 0.2},
}
HALF = {"3": 0.5, "07": 0.5}


@pytest.fixture
def predictions(tmp_path: Path) -> StoredPredictions:
    return write_shards(tmp_path / "june", SCORES, length_s=1800.0)


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", dtype={"species": str})


def test_a_day_without_a_recording_is_na_and_one_without_a_call_is_0(predictions, tmp_path):
    assert write_occupancy(predictions, HALF, "", 1, tmp_path / "out") == (3, 4)
    days = [f"2026-06-0{day}" for day in range(1, 5)]
    text = (tmp_path / "out/history.csv").read_text().splitlines()
    assert text == [
        f"species,site,{','.join(days)}",
        "3,AM1,1,0,NA,0",
        "3,in_the_field,NA,1,NA,NA",
        "07,AM1,0,0,NA,1",
        "07,in_the_field,NA,0,NA,NA",
    ]
    effort = read(tmp_path / "out", "effort").set_index("site")
    assert effort.loc["AM1"].tolist() == [0.5, 0.5, 0.0, 0.5]
    assert effort.loc["in_the_field"].tolist() == [0.0, 0.5, 0.0, 0.0]
    history = read(tmp_path / "out", "history").set_index(["species", "site"])
    for species in HALF:  # NA just where there was no effort
        assert (history.loc[species].isna() == (effort == 0)).all(axis=None)


def test_an_occasion_of_several_days_has_a_call_if_one_recording_has(predictions, tmp_path):
    write_occupancy(predictions, {"3": 0.5}, "", 3, tmp_path / "out")
    history = read(tmp_path / "out", "history")
    assert list(history.columns[2:]) == ["2026-06-01", "2026-06-04"]
    assert history.iloc[:, 2:].fillna(-1).to_numpy().tolist() == [[1, 0], [1, -1]]
    long = read(tmp_path / "out", "occasions")
    assert len(long) == 3
    first = long[(long["site"] == "AM1") & (long["first_day"] == "2026-06-01")].iloc[0]
    assert first.tolist() == ["3", "AM1", "2026-06-01", 1, 2, 1.0, 0.9]


@pytest.mark.parametrize("n_days", [4, 5, 10**30])
def test_an_occasion_can_be_longer_than_all_recordings(predictions, tmp_path, n_days):
    write_occupancy(predictions, {"3": 0.5}, "", n_days, tmp_path / "out")
    text = (tmp_path / "out/history.csv").read_text().splitlines()
    assert text == ["species,site,2026-06-01", "3,AM1,1", "3,in_the_field,1"]


def test_a_clock_that_was_not_set_is_named_instead_of_decades_without_effort(tmp_path):
    names = ["AM1_19700101_000000.wav", AM1]
    predictions = write_shards(tmp_path / "june", {name: {"3": 0.9} for name in names})
    said = (
        r"from 1970-01-01 \(AM1_19700101_000000\.wav\) to 2026-06-01 \(.*more than 4000 occasions of 1 day;"
    )
    with pytest.raises(UserError, match=said):
        write_occupancy(predictions, {"3": 0.5}, "", 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_occupancy(predictions, {"3": 0.5}, "", 30, tmp_path / "out")
    assert read(tmp_path / "out", "history").shape == (1, 2 + 687)


def test_marks_against_formulas_and_spaces_around_sites_are_no_part_of_names(
    tmp_path,
):
    (tmp_path / "t.csv").write_text("recording,site,date\n'-a.wav, A ,2026-06-02\n")
    assert read_places(str(tmp_path / "t.csv"), ["-a.wav"])["site"].tolist() == ["A"]
    (tmp_path / "species.csv").write_text("species,threshold\n'=s,0.5\n")
    assert read_thresholds(str(tmp_path / "species.csv"), ["=s"], "exp1@0123") == {"=s": 0.5}


def test_histories_are_those_of_a_loop_over_recordings(tmp_path):
    draw = np.random.default_rng(0)
    scores, expected, effort = {}, {}, {}
    for number in range(200):
        site, day = draw.choice(["a", "b", "c"]), date(2026, 12, 25 + draw.integers(7))
        name = f"{site}/{day:%Y%m%d}_{number:06d}.wav"
        scores[name] = {"3": draw.random() ** 4, "07": draw.random() ** 4}
        effort[site, day] = effort.get((site, day), 0) + 1
        for species, score in scores[name].items():
            cell = species, site, day.isoformat()
            expected[cell] = max(expected.get(cell, 0), int(score >= 0.5))
    predictions = write_shards(tmp_path / "june", scores, length_s=3600.0)
    write_occupancy(predictions, HALF, "", 1, tmp_path / "out")
    history = read(tmp_path / "out", "history").melt(["species", "site"]).dropna()
    assert {tuple(cells): value for *cells, value in history.itertuples(index=False)} == expected
    hours = read(tmp_path / "out", "effort").melt("site")
    found = {(site, date.fromisoformat(day)): n for site, day, n in hours.itertuples(index=False) if n}
    assert found == effort


def test_the_folder_of_a_day_or_of_a_memory_card_is_no_site():
    names = ["june/AM1_20260601_060000.wav", "july/AM1_20260701_060000Z.wav"]
    assert read_places("", names)["site"].tolist() == ["AM1", "AM1"]
    assert read_places("", ["S4/20260601_060000.wav"])["site"].tolist() == ["S4"]
    nested = ["june/S4/20260601_060000.wav"]
    with pytest.raises(UserError, match="no site and date in the names of 1 recording: june/S4"):
        read_places("", nested)
    assert read_places("*/SITE/YYYYMMDD_HHMMSS", nested)["site"].tolist() == ["S4"]


def test_sites_and_dates_can_be_those_of_a_pattern_or_of_a_table(tmp_path):
    names = ["S4_x/260601-night.wav", "S5_y/260702-night.wav"]
    places = read_places("SITE_*/YYMMDD*", names)
    assert places["site"].tolist() == ["S4", "S5"]
    assert places["date"].tolist() == [date(2026, 6, 1), date(2026, 7, 2)]
    table = tmp_path / "SITES.csv"
    table.write_text("recording,site,date,note\nb.wav,B,2026-06-01T06:00:00,\na.wav,A,2026-06-02,x\n")
    places = read_places(str(table), ["a.wav"])
    assert places.loc["a.wav"].tolist() == ["A", date(2026, 6, 2)]


def test_a_table_of_sites_is_beside_the_user_who_can_be_below_the_workspace(
    predictions, tmp_path, monkeypatch
):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "below").mkdir()
    for folder, site in ((tmp_path, "wrong"), (tmp_path / "below", "right")):
        rows = [f"{name},{site},2026-06-02" for name in SCORES]
        (folder / "t.csv").write_text("\n".join(["recording,site,date", *rows]))
    monkeypatch.chdir(tmp_path / "below")
    line = "detections ../june --threshold 0.5 --to occupancy --output out --sites t.csv"
    dispatch(line.split())
    assert set(read(tmp_path / "below/out", "history")["site"]) == {"right"}


@pytest.mark.parametrize(
    ("sites", "name", "message"),
    [
        (
            "",
            "a.wav",
            "in the names of 1 recording: a.wav; they must be SITE_YYYYMMDD_HHMMSS or SITE/",
        ),
        ("SITE_YYYYMMDD", "a_20260231.wav", "in the names of 1 recording: a_20260231.wav"),
        ("SITE_HHMMSS", "a_000000.wav", "must contain YYYYMMDD or YYMMDD, once"),
        ("SITE/SITE_YYYYMMDD", "a/a_20260601.wav", r"--sites SITE/SITE_YYYYMMDD: must contain SITE once"),
        ("SITE*_YYYYMMDD", "AM1x_20260601.wav", "does not say where SITE ends; write what is between it and"),
        ("table", "c.wav", r"t\.csv: no row for 1 recording: c\.wav"),
        ("bad", "a.wav", r"bad\.csv row 2: date '1\.6\.2026' must be as in 2026-06-30"),
        ("bad", "a.wav", r"row 3: site is empty"),
        ("bad", "a.wav", r"row 4: recording 'a\.wav' is repeated"),
    ],
)
def test_a_recording_without_a_place_is_refused(sites, name, message, tmp_path):
    (tmp_path / "t.csv").write_text("recording,site,date\na.wav,A,2026-06-02\n")
    (tmp_path / "bad.csv").write_text(
        "recording,site,date\na.wav,A,1.6.2026\nb.wav,,2026-06-02\na.wav,A,2026-06-02\n"
    )
    files = {"table": str(tmp_path / "t.csv"), "bad": str(tmp_path / "bad.csv")}
    with pytest.raises(UserError, match=message):
        read_places(files.get(sites, sites), [name])
