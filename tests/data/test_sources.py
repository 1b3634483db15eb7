import errno
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
import soundfile

from callboard.core.errors import UserError
from callboard.data.annotations import ANNOTATION_COLUMNS, read_annotations, read_species
from callboard.data.content_digests import content_digest
from callboard.data.recording_folders import recording_folders
from callboard.data.recordings import read_recordings
from callboard.data.score_tables import score_columns
from callboard.data.sources import SOURCES, prepare_source
from callboard.params.data import DataParams, DemoParams
from callboard.params.features import AudioParams
from tests.toy_sounds import read_recording

RATE = 8000
DEMO = DemoParams(
    seed=1,
    n_species=3,
    n_tp_recordings=10,
    n_fp_recordings=2,
    n_test_recordings=4,
    n_external_recordings=0,
    crowding="sparse",
    recording_length_s=5.0,
    calls=None,
    backgrounds=None,
)
AUDIO = AudioParams(sample_rate=RATE, on_other_rate="error")
TP = [
    ("055088446", "0", "1", 0.1, 500.0, 0.9, 900.0),
    ("838227e71", "2", "1", 0.5, 500.0, 1.5, 900.0),
    ("0a4e7e350", "1", "1", 1.0, 500.0, 2.0, 900.0),
]
FP = [("055088446", "1", "1", 1.0, 500.0, 1.5, 900.0), ("aaaaaaaaa", "2", "1", 0.0, 500.0, 1.0, 900.0)]
TRAIN_IDS = ["055088446", "0a4e7e350", "838227e71", "aaaaaaaaa"]
TEST_IDS = ["000000002", "000000001"]
Write = Callable[..., None]


def data_params(
    source: str, root: str | None, on_bad_recording: str = "error", external: str | None = None
) -> DataParams:
    values = {"source": source, "root": root, "external": external, "on_bad_recording": on_bad_recording}
    return DataParams.model_validate(values | {"corrections": False, "demo": DEMO})


def params(root: Path, source: str = "rfcx", on_bad_recording: str = "error") -> DataParams:
    return data_params(source, str(root), on_bad_recording)


def write_tone(path: Path, rate: int = RATE, channels: int = 1, length_s: float = 2.0) -> None:
    sound = 0.1 * np.sin(np.arange(int(length_s * rate)) / 3 + crc32(path.name.encode()))
    soundfile.write(path, np.stack([sound] * channels, axis=1), rate)


def write_rows(path: Path, rows: list[tuple[object, ...]]) -> None:
    pd.DataFrame(rows, columns=ANNOTATION_COLUMNS).to_csv(path, index=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A competition folder with four training and two test recordings, three species."""
    folder = tmp_path / "rfcx"
    for subset, ids in (("train", TRAIN_IDS), ("test", TEST_IDS)):
        (folder / subset).mkdir(parents=True)
        for recording_id in ids:
            write_tone(folder / subset / f"{recording_id}.flac")
    write_rows(folder / "train_tp.csv", TP)
    write_rows(folder / "train_fp.csv", FP)
    sample = pd.DataFrame({"recording_id": TEST_IDS}).assign(s2=0.5, s0=0.5, s1=0.5)
    sample.to_csv(folder / "sample_submission.csv", index=False)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data/source"


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def refusal(data: DataParams, out: Path, audio: AudioParams = AUDIO) -> str:
    """The message; and nothing is left behind."""
    with pytest.raises(UserError) as caught:
        prepare_source(data, audio, out)
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return str(caught.value)


def test_a_competition_folder_becomes_the_tables_every_stage_reads(root: Path, out: Path) -> None:
    prepare_source(params(root), AUDIO, out)
    assert read_species(out / "species.csv") == ["2", "0", "1"]
    recordings = read(out / "recordings.csv")
    assert recordings["recording_id"].tolist() == [*TRAIN_IDS, *TEST_IDS]
    assert (recordings["n_samples"] == "16000").all()
    assert (recordings["sample_rate"] == "8000").all()
    files = [
        root / subset / file for subset, file in zip(recordings["subset"], recordings["file"], strict=True)
    ]
    assert recordings["digest"].tolist() == [content_digest(path) for path in files]
    assert read_annotations(out / "train_tp.csv", "tp")["recording_id"].tolist() == [row[0] for row in TP]
    assert len(read_annotations(out / "train_fp.csv", "fp")) == 2
    sample = read(out / "sample_submission.csv")
    assert sample["recording_id"].tolist() == TEST_IDS
    assert list(sample.columns) == ["recording_id", "s2", "s0", "s1"]
    assert read(out / "skipped.csv").empty
    assert [path.name for path in (out / "hidden").iterdir()] == [".keep"]


def test_the_demo_has_the_same_tables_and_its_truth(out: Path) -> None:
    data = data_params("demo", None)
    prepare_source(data, AUDIO, out)
    assert {path.name for path in out.iterdir()} == {
        *(
            "species.csv",
            "recordings.csv",
            "train_tp.csv",
            "train_fp.csv",
            "sample_submission.csv",
            "skipped.csv",
        ),
        *("hidden", "train", "test"),
    }
    assert {path.name for path in (out / "hidden").iterdir()} == {"test_labels.csv", "train_labels.csv"}
    for recording in read_recordings(out, recording_folders(data, out)):
        assert soundfile.info(recording.path).samplerate == RATE
        assert recording.digest == content_digest(recording.path)
    species = read_species(out / "species.csv")
    assert len(read_annotations(out / "train_tp.csv", "tp", species)) >= 10
    assert len(read_annotations(out / "train_fp.csv", "fp", species)) >= 2


FOLDERS: dict[str, Callable[[Path], str | None]] = {
    "demo": lambda root: None,
    "rfcx": str,
    "own": lambda root: str(own(root)),
}
"""`data.root` of each source, made of the competition's folder."""


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_tables_that_the_stages_read(source: str, root: Path, out: Path) -> None:
    data = data_params(source, FOLDERS[source](root))
    prepare_source(data, AUDIO, out)
    species = read_species(out / "species.csv")
    recordings = read(out / "recordings.csv")
    assert set(recordings["subset"]) == {"train", "test"}
    assert not recordings["recording_id"].duplicated().any()
    for recording in read_recordings(out, recording_folders(data, out)):
        assert soundfile.info(recording.path).frames == recording.n_samples
        assert recording.digest == content_digest(recording.path)
    train_ids = set(recordings.loc[recordings["subset"] == "train", "recording_id"])
    for label_type in ("tp", "fp"):
        annotations = read_annotations(out / f"train_{label_type}.csv", label_type, species)
        assert not annotations.empty
        assert set(annotations["recording_id"]) <= train_ids
    sample = read(out / "sample_submission.csv")
    assert set(sample["recording_id"]) == {*recordings["recording_id"]} - train_ids
    assert set(sample.columns) == {"recording_id", *score_columns(species)}
    assert read(out / "skipped.csv").empty
    assert (out / "hidden").is_dir()


def test_missing_recordings_are_counted_and_the_first_is_named(root: Path, out: Path) -> None:
    for name in ("train/0a4e7e350", "train/aaaaaaaaa", "test/000000001"):
        (root / f"{name}.flac").unlink()
    assert refusal(params(root), out) == (
        "recording 0a4e7e350 (train): no sound file train/0a4e7e350.*; 2 of 4 train recordings and "
        "1 of 2 test recordings cannot be used; data.on_bad_recording=skip leaves them out"
    )


def test_skipped_recordings_are_listed_and_gone_from_every_table(root: Path, out: Path) -> None:
    (root / "train/055088446.flac").unlink()
    (root / "test/000000002.flac").write_bytes(b"no sound")
    prepare_source(params(root, on_bad_recording="skip"), AUDIO, out)
    skipped = read(out / "skipped.csv")
    assert skipped[["recording_id", "subset"]].to_numpy().tolist() == [
        ["055088446", "train"],
        ["000000002", "test"],
    ]
    assert skipped["reason"][0] == "no sound file train/055088446.*"
    assert skipped["reason"][1].startswith("test/000000002.flac is unreadable")
    for name in ("recordings", "train_tp", "train_fp", "sample_submission"):
        assert not set(read(out / f"{name}.csv")["recording_id"]) & {"055088446", "000000002"}
    assert len(read_species(out / "species.csv")) == 3


def test_a_folder_without_test_recordings_gives_an_empty_submission_when_skipping(
    root: Path, out: Path
) -> None:
    for path in (root / "test").iterdir():
        path.unlink()
    (root / "test").rmdir()
    tables = prepare_source(params(root, on_bad_recording="skip"), AUDIO, out)
    assert tables.test_ids == []
    assert read(out / "sample_submission.csv").empty
    assert tables.facts()[-1] == "2 recordings skipped"


def test_a_box_that_is_confirmed_and_rejected_is_named(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read(root / "train_tp.csv")
    rejected = pd.concat([read(root / "train_fp.csv"), table.tail(1)])
    rejected.to_csv(root / "train_fp.csv", index=False)
    prepare_source(params(root), AUDIO, out)
    assert (
        f"warning: 1 annotation confirmed and rejected at once, first train_tp.csv row {len(table) + 1} "
        f"and train_fp.csv row {len(rejected) + 1}"
    ) in capsys.readouterr().err
    shutil.copy(root / "train_tp.csv", root / "train_fp.csv")
    told = refusal(params(root), out.parents[1] / "again/source")
    assert f"{len(table)} annotations confirmed and rejected at once" in told
    assert "that is every row, so one of the tables is wrong" in told


def test_a_table_of_rejected_detections_may_be_empty(root: Path, out: Path) -> None:
    read(root / "train_fp.csv").iloc[:0].to_csv(root / "train_fp.csv", index=False)
    prepare_source(params(root, on_bad_recording="skip"), AUDIO, out)
    assert read(out / "train_fp.csv").empty
    assert set(read(out / "recordings.csv")["recording_id"]) >= set(
        read(out / "train_tp.csv")["recording_id"]
    )


def spoil_table(name: str, spoil: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    return lambda root: spoil(read(root / name)).to_csv(root / name, index=False)


def set_cell(column: str, value: str, row: int = 1) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return change


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[[0]]])


WRONG: list[tuple[str, Callable[[Path], None], str]] = [
    ("no table", lambda root: (root / "train_tp.csv").unlink(), r"train_tp.csv: not found"),
    (
        "no sample",
        lambda root: (root / "sample_submission.csv").unlink(),
        r"sample_submission.csv: not found",
    ),
    (
        "missing column",
        spoil_table("train_fp.csv", lambda table: table.drop(columns="f_max")),
        r"train_fp.csv: missing column\(s\) f_max",
    ),
    (
        "empty tp table",
        spoil_table("train_tp.csv", lambda table: table.iloc[:0]),
        r"train_tp.csv: no rows; at least one confirmed",
    ),
    (
        "box out of order",
        spoil_table("train_tp.csv", set_cell("t_max", "0.2")),
        r"row 3: t_max 0.2 <= t_min 0.5",
    ),
    (
        "unknown species",
        spoil_table("train_fp.csv", set_cell("species_id", "24")),
        r"train_fp.csv row 3: unknown species '24'; known species: 2, 0, 1",
    ),
    ("repeated row", spoil_table("train_tp.csv", twice), r"train_tp.csv row 5: repeats row 2"),
    (
        "repeated test id",
        spoil_table("sample_submission.csv", twice),
        r"sample_submission.csv row 4: recording_id 000000002 is repeated \(1 in total\)",
    ),
    (
        "columns of the sample",
        spoil_table("sample_submission.csv", lambda table: table.rename(columns={"s1": "one"})),
        r"columns must be recording_id, then s<species_id> for each species; found recording_id, s2, s0, one",
    ),
    (
        "box beyond the end",
        spoil_table("train_fp.csv", set_cell("t_max", "2.5", row=0)),
        r"train_fp.csv row 2: t_max 2.5 s is beyond the end of recording 055088446 at 2 s \(1 in total\)",
    ),
    (
        "lost leading zero",
        spoil_table("train_tp.csv", set_cell("recording_id", "55088446", row=0)),
        r"no sound file train/55088446\.\*, but there is 055088446: the id lost its leading zeros",
    ),
    (
        "id made a number",
        spoil_table("train_tp.csv", set_cell("recording_id", "8.38227E+76")),
        r"8.38227E\+76 \(train\).*the id looks like a number that a spreadsheet made of it",
    ),
    (
        "hexadecimal id",
        spoil_table("train_tp.csv", set_cell("recording_id", "838227e76")),
        r"recording 838227e76 \(train\): no sound file train/838227e76\.\*; the nearest are 838227e71; 1 of",
    ),
    (
        "blank line above a box beyond the end",
        lambda root: (
            (root / "train_fp.csv").write_text(
                (root / "train_fp.csv").read_text().replace("\n", "\n\n", 1).replace("1.5", "2.5")
            )
            and None
        ),
        r"train_fp.csv row 3: t_max 2.5 s is beyond the end",
    ),
    (
        "train id in test",
        spoil_table("sample_submission.csv", set_cell("recording_id", "0a4e7e350")),
        r"recording 0a4e7e350: annotated for training and in the test set",
    ),
    (
        "stereo",
        lambda root: write_tone(root / "train/0a4e7e350.flac", channels=2),
        r"0a4e7e350 \(train\): train/0a4e7e350.flac has 2 channels, expected one",
    ),
    (
        "other rate",
        lambda root: write_tone(root / "test/000000001.flac", rate=16_000),
        r"sample rate 16000 Hz, expected audio.sample_rate 8000 Hz; audio.on_other_rate=resample converts",
    ),
    (
        "no sound file",
        lambda root: (root / "train/0a4e7e350.flac").write_bytes(b"") and None,
        r"0a4e7e350 \(train\): train/0a4e7e350.flac is unreadable",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_folder_is_refused_by_name(
    root: Path, out: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(root)
    assert re.search(words, refusal(params(root), out))


def test_a_missing_root_is_named(tmp_path: Path, out: Path) -> None:
    assert "folder does not exist" in refusal(params(tmp_path / "nowhere"), out)


def test_the_rate_that_most_recordings_share_is_proposed(root: Path, out: Path) -> None:
    for path in root.glob("t*/*.flac"):
        write_tone(path, 16000)
    told = "; all recordings have 16000 Hz: audio.sample_rate=16000 takes them as they are"
    assert refusal(params(root), out).endswith(told)
    write_tone(root / "test/000000002.flac", RATE)
    told = "; 5 of 6 recordings have 16000 Hz: audio.sample_rate=16000 takes them as they are"
    assert refusal(params(root), out).endswith(told)
    (root / "train/055088446.flac").write_bytes(b"?")
    assert "4 of 6 recordings have 16000 Hz" in refusal(params(root), out)
    for path in root.glob("t*/*.flac"):
        write_tone(path, 16000 if path.stem == "055088446" else RATE)
    assert "16000 Hz: audio.sample_rate" not in refusal(params(root), out)  # one alone is converted
    for path in root.glob("t*/*.flac"):
        write_tone(path, 16000)
    prepare_source(params(root), AudioParams(sample_rate=16000), out)


def test_recordings_of_another_rate_pass_where_they_get_resampled(root: Path, out: Path) -> None:
    write_tone(root / "test/000000001.flac", rate=16_000)
    prepare_source(params(root), AudioParams(sample_rate=RATE, on_other_rate="resample"), out)
    recordings = read(out / "recordings.csv").set_index("recording_id")
    assert recordings.loc["000000001", "sample_rate"] == "16000"


def test_nothing_to_train_on_is_refused_even_when_skipping(root: Path, out: Path) -> None:
    for row in TP:
        (root / f"train/{row[0]}.flac").unlink()
    message = refusal(params(root, on_bad_recording="skip"), out)
    assert (
        "none of its recordings can be used; 3 recordings were skipped, first 055088446: no sound" in message
    )


def test_root_is_relative_to_the_main_workspace(
    root: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(root.parent))
    prepare_source(params(Path("rfcx")), AUDIO, out)
    assert (out / "recordings.csv").is_file()


def own(root: Path) -> Path:
    """Turn the competition's folder into anybody's: named species, wav files, nothing optional."""
    (root / "sample_submission.csv").unlink()
    names = {"0": "coqui", "1": "bananaquit", "2": "anole"}
    for table in ("train_tp.csv", "train_fp.csv"):
        rows = read(root / table)
        rows.assign(species_id=rows["species_id"].map(names)).to_csv(root / table, index=False)
    (root / "train/aaaaaaaaa.flac").unlink()
    write_tone(root / "train/aaaaaaaaa.wav")
    return root


def test_own_recordings_need_just_two_tables(root: Path, out: Path) -> None:
    own(root)
    tables = prepare_source(params(root, "own"), AUDIO, out)
    assert tables.species == ["anole", "bananaquit", "coqui"]
    assert tables.test_ids == sorted(TEST_IDS)
    assert tables.recordings["file"].map(lambda name: Path(name).suffix).tolist().count(".wav") == 1


def test_own_recordings_without_a_test_set_are_fine(root: Path, out: Path) -> None:
    own(root)
    for path in (root / "test").iterdir():
        path.unlink()
    assert prepare_source(params(root, "own"), AUDIO, out).test_ids == []


def test_own_species_come_in_the_order_of_their_table(root: Path, out: Path) -> None:
    own(root)
    (root / "species.csv").write_text("species_id\ncoqui\nanole\nbananaquit\ntody\n")
    assert prepare_source(params(root, "own"), AUDIO, out).species == ["coqui", "anole", "bananaquit", "tody"]


def test_own_rejected_species_must_be_known(root: Path, out: Path) -> None:
    own(root)
    spoil_table("train_fp.csv", set_cell("species_id", "tody"))(root)
    assert "train_fp.csv row 3: unknown species 'tody'" in refusal(params(root, "own"), out)


def test_own_submission_must_have_the_species(root: Path, out: Path) -> None:
    own(root)
    (root / "sample_submission.csv").write_text("recording_id,sanole,scoqui,stody\n000000001,0,0,0\n")
    message = refusal(params(root, "own"), out)
    assert "columns do not match the species; missing: sbananaquit; unknown: stody" in message


def test_two_files_of_one_id_are_refused(root: Path, out: Path) -> None:
    own(root)
    write_tone(root / "train/0a4e7e350.wav")
    assert "0a4e7e350.flac and 0a4e7e350.wav are one recording_id" in refusal(params(root, "own"), out)


RENAMED = {
    "suffix": ("A.b.flac", "A.b.flac"),
    "case": ("A.b.FLAC", "a.B"),
    "unicode form": (unicodedata.normalize("NFD", "Tinamú.flac"), unicodedata.normalize("NFC", "Tinamú")),
    "unicode form of the id": (
        unicodedata.normalize("NFC", "Tinamú.flac"),
        unicodedata.normalize("NFD", "tinamú"),
    ),
}
"""Name of a file, and the id that the tables have."""


@pytest.mark.parametrize(("file", "recording_id"), RENAMED.values(), ids=RENAMED.keys())
def test_a_recording_is_found_by_an_id_that_only_it_can_mean(
    root: Path, out: Path, file: str, recording_id: str
) -> None:
    (root / "train/838227e71.flac").rename(root / "train" / file)
    spoil_table("train_tp.csv", set_cell("recording_id", recording_id))(root)
    recordings = prepare_source(params(root), AUDIO, out).recordings
    assert recordings.set_index("recording_id").at[recording_id, "file"] == file


def test_an_id_that_could_mean_two_recordings_is_refused_with_both(root: Path, out: Path) -> None:
    for name in ("Calls.flac", "calls.flac"):
        write_tone(root / "train" / name)
    if len(list((root / "train").glob("[Cc]alls.flac"))) < 2:
        pytest.skip("the file system does not distinguish case")
    spoil_table("train_tp.csv", set_cell("recording_id", "CALLS"))(root)
    assert "several that differ only in case or Unicode form: Calls.flac and calls.flac" in refusal(
        params(root), out
    )


def test_two_ids_of_one_recording_are_refused(root: Path, out: Path) -> None:
    spoil_table("train_tp.csv", set_cell("recording_id", "055088446.flac"))(root)
    assert refusal(params(root), out) == (
        "recordings '055088446' and '055088446.flac': both ids match train/055088446.flac; "
        "write one id everywhere"
    )


def test_a_message_about_a_missing_recording_shows_what_is_there(root: Path, out: Path) -> None:
    spoil_table("train_tp.csv", set_cell("recording_id", "838227e7"))(root)
    assert "no sound file train/838227e7.*; the nearest are 838227e71; 1 of 4 " in refusal(params(root), out)


def test_recordings_in_subfolders_are_known_by_name_or_by_path(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tables_of(root, out)
    for name, place in (("838227e71", "site/838227e71"), ("055088446", "Site 2/x/055088446")):
        (root / f"train/{place}").parent.mkdir(parents=True)
        (root / f"train/{name}.flac").rename(root / f"train/{place}.flac")
    assert tables_of(root, out) == plain
    made = pd.read_csv(out / "recordings.csv", dtype=str).set_index("recording_id")["file"]
    assert made["838227e71"] == "site/838227e71.flac"
    assert made["055088446"] == "Site 2/x/055088446.flac"
    data = params(root)
    for recording in read_recordings(out, recording_folders(data, out)):
        assert content_digest(recording.path) == recording.digest
    assert "left out" not in capsys.readouterr().err
    for path in root.glob("train_?p.csv"):
        path.write_text(path.read_text().replace("838227e71,", "site/838227e71.flac,"))
    tables = prepare_source(data, AUDIO, out)
    assert "site/838227e71.flac" in set(tables.recordings["recording_id"])


def tables_of(root: Path, out: Path) -> dict[str, Any]:
    return prepare_source(params(root), AUDIO, out).recordings.drop(columns="file").to_dict("list")


def test_recordings_of_one_name_in_several_folders_need_the_folder(root: Path, out: Path) -> None:
    for number, site in enumerate(("north", "south")):
        (root / "train" / site).mkdir()
        write_tone(root / "train" / site / "838227e71.flac", length_s=2.0 + number)
    (root / "train/838227e71.flac").unlink()
    assert (
        "no sound file train/838227e71.*, but several of this name: north/838227e71.flac and "
        "south/838227e71.flac; write the folder too: north/838227e71;"
    ) in refusal(params(root), out)
    for path in root.glob("train_?p.csv"):
        path.write_text(path.read_text().replace("838227e71,", "south/838227e71,"))
    made = prepare_source(params(root), AUDIO, out).recordings.set_index("recording_id")
    assert made["file"]["south/838227e71"] == "south/838227e71.flac"
    assert made["n_samples"]["south/838227e71"] == 3 * RATE


def test_test_recordings_of_one_name_in_several_folders_have_their_paths_as_ids(
    root: Path, out: Path
) -> None:
    own(root)
    first = sorted((root / "test").iterdir())[0]
    for site in ("north", "south"):
        (root / "test" / site).mkdir()
        shutil.copy(first, root / "test" / site)
    shutil.copy(first, root / "test/south/new.flac")
    before = {path.stem for path in (root / "test").iterdir() if path.is_file()}
    tables = prepare_source(params(root, "own"), AUDIO, out)
    assert set(tables.test_ids) == before | {f"north/{first.stem}", f"south/{first.stem}", "new"}
    submission = pd.read_csv(out / "sample_submission.csv", dtype=str)
    assert submission["recording_id"].tolist() == tables.test_ids


def test_linked_folders_are_followed_and_a_link_to_a_parent_ends(root: Path, out: Path) -> None:
    plain = tables_of(root, out)
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (root / "train/838227e71.flac").rename(elsewhere / "838227e71.flac")
    (root / "train/site").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root / "train")
    assert tables_of(root, out) == plain


@pytest.mark.parametrize("name", ["a\nb.flac", os.fsdecode(b"\xff.flac")])
def test_a_file_name_that_no_table_can_have_is_refused(root: Path, out: Path, name: str) -> None:
    try:
        write_tone(root / "train/055088446.flac")
        shutil.copy(root / "train/055088446.flac", root / "train" / name)
    except OSError:
        pytest.skip("nor can the file system have it")
    assert f"file name {name!r} is not printable UTF-8; rename it" in refusal(params(root), out)


def test_a_home_folder_is_found(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert prepare_source(params(Path("~") / root.name), AUDIO, out).species == ["2", "0", "1"]
    assert "~nobody-here" in refusal(params(Path("~nobody-here/x")), out.parents[1] / "again/source")


def test_an_empty_recording_is_refused(root: Path, out: Path) -> None:
    own(root)
    write_tone(root / "train/aaaaaaaaa.wav", length_s=0.0)
    assert "train/aaaaaaaaa.wav is empty" in refusal(params(root, "own"), out)


def test_a_full_disk_leaves_nothing_half_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def write_until_full(path: Path, data: bytes) -> int:
        if len(written) >= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    data = data_params("demo", None)
    message = refusal(data, out)
    assert re.fullmatch(rf"{out}: cannot be written: No space left on device; \d+ MB free", message)


def test_an_interrupted_run_does_not_hinder_the_next(root: Path, out: Path) -> None:
    draft = out.parent / ".source.part"
    draft.mkdir(parents=True)
    (draft / "species.csv").write_text("half")
    out.mkdir()
    (out / "old.csv").write_text("old")
    prepare_source(params(root), AUDIO, out)
    assert not draft.exists()
    assert not (out / "old.csv").exists()


@pytest.fixture
def elsewhere(root: Path) -> Path:
    """A folder of recordings that nobody annotated."""
    folder = root.parent / "elsewhere"
    folder.mkdir()
    for name in ("x2", "x1"):
        write_tone(folder / f"{name}.flac")
    (folder / "notes.txt").write_text("where they were made")
    return folder


def with_external(root: Path, folder: Path, on_bad_recording: str = "error") -> DataParams:
    return data_params("rfcx", str(root), on_bad_recording, str(folder))


def test_external_recordings_are_all_that_lie_in_their_folder(
    root: Path, elsewhere: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(root.parent))
    tables = prepare_source(with_external(root, Path("elsewhere")), AUDIO, out)
    external = tables.recordings[tables.recordings["subset"] == "external"]
    assert external["recording_id"].tolist() == ["x1", "x2"]
    assert external["file"].tolist() == ["x1.flac", "x2.flac"]
    assert not {"x1", "x2"} & {*tables.test_ids, *tables.train_tp["recording_id"]}
    assert tables.facts()[-1] == "2 external recordings"


def test_a_bad_external_recording_is_named_or_left_out(root: Path, elsewhere: Path, out: Path) -> None:
    write_tone(elsewhere / "x1.flac", channels=2)
    message = refusal(with_external(root, elsewhere), out)
    assert "recording x1 (external): external/x1.flac has 2 channels" in message
    assert "1 of 2 external recordings cannot be used" in message
    tables = prepare_source(with_external(root, elsewhere, "skip"), AUDIO, out)
    assert tables.skipped["recording_id"].tolist() == ["x1"]


@pytest.mark.parametrize("known", ["055088446", "000000001"])
def test_an_external_recording_of_the_other_sets_is_refused(
    root: Path, elsewhere: Path, out: Path, known: str
) -> None:
    (elsewhere / "x1.flac").rename(elsewhere / f"{known}.flac")
    message = refusal(with_external(root, elsewhere), out)
    assert f"data.external: recording {known} is also in the training or test set (1 in total)" in message


def test_a_folder_without_external_recordings_is_refused(root: Path, out: Path) -> None:
    assert "folder does not exist" in refusal(with_external(root, root / "nowhere"), out)
    (root / "empty").mkdir()
    assert "contains no recordings (.flac, .wav, " in refusal(with_external(root, root / "empty"), out)


@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".ogg", ".Mp3", ".aif", ".AIFF", ".opus", ".caf"])
def test_recordings_of_every_format_are_read(root: Path, out: Path, suffix: str) -> None:
    own(root)
    sound = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    for place in ("train/0a4e7e350", "test/000000001"):
        (root / f"{place}.flac").unlink()
        with (root / f"{place}{suffix}").open("wb") as file:
            kind = {".opus": "OGG", ".aif": "AIFF"}.get(suffix, suffix[1:].upper())
            soundfile.write(file, sound, RATE, format=kind, subtype="OPUS" if suffix == ".opus" else None)
        sound = sound[::-1]
    tables = prepare_source(params(root, "own"), AUDIO, out)
    assert tables.test_ids == sorted(TEST_IDS)
    (made,) = [
        one
        for one in read_recordings(out, recording_folders(params(root, "own"), out))
        if one.recording_id == "000000001"
    ]
    assert len(read_recording(made.path, RATE, "error")) == made.n_samples


def test_files_of_other_formats_are_counted_and_named(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own(root)
    (root / "train/site").mkdir()
    for name in ("test/b.m4a", "test/a.M4A", "test/notes.txt", "test/.DS_Store", "train/site/x.wma"):
        (root / name).write_bytes(b"?")
    assert len(prepare_source(params(root, "own"), AUDIO, out).test_ids) == 2
    assert capsys.readouterr().err.splitlines() == [
        "warning: train/: left out 1 file of other formats (.wma: 1), first 'site/x.wma'",
        "warning: test/: left out 3 files of other formats (.m4a: 2, .txt: 1), first 'a.M4A'",
    ]


def test_a_test_set_of_other_formats_alone_is_refused(root: Path, out: Path) -> None:
    own(root)
    for path in (root / "test").iterdir():
        path.rename(path.with_suffix(".m4a"))
    message = refusal(params(root, "own"), out)
    assert (
        "test/: left out 2 files of other formats (.m4a: 2), first '000000001.m4a'; that leaves no test"
        in message
    )
    assert "formats are .flac, .wav, .ogg, .mp3, .aif, .aiff, " in message


def test_an_annotated_recording_of_another_format_is_named(root: Path, out: Path) -> None:
    (root / "train/0a4e7e350.flac").rename(root / "train/0a4e7e350.wma")
    message = refusal(params(root), out)
    assert (
        "no sound file train/0a4e7e350.*, but there is 0a4e7e350.wma; formats that can be read are .fl"
        in message
    )


def test_copies_are_named_within_training_and_between_sets(
    root: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(root / "train/0a4e7e350.flac", root / "train/838227e71.flac")
    shutil.copy(root / "train/0a4e7e350.flac", root / "test/000000001.flac")
    tables = prepare_source(params(root), AUDIO, out)
    assert tables.facts()[-1] == "2 of equal content as another"
    assert capsys.readouterr().err.splitlines() == [
        "warning: train: 1 recording of equal content as another: 838227e71 = 0a4e7e350; they are kept in "
        "one fold",
        "warning: test: 1 recording of equal content as a training recording: 000000001 = 0a4e7e350; scores "
        "of them do not show what the networks find in new recordings",
    ]


def test_an_external_copy_of_a_training_recording_is_refused(root: Path, elsewhere: Path, out: Path) -> None:
    shutil.copy(root / "test/000000001.flac", elsewhere / "x1.flac")
    prepare_source(with_external(root, elsewhere), AUDIO, out)
    shutil.copy(root / "train/0a4e7e350.flac", elsewhere / "x1.flac")
    message = refusal(with_external(root, elsewhere), out.parents[1] / "again/source")
    assert "whose pseudo-labels would leak into CV: x1 = 0a4e7e350; remove them" in message


def test_the_same_recordings_at_another_place_give_the_same_tables(root: Path, out: Path) -> None:
    prepare_source(params(root), AUDIO, out)
    moved = shutil.copytree(root, root.parent / "moved")
    prepare_source(params(moved), AUDIO, out.with_name("again"))
    assert (out / "recordings.csv").read_bytes() == (out.with_name("again") / "recordings.csv").read_bytes()


@pytest.mark.parametrize(("per_s", "unit"), [(1000, "milliseconds"), (RATE, "samples")])
def test_times_of_another_unit_are_refused_with_its_name(
    root: Path, out: Path, per_s: int, unit: str
) -> None:
    rows = [(*row[:3], row[3] * per_s, row[4], row[5] * per_s, row[6]) for row in TP]
    write_rows(root / "train_tp.csv", rows)
    message = refusal(params(root), out)
    assert f"(3 in total); as {unit} all times of the table would fit, but they must be in seconds" in message


def test_one_box_beyond_the_end_is_no_matter_of_units(root: Path, out: Path) -> None:
    write_rows(root / "train_tp.csv", [*TP[:2], (*TP[2][:5], 5.0, TP[2][6])])
    assert refusal(params(root), out).endswith("at 2 s (1 in total)")
