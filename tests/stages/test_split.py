from pathlib import Path

import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.clips import DTYPES
from callboard.data.folds import read_folds
from stages import split


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_params("error")
    rows = [(f"{i:09d}", str(i % 2), "tp") for i in range(20)] + [
        (f"{i:09d}", "1", "fp") for i in range(15, 30)
    ]
    table = pd.DataFrame(rows, columns=["recording_id", "species_id", "label_type"])
    table.assign(clip_id=range(len(table))).reindex(columns=list(DTYPES), fill_value=0).to_csv(
        "clips.csv", index=False
    )
    write_recordings()
    Path("metadata.csv").write_text("recording_id\n")
    return tmp_path


def run(folds):
    split.main(["clips.csv", folds, "--recordings", "recordings.csv", "--metadata", "metadata.csv"])


def write_recordings(**copies):
    rows = [(f"{i:09d}", "train", str(i)) for i in range(30)] + [("t1", "test", "0")]
    table = pd.DataFrame(rows, columns=["recording_id", "subset", "digest"])
    table["digest"] = table["digest"].replace(copies)
    table.to_csv("recordings.csv", index=False)


def write_params(rare_species, folds="[0, 1, 2]", group="recording"):
    with open("params.yaml", "w") as file:
        file.write(
            f"split: {{folds: {folds}, seed: 0, stratify: presence, rare_species: {rare_species}, "
            f"group: {group}}}\n"
        )


def test_the_stage_writes_every_recording_once_and_says_so(workspace, capsys):
    run("out/folds.csv")
    folds = read_folds(workspace / "out" / "folds.csv")
    assert folds["recording_id"].tolist() == [f"{i:09d}" for i in range(30)]
    assert folds["fold"].value_counts().tolist() == [10, 10, 10]
    assert capsys.readouterr().out.startswith(
        "split: 30 recordings in 3 folds of 10-10, no recording in two folds, "
    )


def test_copies_of_a_recording_are_in_one_fold_and_named(workspace, capsys):
    before = folds_of_ids()
    apart = next(i for i in range(1, 20) if before[f"{i:09d}"] != before[f"{0:09d}"])
    write_recordings(**{str(apart): "0"})
    after = folds_of_ids()
    assert after[f"{apart:09d}"] == after[f"{0:09d}"]
    assert f", 1 group of equal content, 000000000 = {apart:09d}, " in capsys.readouterr().out


def folds_of_ids():
    run("folds.csv")
    return read_folds(Path("folds.csv")).set_index("recording_id")["fold"]


def test_the_stage_gives_equal_bytes_twice(workspace):
    run("a.csv")
    run("b.csv")
    assert (workspace / "a.csv").read_bytes() == (workspace / "b.csv").read_bytes()


def test_the_stage_fails_before_writing_when_the_assignment_leaks(workspace, monkeypatch):
    def leaky(clips, params, digests, metadata):
        rows = clips[["recording_id"]].drop_duplicates()
        return pd.concat([rows.assign(fold=0), rows.tail(1).assign(fold=1)])

    monkeypatch.setattr(split, "assign_folds", leaky)
    with pytest.raises(UserError, match=r"leak: .*000000029 \(fp rows\) in folds \[0, 1\]"):
        run("folds.csv")
    assert not (workspace / "folds.csv").exists()


def test_a_rare_species_stops_the_stage_unless_allowed(workspace):
    clips = pd.read_csv("clips.csv", dtype=str)
    clips.loc[0, "species_id"] = "rare"
    clips.to_csv("clips.csv", index=False)
    with pytest.raises(UserError, match=r"rare \(1\)"):
        run("folds.csv")
    write_params("allow")
    run("folds.csv")
    assert len(read_folds(workspace / "folds.csv")) == 30


def write_sites():
    """Six sites of five recordings, one after the other."""
    rows = [f"{i:09d},S{i // 5}\n" for i in range(30)]
    Path("metadata.csv").write_text("recording_id,site\n" + "".join(rows))


def test_recordings_of_a_site_are_in_one_fold_and_the_table_names_the_site(workspace, capsys):
    write_params("error", group="site")
    write_sites()
    run("folds.csv")
    folds = read_folds(Path("folds.csv"))
    assert folds["group"].tolist() == [f"S{i // 5}" for i in range(30)]
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert capsys.readouterr().out.startswith(
        "split: 30 recordings in 6 groups by site in 3 folds of 10-10, no group in two folds, "
    )


def test_without_groups_the_table_is_what_it_was(workspace):
    run("folds.csv")
    write_sites()
    run("again.csv")
    assert Path("folds.csv").read_bytes() == Path("again.csv").read_bytes()
    assert Path("folds.csv").read_text().startswith("recording_id,fold\n")
