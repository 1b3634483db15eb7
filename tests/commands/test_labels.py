"""`callboard labels`: what it prints, and what it passes on."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from callboard.cli import dispatch
from callboard.commands.labels import EXPORTED, IMPORTED
from callboard.core.errors import UserError
from callboard.data.label_export import EXPORT_FORMATS
from callboard.data.label_formats.registry import LABEL_FORMATS

RAVEN = """\
Selection,View,Begin Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Call
1,Waveform 1,1.5,2.5,,,Wren
1,Spectrogram 1,1.5,2.5,500,1500,Wren
2,Spectrogram 1,3.0,4.0,500,900,Robin
""".replace(",", "\t")
SCORES = "recording,name,start_time,end_time,score\nb,Wren,1,4,0.9\nx,Owl,1,4,0.9\n"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with recordings a and b and two tables, which is the current folder."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "recordings/train").mkdir(parents=True)
    for name in "ab":
        soundfile.write(tmp_path / f"recordings/train/{name}.wav", np.sin(np.arange(40000) / 3) / 9, 8000)
    (tmp_path / "a.Table.1.selections.txt").write_text(RAVEN)
    (tmp_path / "scores.csv").write_text(SCORES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: str) -> None:
    dispatch(["labels", *words.split()])


def rejected(folder: Path) -> list[str]:
    return (folder / "recordings/train_fp.csv").read_text().splitlines()[1:]


def test_the_parser_has_the_formats_that_there_are() -> None:
    assert sorted(IMPORTED) == sorted(LABEL_FORMATS)
    assert EXPORTED == EXPORT_FORMATS


def test_import_prints_species_verdicts_and_reasons(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("import a.Table.1.selections.txt --column Call --to recordings --from raven")
    capsys.readouterr()
    run("import scores.csv --verdict absent --band 500 900 --to recordings --add")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "| species | present | absent | open |",
        "| ------- | ------: | -----: | ---: |",
        "| Owl     |       0 |      1 |    0 |",
        "| Wren    |       0 |      1 |    0 |",
        "| all     |       0 |      2 |    0 |",
        "",
        "read: 1 file (1 hawkears), 2 recordings, 0 without a label",
        f"left out: 1 label of recordings that are not in {inside}/recordings/train",
        "changed: 1 label without a frequency band: 500–900 Hz",
        f"written: 0 TP rows and 1 FP row to {inside}/recordings",
    ]
    assert err == f"warning: 1 recording not in {inside}/recordings/train: x\n"
    assert rejected(inside) == ["b,Wren,1,1.0,500.0,4.0,900.0"]


def test_a_complete_review_is_said_so(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "b.txt").write_text("1\t2\tWren\n")
    words = "import a.Table.1.selections.txt b.txt --to recordings --complete"
    with pytest.raises(UserError, match="which column gives the species"):
        run(words)
    (inside / "a.Table.1.selections.txt").write_text(RAVEN.replace("Call", "Species"))
    run(words)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "not a label: 1 further views of a selection",
        "changed: 1 label without a frequency band: 0 Hz to half the sample rate",
        f"written: 3 TP rows and 0 FP rows to {inside}/recordings",
        "written: 1 FP row over a whole recording, by --complete",
    ]
    assert rejected(inside) == ["b,Robin,1,0.0,0.0,5.0,4000.0"]


def test_export_says_how_much_it_wrote(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("import a.Table.1.selections.txt --column Call --to recordings")
    capsys.readouterr()
    run("export recordings --to csv --output out")
    assert capsys.readouterr().out == f"labels: 2 labels in 1 file written to {inside}/out\n"
    assert len((inside / "out/labels.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("band", ["900 500", "-1 500", "nan 500"])
def test_a_band_is_two_frequencies_in_order(band: str) -> None:
    with pytest.raises(UserError, match=r"--band .*: must be two frequencies in Hz, the lower one first"):
        run(f"import scores.csv --to recordings --band {band}")
