"""What people get wrong, and what they are told: one sentence, status 1, and nothing half done behind it."""

import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from ruamel.yaml import YAML

from callboard.core import console as terminal
from callboard.params.base import read_tree
from stages import check, crop, prepare, split
from tests.conftest import merge

ROOT = Path(__file__).parent.parent.parent
RATE = 8000
LENGTH_S = 2.0
TRAIN = ["055088446", "1e5", "838227e71", "c0ffee"]
TEST = ["000123", "test2"]
PARAMS: dict[str, Any] = {
    "data": {"source": "rfcx", "root": "field"},
    "audio": {"sample_rate": RATE},
    "features": {"n_fft": 256, "hop_length": 80, "n_mels": 16, "f_max": 3900.0},
    "augment": {"freq_mask": 8},
    "split": {"folds": [0, 1]},
}
SPLIT = ["--recordings", "data/source/recordings.csv", "--metadata", "data/metadata.csv"]
STAGES: dict[str, tuple[Callable[[list[str]], None], list[str]]] = {
    "check": (check.main, ["params.yaml", ".check/params.ok"]),
    "prepare": (prepare.main, ["data/source", "data/metadata.csv"]),
    "crop": (crop.main, ["data/source", "data/mel", "data/clips.csv"]),
    "split": (split.main, [*SPLIT, "data/clips.csv", "data/folds.csv"]),
}


def noise(seed: int, seconds: float = LENGTH_S) -> NDArray[np.float64]:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(RATE * seconds))


@dataclass
class Field:
    """A sound folder in the competition's layout with its params.yaml, to be spoiled before it is written."""

    root: Path
    params: dict[str, Any] = field(
        default_factory=lambda: {key: dict(value) for key, value in PARAMS.items()}
    )
    file_limit: int | None = None
    """Bytes that a file may grow to, as on a full disk."""

    def __post_init__(self) -> None:
        for subset, names in (("train", TRAIN), ("test", TEST)):
            (self.root / "field" / subset).mkdir(parents=True)
            for name in names:
                self.record(f"{subset}/{name}.flac", noise([*TRAIN, *TEST].index(name)))
        header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
        tp = [f"{name},{species},1,0.5,500,1.0,2000\n" for name in TRAIN for species in (0, 1)]
        self.write("train_tp.csv", header + "".join(tp))
        self.write("train_fp.csv", header + f"{TRAIN[0]},1,1,1.2,500,1.5,2000\n")
        self.write(
            "sample_submission.csv", "recording_id,s0,s1\n" + "".join(f"{name},0.5,0.5\n" for name in TEST)
        )

    def record(self, name: str, waveform: NDArray[np.float64], rate: int = RATE) -> None:
        soundfile.write(self.root / "field" / name, waveform, rate)

    def write(self, name: str, text: str) -> None:
        (self.root / "field" / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / "field" / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))

    def change(self, tree: dict[str, Any]) -> None:
        merge(self.params, tree)

    def truncate(self, name: str) -> None:
        path = self.root / "field" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def run(self) -> tuple[str, Any] | None:
        """Run the stages in order; the one that stops, and its exit status."""
        tree = read_tree(ROOT / "tests/params.yaml")
        merge(tree, self.params)
        YAML().dump(tree, self.root / "params.yaml")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for name, (main, argv) in STAGES.items():
            if self.file_limit and name == "crop":
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_limit, hard))
            try:
                terminal.run_guarded(lambda main=main, argv=argv: main(argv))  # type: ignore[misc]
            except SystemExit as exit_:
                return name, exit_.code
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Field:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Field(tmp_path)


Spoil = Callable[[Field], Any]

MISTAKES: dict[str, tuple[str, Spoil, str]] = {
    "an unknown parameter": (
        "check",
        lambda f: f.change({"loss": {"negmask": "seq"}}),
        "loss.negmask: unknown parameter",
    ),
    "a parameter of the wrong type": (
        "check",
        lambda f: f.change({"train": {"epochs": "abc"}}),
        "train.epochs: Input should be a valid integer, found 'abc'",
    ),
    "a mask on a term that is off": (
        "check",
        lambda f: f.change({"loss": {"neg_mask": "seq", "segment": {"weight": 0.0}}}),
        "neg_mask seq acts on the segment term, but segment.weight is 0",
    ),
    "a new section": ("check", lambda f: f.change({"foo": {"bar": 1}}), "foo: unknown parameter"),
    "a round too many": (
        "check",
        lambda f: f.change({"pseudo": {"rounds": 4}}),
        "pseudo.rounds: 4 must be at least 0 and at most 3",
    ),
    "no data folder": ("prepare", lambda f: f.change({"data": {"root": "nowhere"}}), "folder does not exist"),
    "a missing column": (
        "prepare",
        lambda f: f.edit("train_tp.csv", "t_max", "t_end"),
        "train_tp.csv: missing column(s) t_max; found recording_id,",
    ),
    "a box that ends before it begins": (
        "prepare",
        lambda f: f.edit("train_tp.csv", "1e5,0,1,0.5,500,1.0", "1e5,0,1,0.5,500,0.4"),
        "train_tp.csv row 4: t_max 0.4 <= t_min 0.5",
    ),
    "a time that is no number": (
        "prepare",
        lambda f: f.edit("train_fp.csv", "1.2,500", "soon,500"),
        "train_fp.csv row 2: t_min 'soon' is not a finite number",
    ),
    "a species that is not in the submission": (
        "prepare",
        lambda f: f.edit("train_fp.csv", f"{TRAIN[0]},1", f"{TRAIN[0]},7"),
        "train_fp.csv row 2: unknown species '7'; known species: 0, 1",
    ),
    "a test recording listed twice": (
        "prepare",
        lambda f: f.edit("sample_submission.csv", "test2,0.5,0.5\n", "test2,0.5,0.5\ntest2,0.5,0.5\n"),
        "sample_submission.csv row 4: recording_id test2 is repeated",
    ),
    "a recording in train and in test": (
        "prepare",
        lambda f: f.edit("sample_submission.csv", "test2", "c0ffee"),
        "recording c0ffee: annotated for training and in the test set",
    ),
    "an id that a spreadsheet took for a number": (
        "prepare",
        lambda f: f.write(
            "train_tp.csv", (f.root / "field/train_tp.csv").read_text().replace("055088446", "55088446")
        ),
        "the id lost its leading zeros",
    ),
    "a missing recording": (
        "prepare",
        lambda f: (f.root / "field/train/838227e71.flac").unlink(),
        "1 of 4 train recordings and 0 of 2 test recordings cannot be used",
    ),
    "an empty tp table": (
        "prepare",
        lambda f: f.write("train_tp.csv", "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"),
        "train_tp.csv: no rows; at least one confirmed annotation is needed",
    ),
    "another sample rate": (
        "prepare",
        lambda f: f.record("train/c0ffee.flac", noise(1), rate=2 * RATE),
        "sample rate 16000 Hz",
    ),
    "a stereo recording": (
        "prepare",
        lambda f: f.record("train/c0ffee.flac", np.stack([noise(1), noise(2)], axis=1)),
        "2 channels",
    ),
    "a recording that is no audio": (
        "prepare",
        lambda f: f.write("train/c0ffee.flac", "not audio"),
        "train/c0ffee.flac is unreadable",
    ),
    "a truncated recording": ("crop", lambda f: f.truncate("train/c0ffee.flac"), "recording c0ffee: "),
    "a silent recording": (
        "crop",
        lambda f: f.record("train/c0ffee.flac", np.zeros(int(RATE * LENGTH_S))),
        "recording c0ffee: silent",
    ),
    "a recording with NaN": (
        "crop",
        lambda f: with_nan(f),
        "recording c0ffee: holds NaN or infinite samples",
    ),
    "a full disk": (
        "crop",
        lambda f: setattr(f, "file_limit", 2000),
        ".npy: cannot be written: File too large; ",
    ),
    "a species with fewer recordings than folds": (
        "split",
        lambda f: f.change({"split": {"folds": [0, 1, 2, 3, 4]}}),
        "split.folds: 5 folds need at least 5 TP recordings, found 4",
    ),
    "a species that some folds would lack": (
        "split",
        lambda f: [f.edit("train_tp.csv", f"{name},1,1,0.5,500,1.0,2000\n", "") for name in TRAIN[1:]],
        "species with TP rows in fewer recordings than the 2 folds",
    ),
}


def with_nan(folder: Field) -> None:
    folder.change({"data": {"source": "own"}})
    (folder.root / "field/train/c0ffee.flac").unlink()
    waveform = noise(1)
    waveform[100] = np.nan
    soundfile.write(folder.root / "field/train/c0ffee.wav", waveform, RATE, subtype="FLOAT")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_stops_its_stage_with_one_sentence(
    folder: Field, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, spoil, words = MISTAKES[mistake]
    spoil(folder)
    assert folder.run() == (stage, 1)
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert words in message

    assert not Path(STAGES[stage][1][-1]).exists()


def test_without_a_mistake_ids_that_look_like_numbers_stay_as_they_are(folder: Field) -> None:
    assert folder.run() is None
    folds = Path("data/folds.csv").read_text().splitlines()[1:]
    assert sorted(line.split(",")[0] for line in folds) == TRAIN
    sample = Path("data/source/sample_submission.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in sample] == TEST
