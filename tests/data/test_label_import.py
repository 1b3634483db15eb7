"""Import into a folder of recordings, export from it, and both one after the other."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS, LABEL_TYPES, read_annotations
from callboard.data.clips import build_clips
from callboard.data.label_export import EXPORT_FORMATS, export_labels
from callboard.data.label_import import ImportOptions, LabelImport, import_labels
from callboard.data.sources import prepare_source
from callboard.params.data import DataParams
from callboard.params.features import AudioParams

RATE = 8000
LENGTH_S = 20.0
HEADER = "recording_id,species_id,t_min,t_max,f_min,f_max,verdict\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings a to d of 20 s, without tables."""
    train = tmp_path / "recordings/train"
    train.mkdir(parents=True)
    sound = 0.1 * np.sin(np.arange(int(LENGTH_S * RATE)) / 3)
    for name in ("a.wav", "b.wav", "c.flac", "d.WAV"):
        soundfile.write(train / name, sound, RATE)
    return tmp_path / "recordings"


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def labels(folder: Path, *lines: str, name: str = "labels.csv") -> Path:
    """A CSV of labels next to the folder of recordings."""
    return write(folder.parent, name, HEADER + "".join(f"{line}\n" for line in lines))


def tables(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Rows of both tables by label type."""
    return {
        kind: [
            tuple(row)
            for row in read_annotations(folder / f"train_{kind}.csv", kind)[ANNOTATION_COLUMNS].to_numpy()
        ]
        for kind in LABEL_TYPES
    }


def all_counted(done: LabelImport) -> bool:
    """Whether every label of the files was written or left out for a reason."""
    return int(done.counts.to_numpy().sum()) == done.n_tp + done.n_fp + done.left_out.total()


PRESENT, ABSENT = "a.wav,Wren,1.5,2.5,500,1500,present", "b,Wren,3,4,500,1500,absent"


def test_present_is_confirmed_absent_is_rejected_and_open_is_counted(folder: Path) -> None:
    path = labels(folder, PRESENT, ABSENT, "c.flac,Wren,3,4,500,1500,", "c,Robin,1,2,500,900,present")
    done = import_labels([path], folder, ImportOptions())
    assert tables(folder) == {
        "tp": [("a", "Wren", "1", 1.5, 500.0, 2.5, 1500.0), ("c", "Robin", "1", 1.0, 500.0, 2.0, 900.0)],
        "fp": [("b", "Wren", "1", 3.0, 500.0, 4.0, 1500.0)],
    }
    assert done.counts.loc["Wren"].to_dict() == {"present": 1, "absent": 1, "open": 1}
    assert done.counts.loc["Robin"].to_dict() == {"present": 1, "absent": 0, "open": 0}
    assert done.left_out == {"open: nobody has said present or absent": 1}
    assert all_counted(done)


def test_files_of_several_formats_are_imported_at_once(folder: Path) -> None:
    track = write(folder.parent, "b.txt", "1.0\t2.0\tWren\n\\\t500\t900\n")
    done = import_labels([labels(folder, PRESENT), track], folder, ImportOptions())
    assert done.formats == {"csv": 1, "audacity": 1}
    assert [row[0] for row in tables(folder)["tp"]] == ["a", "b"]


def test_what_cannot_be_written_is_counted_by_reason(folder: Path) -> None:
    path = labels(
        folder,
        PRESENT,
        PRESENT,
        "elsewhere.wav,Wren,1,2,500,900,present",
        "b,Wren,5,6,500,900,present",
        "b,Wren,5,6,500,900,absent",
        "b,Owl,1,2,500,900,absent",
        "b,Wren,7,8,500,900,unsure",
    )
    done = import_labels([path], folder, ImportOptions())
    assert done.left_out == {
        f"of recordings that are not in {folder}/train": 1,
        "open: nobody has said present or absent": 1,
        "repeated: the same box, species and verdict": 1,
        "contradictory: the same box is both present and absent": 2,
        "absent, of species that are nowhere present: Owl": 1,
    }
    assert (done.n_tp, done.n_fp) == (1, 0)
    assert all_counted(done)


def test_recordings_without_a_file_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = labels(folder, PRESENT, "x.wav,Wren,1,2,500,900,present", "y,Wren,1,2,500,900,present")
    import_labels([path], folder, ImportOptions())
    assert f"warning: 2 recordings not in {folder}/train: x, y\n" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"labels are of x; the folder has a, b, c, d$"):
        import_labels(
            [labels(folder, "x,Wren,1,2,500,900,present")],
            folder.parent / "recordings",
            ImportOptions(is_added=True),
        )


def test_a_folder_without_recordings_takes_all_names(tmp_path: Path) -> None:
    path = labels(tmp_path / "new", "site/x.wav,Wren,1,2000,500,900,present")
    import_labels([path], tmp_path / "new", ImportOptions())
    assert tables(tmp_path / "new")["tp"] == [("x", "Wren", "1", 1.0, 500.0, 2000.0, 900.0)]


def test_species_that_the_folder_does_not_list_are_left_out(folder: Path) -> None:
    write(folder, "species.csv", "species_id\nWren\nOwl\n")
    path = labels(folder, PRESENT, "a,Robin,5,6,500,900,present", "b,Owl,1,2,500,900,absent")
    done = import_labels([path], folder, ImportOptions())
    assert done.left_out == {"of species that species.csv lacks: Robin": 1}
    assert [row[1] for row in tables(folder)["fp"]] == ["Owl"]


def test_a_label_that_runs_past_the_end_is_cut_off(folder: Path) -> None:
    done = import_labels([labels(folder, "a,Wren,18,21,500,900,present")], folder, ImportOptions())
    assert tables(folder)["tp"] == [("a", "Wren", "1", 18.0, 500.0, 20.0, 900.0)]
    assert done.notes == ["1 label cut off at the end of their recording"]


@pytest.mark.parametrize("times", ["1500,2500", "20,21", "19,25.5"])
def test_times_that_are_not_seconds_of_the_recording_are_refused(times: str, folder: Path) -> None:
    path = labels(folder, PRESENT, f"b,Wren,{times},500,900,present")
    with pytest.raises(UserError, match=r"csv row 3: .* s is beyond the end of recording b at 20 s; times"):
        import_labels([path], folder, ImportOptions())
    assert not list(folder.glob("*.csv"))


def test_labels_without_a_band_get_all_frequencies_or_those_of_the_user(folder: Path) -> None:
    path = labels(folder, "a,Wren,1,2,,,present")
    done = import_labels([path], folder, ImportOptions())
    assert tables(folder)["tp"] == [("a", "Wren", "1", 1.0, 0.0, 2.0, RATE / 2)]
    assert done.notes == ["1 label without a frequency band: 0 Hz to half the sample rate"]
    done = import_labels([path], folder, ImportOptions(is_added=True, band=(500, 900)))
    assert tables(folder)["tp"][1] == ("a", "Wren", "1", 1.0, 500.0, 2.0, 900.0)
    assert done.notes == ["1 label without a frequency band: 500–900 Hz"]
    with pytest.raises(UserError, match=r"row 2: label without a frequency band \(1 in total\); --band"):
        import_labels([path], folder.parent / "new", ImportOptions())


def test_a_complete_review_makes_all_that_is_not_named_absent(folder: Path) -> None:
    """Robin is not in a, only rejected in b, and open in c; d has only what was there before."""
    before = labels(folder, "c,Lark,1,2,500,900,present", "d,Robin,1,2,500,900,present")
    import_labels([before], folder, ImportOptions())
    path = labels(
        folder,
        PRESENT,
        "a,Lark,1,2,500,900,present",
        "b,Wren,1,2,500,900,present",
        "b,Robin,1,2,500,900,absent",
        "c,Robin,1,2,500,900,open",
    )
    empty = write(folder.parent, "d.Table.1.selections.txt", "Begin Time (s)\tEnd Time (s)\tSpecies\n")
    done = import_labels([path, empty], folder, ImportOptions(is_complete=True, is_added=True))
    whole = ("1", 0.0, 0.0, LENGTH_S, RATE / 2)
    assert tables(folder)["fp"] == [
        ("b", "Robin", "1", 1.0, 500.0, 2.0, 900.0),
        *(
            (*cell, *whole)
            for cell in [
                ("a", "Robin"),
                ("b", "Lark"),
                ("b", "Robin"),
                ("c", "Wren"),
                ("d", "Lark"),
                ("d", "Wren"),
            ]
        ),
    ]
    assert (done.n_absences, done.n_recordings, done.n_empty) == (6, 4, 1)
    again = import_labels([path, empty], folder, ImportOptions(is_complete=True, is_added=True))
    assert (again.n_tp, again.n_fp, again.n_absences) == (0, 0, 0)


def test_what_nobody_has_reviewed_is_not_a_complete_review(folder: Path) -> None:
    scores = write(folder.parent, "scores.csv", "recording,name,start_time,end_time,score\na,Wren,1,4,0.9\n")
    with pytest.raises(UserError, match=r"--complete: nobody has reviewed scores.csv, whose labels are"):
        import_labels([labels(folder, PRESENT), scores], folder, ImportOptions(is_complete=True))
    assert not list(folder.glob("*.csv"))


def test_an_absence_rejects_each_song_type_in_every_window(folder: Path) -> None:
    text = "recording,species,songtype,start,end,f_min,f_max\n"
    text += "a,Wren,1,1,2,0,900\na,Wren,song,3,4,0,900\nb,Owl,1,1,2,0,900\n"
    import_labels([write(folder.parent, "labels.csv", text)], folder, ImportOptions(is_complete=True))
    fp = read_annotations(folder / "train_fp.csv", "fp")
    assert fp[["recording_id", "species_id", "songtype_id"]].to_numpy().tolist() == [
        ["a", "Owl", "1"],
        ["b", "Wren", "1"],
        ["b", "Wren", "song"],
    ]
    tp = read_annotations(folder / "train_tp.csv", "tp")
    clips = build_clips(pd.concat([tp, fp]), {"a": 2000, "b": 2000}, 100.0, np.linspace(0, RATE / 2, 16))
    spans = clips.loc[clips["label_type"] == "fp", ["start_frame", "stop_frame", "low_mel", "high_mel"]]
    assert (spans == [0, 2000, 0, 16]).all(axis=None)


def test_lengths_are_needed_for_a_complete_review(tmp_path: Path) -> None:
    path = labels(tmp_path / "new", PRESENT)
    with pytest.raises(UserError, match=r"--complete: needs the lengths of the recordings, but .*train has"):
        import_labels([path], tmp_path / "new", ImportOptions(is_complete=True))
    assert not (tmp_path / "new").exists()


def test_what_is_imported_passes_prepare(folder: Path, tmp_path: Path) -> None:
    path = labels(folder, PRESENT, ABSENT, "c,Robin,19,23,,,present", "d,Wren,0,1,,,present")
    import_labels([path], folder, ImportOptions(is_complete=True))
    data = DataParams(source="own", root=str(folder), demo={})  # type: ignore[arg-type]
    prepared = prepare_source(data, AudioParams(sample_rate=RATE), tmp_path / "source")
    assert prepared.species == ["Robin", "Wren"]
    assert len(prepared.train_tp) == 3
    assert len(prepared.train_fp) == 1 + 5


def test_tables_that_exist_are_not_overwritten(folder: Path) -> None:
    path = labels(folder, PRESENT)
    write(folder, "train_fp.csv", "mine")
    with pytest.raises(UserError, match=r"train_fp.csv: exists already; --add adds to it, or remove it"):
        import_labels([path], folder, ImportOptions())
    assert (folder / "train_fp.csv").read_text() == "mine"
    assert not (folder / "train_tp.csv").exists()


def test_labels_are_added_once_and_do_not_contradict_what_is_there(folder: Path) -> None:
    import_labels([labels(folder, PRESENT, ABSENT)], folder, ImportOptions())
    before = tables(folder)
    path = labels(folder, PRESENT, PRESENT.replace("present", "absent"), "d,Wren,1,2,500,900,present")
    done = import_labels([path], folder, ImportOptions(is_added=True))
    assert done.left_out == {
        "repeated: the same box, species and verdict": 1,
        "contradictory: the same box is both present and absent": 1,
    }
    assert all_counted(done)
    after = tables(folder)
    assert after["tp"] == [*before["tp"], ("d", "Wren", "1", 1.0, 500.0, 2.0, 900.0)]
    assert after["fp"] == before["fp"]


def test_without_a_present_label_nothing_is_written(folder: Path) -> None:
    path = labels(folder, ABSENT, "c,Wren,3,4,500,1500,")
    with pytest.raises(
        UserError,
        match=r"left that says present; .* left out: 1 open: .*; 1 absent.*; `--verdict present` takes",
    ):
        import_labels([path], folder, ImportOptions())
    assert not list(folder.glob("*.csv"))


def test_labels_name_the_folder_of_recordings_that_share_a_name(folder: Path) -> None:
    for site in ("north", "south"):
        (folder / "train" / site).mkdir()
        shutil.copy(folder / "train/a.wav", folder / "train" / site / "dawn.wav")
    (folder / "train/b.wav").rename(folder / "train/south/b.wav")
    rows = (
        "C:\\x\\north\\dawn.wav,Wren,1,2,5,9,present",
        "south/dawn,Wren,1,2,5,9,present",
        "dawn,Wren,3,4,5,9,present",
    )
    import_labels([labels(folder, *rows, "x/b.wav,Wren,1,2,5,9,present")], folder, ImportOptions())
    assert sorted(row[0] for row in tables(folder)["tp"]) == ["b", "north/dawn", "south/dawn"]


def test_files_of_two_sites_are_not_one_recording(folder: Path) -> None:
    path = labels(folder, "one/a.wav,Wren,1,2,5,9,present", "two\\a.wav,Wren,1,2,5,9,present")
    with pytest.raises(UserError, match="one/a and two/a would both be recording a; give the files"):
        import_labels([path], folder, ImportOptions())
    path = labels(
        folder, "data/one/a.wav,Wren,1,2,5,9,present", "one/a.wav,Wren,2,3,5,9,present", "a,Wren,3,4,5,9,1"
    )
    assert import_labels([path], folder, ImportOptions()).n_tp == 3


def test_a_recording_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "train/b.wav").write_bytes(b"no sound")
    with pytest.raises(UserError, match=r"train/b.wav: not a recording: "):
        import_labels([labels(folder, PRESENT, ABSENT)], folder, ImportOptions())


def random_tables(folder: Path, rng: np.random.Generator, decimals: int) -> None:
    """Tables of boxes of any shape, with names that have blanks, quotes and digits."""
    n_rows = 60
    start, low = rng.uniform(0, 18, n_rows), rng.uniform(0, 3000, n_rows)
    table = pd.DataFrame(
        {
            "recording_id": rng.choice(["a", "b", "c", "d"], n_rows),
            "species_id": rng.choice(["7", "Wren", "Turdus merula, male", 'the "loud" one'], n_rows),
            "songtype_id": rng.choice(["1", "4", "Common Song"], n_rows),
            "t_min": start.round(decimals),
            "f_min": low.round(decimals),
            "t_max": (start + rng.uniform(0.01, 2, n_rows)).round(decimals),
            "f_max": (low + rng.uniform(1, 1000, n_rows)).round(decimals),
        }
    )
    table.iloc[:40].to_csv(folder / "train_tp.csv", index=False)
    table.iloc[40:].to_csv(folder / "train_fp.csv", index=False)


@pytest.mark.parametrize("format_name", EXPORT_FORMATS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_exported_comes_back(format_name: str, seed: int, folder: Path) -> None:
    """Audacity's times and frequencies have six decimals, all others those of the table."""
    random_tables(folder, np.random.default_rng(seed), decimals=6 if format_name == "audacity" else 17)
    before = {kind: sorted(rows) for kind, rows in tables(folder).items()}
    output = folder.parent / "out"
    n_files, n_labels = export_labels(folder, format_name, output)
    files = sorted(output.iterdir())
    assert (len(files), n_labels) == (n_files, 60)
    for kind in LABEL_TYPES:
        (folder / f"train_{kind}.csv").unlink()
    done = import_labels(files, folder, ImportOptions())
    assert {kind: sorted(rows) for kind, rows in tables(folder).items()} == before
    assert done.formats == {format_name: n_files}


@pytest.mark.parametrize("format_name", ["raven", "audacity"])
def test_labels_of_recordings_in_subfolders_are_exported_to_subfolders(
    format_name: str, folder: Path
) -> None:
    random_tables(folder, np.random.default_rng(0), decimals=6)
    tp = pd.read_csv(folder / "train_tp.csv", dtype=str)
    tp["recording_id"] = "site/" + tp["recording_id"]
    tp.to_csv(folder / "train_tp.csv", index=False)
    export_labels(folder, format_name, folder.parent / "out")
    found = {path.name.partition(".")[0] for path in (folder.parent / "out/site").iterdir()}
    assert found == {"a", "b", "c", "d"}
    tp["recording_id"] = "../a"
    tp.to_csv(folder / "train_tp.csv", index=False)
    with pytest.raises(UserError, match=r"recording '\.\./a': path .* leaves its folder"):
        export_labels(folder, format_name, folder.parent / "again")


def test_a_table_for_raven_opens_with_its_recording(folder: Path) -> None:
    import_labels([labels(folder, PRESENT, "c,Wren,3,4,500,1500,absent")], folder, ImportOptions())
    export_labels(folder, "raven", folder.parent / "out")
    assert sorted(path.name for path in (folder.parent / "out").iterdir()) == [
        "a.callboard.selections.txt",
        "c.callboard.selections.txt",
    ]
    assert (folder.parent / "out/c.callboard.selections.txt").read_text() == (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies"
        "\tSong Type\tVerdict\tBegin File\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t3.0\t4.0\t500.0\t1500.0\tWren\t1\tabsent\tc.flac\t3.0\n"
    )


def test_labels_for_audacity_say_what_is_not_usual(folder: Path) -> None:
    text = "recording,species,songtype,start,end,f_min,f_max,verdict\n"
    text += "a,Wren,1,1,2,0,900,1\na,Wren,4,3,4,0,900,0\n"
    import_labels([write(folder.parent, "labels.csv", text)], folder, ImportOptions())
    export_labels(folder, "audacity", folder.parent / "out")
    assert (folder.parent / "out/a.callboard.txt").read_text() == (
        "1.000000\t2.000000\tWren\n\\\t0.000000\t900.000000\n"
        "3.000000\t4.000000\tWren [song type 4] [absent]\n\\\t0.000000\t900.000000\n"
    )


def test_a_folder_with_files_is_not_written_over(folder: Path) -> None:
    import_labels([labels(folder, PRESENT)], folder, ImportOptions())
    write(folder.parent / "out", "mine.txt", "mine")
    with pytest.raises(UserError, match="out: exists and is not an empty folder; name a new one"):
        export_labels(folder, "csv", folder.parent / "out")
    assert [path.name for path in (folder.parent / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("species", ["two\twords", "Wren [absent]", "Wren;0.9", "two\nlines"])
def test_a_name_that_audacity_cannot_carry_is_refused(species: str, folder: Path) -> None:
    table = pd.DataFrame([("a", species, "1", 1, 2, 3, 4)], columns=ANNOTATION_COLUMNS)
    table.to_csv(folder / "train_tp.csv", index=False)
    write(folder, "train_fp.csv", ",".join(ANNOTATION_COLUMNS) + "\n")
    with pytest.raises(UserError, match=r"a.wav: label .* would be read as a different one; rename"):
        export_labels(folder, "audacity", folder.parent / "out")
    assert not (folder.parent / "out").exists()
