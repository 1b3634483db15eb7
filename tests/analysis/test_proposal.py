"""Settings that `callboard init` proposes: by hand for one folder, and by law for folders of every kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from callboard.analysis.proposal.machine import TrainingTime
from callboard.analysis.proposal.settings import SMALL, Proposal, Recipe, large_recipe, propose
from callboard.analysis.proposal.survey import Survey, survey_folder
from callboard.core.errors import UserError
from callboard.experiments.presets import with_values
from callboard.experiments.table import read_experiments
from callboard.features.log_mel import mel_filterbank
from callboard.params.base import validate
from callboard.params.defaults import read_full_tree
from callboard.params.experiment import Experiment
from callboard.reports.proposal import proposal_text
from tests.toy_folder import make_folder, write_boxes, write_noise

ROOT = Path(__file__).parents[2]
TREE = read_full_tree(ROOT / "tests/params.yaml")
TABLE = read_experiments(ROOT / "experiments.yaml")


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def proposed(folder: Path, recipe: Recipe = SMALL) -> Proposal:
    return propose(survey_folder(folder, str(folder)), TREE, recipe)


def text_of(proposal: Proposal) -> str:
    return proposal_text(proposal, TrainingTime("a processor", 0.05, 60.0))


def test_a_folder_by_hand(tmp_path: Path) -> None:
    """Ten recordings at 48 kHz and two at 32; boxes of 1 s at 2 to 9 kHz.

    The band ends a tenth above, at 9.9 kHz, which 24 kHz carry, half of 48. 1.25 s are 78 frames of
    16 ms, so three times 32, of 512. Of 12 recordings 10 train a fold, and the one with a rejected
    box once more: 11 clips, three steps in batches of 4, 84 times for 250 steps.
    """
    folder = make_folder(tmp_path)
    for number in (3, 4):
        write_noise(folder / f"train/rec{number}.wav", 8.0, 32000)
    values = proposed(folder).values
    expected = {
        "data.source": "own",
        "data.root": str(folder),
        "data.on_bad_recording": "error",
        "audio.sample_rate": 24000,
        "audio.on_other_rate": "resample",
        "features.f_min": 1810.0,
        "features.f_max": 9900.0,
        "features.hop_length": 384,
        "features.n_fft": 1024,
        "features.n_mels": 64,
        "scale.window": 0.1875,
        "clip.n_frames": 96,
        "clip.offsets": [6, 12, 24, 48],
        "predict.overlap_frames": 10,
        "augment.time_mask": 15,
        "pseudo.n_frames": 36,
        "split.folds": [0, 1, 2, 3, 4],
        "split.rare_species": "error",
        "train.batch_size": 4,
        "train.epochs": 84,
        "sched.t_max": 84.0,
    }
    assert {key: values[key] for key in expected} == expected


def short_calls(folder: Path) -> None:
    """Of bats, at 250 kHz: 10 ms."""
    make_folder(folder, length_s=1.0, rate=250_000, box=(0.5, 0.51, 40_000.0, 60_000.0))


def whole_recordings(folder: Path) -> None:
    """Labelled as a whole and without a band."""
    make_folder(folder, box=(0.0, 8.0, 0.0, 24_000.0))


def low_rate(folder: Path) -> None:
    make_folder(folder, rate=8000, box=(1.0, 3.0, 50.0, 3990.0))


def long_calls(folder: Path) -> None:
    make_folder(folder, length_s=30.0, rate=16_000, box=(1.0, 15.0, 300.0, 3000.0))


def short_recordings(folder: Path) -> None:
    make_folder(folder, length_s=0.5, rate=22_050, box=(0.1, 0.4, 300.0, 3000.0))


def two_recordings(folder: Path) -> None:
    make_folder(folder, n_recordings=2)


def bad_recordings(folder: Path) -> None:
    make_folder(folder)
    (folder / "train/rec3.wav").write_bytes(b"no sound")


def sites(folder: Path) -> None:
    make_folder(folder, name="S{0}_20240501_120000")


KINDS: list[Callable[[Path], Any]] = [
    *(make_folder, short_calls, whole_recordings, low_rate, long_calls),
    *(short_recordings, two_recordings, bad_recordings, sites),
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("size", ["small", "large"])
def test_what_is_proposed_is_the_row_and_valid_whatever_the_folder(
    make: Callable[[Path], Any], size: str, tmp_path: Path
) -> None:
    make(tmp_path)
    recipe = SMALL if size == "small" else large_recipe()
    proposal = proposed(tmp_path, recipe)
    experiment = validate(Experiment, proposal.tree, "proposed")
    assert TABLE.overrides("exp0051", proposal.tree) == []
    for name in ("stage1", "stage3", "exp0059"):
        sized = {key: value for key, value in TABLE.resolve(name, proposal.tree).items() if "clip." in key}
        assert 0 < max(sized["clip.offsets"]) < sized["clip.n_frames"]
    mel_filterbank(experiment.audio.sample_rate, experiment.features)  # refuses an empty row
    assert experiment.features.f_max <= proposal.survey.recordings["nyquist_hz"].min()
    assert all(setting.reason for setting in proposal.settings)
    assert "training: about 5 min for 5 folds" in text_of(proposal) or make is two_recordings


def test_short_calls_have_frames_of_their_own(tmp_path: Path) -> None:
    """16 frames in a box of 10 ms take a hop of 0.625 ms; the shortest allowed is 1 ms."""
    short_calls(tmp_path)
    features = proposed(tmp_path).tree["features"]
    assert (features["hop_length"], features["f_max"]) == (250, 66_000.0)


def test_a_recording_that_cannot_be_used_is_left_out_and_named(tmp_path: Path) -> None:
    bad_recordings(tmp_path)
    proposal = proposed(tmp_path)
    assert proposal.values["data.on_bad_recording"] == "skip"
    assert "check: 1 recording left out, first rec3: train/rec3.wav is unreadable" in text_of(proposal)


@pytest.mark.parametrize(
    ("n_of_b", "folds", "rule"), [(1, 5, "allow"), (2, 5, "allow"), (3, 3, "error"), (4, 4, "error")]
)
def test_folds_follow_the_rarest_species(n_of_b: int, folds: int, rule: str, tmp_path: Path) -> None:
    make_folder(tmp_path)
    species = ["a"] * (12 - n_of_b) + ["b"] * n_of_b
    write_boxes(
        tmp_path, "train_tp", [(f"rec{k}", name, 1.0, 2.0, 2e3, 9e3) for k, name in enumerate(species)]
    )
    values = proposed(tmp_path).values
    assert (len(values["split.folds"]), values["split.rare_species"]) == (folds, rule)
    assert len(values["pseudo.held_out.pairs"]) == folds * (folds - 1) // 2


def test_copies_of_a_recording_are_one(tmp_path: Path) -> None:
    """Species b is in six recordings, of which four have the same content."""
    make_folder(tmp_path)
    for number in (3, 5, 7):
        (tmp_path / f"train/rec{number}.wav").write_bytes((tmp_path / "train/rec1.wav").read_bytes())
    proposal = proposed(tmp_path)
    assert len(proposal.values["split.folds"]) == 3
    assert proposal.survey.n_tp_recordings == 9


def test_boxes_that_do_not_fit_are_counted_with_their_share(tmp_path: Path) -> None:
    """Of 25 boxes, one lasts 7 s in windows of 1.5 s, another is far above the band of the others."""
    make_folder(tmp_path, n_recordings=24)
    table = pd.read_csv(tmp_path / "train_tp.csv")
    table.loc[0, ["t_min", "t_max"]] = 0.5, 7.5
    table.loc[1, ["f_min", "f_max"]] = 12_000, 20_000
    table.to_csv(tmp_path / "train_tp.csv", index=False)
    proposal = proposed(tmp_path)
    assert (proposal.n_longer_than_window, proposal.tree["clip"]["n_frames"]) == (1, 96)
    assert "1 of 25 boxes (4.0%) are longer than a window" in text_of(proposal)
    assert f"boxes ({proposal.n_beyond_band / 25:.1%}) are not entirely inside" in text_of(proposal)
    assert proposal.n_beyond_band == 1


def test_sites_by_the_names_of_recordings_or_a_table_share_folds(tmp_path: Path) -> None:
    sites(tmp_path)
    proposal = proposed(tmp_path)
    assert "sites: 12 by the names of recordings: S0, S1, S10" in text_of(proposal)
    assert proposal.values["split.group"] == "SITE_YYYYMMDD_HHMMSS"
    rows = [
        f"{path.stem},{'abcdefg'[number % 7]}" for number, path in enumerate((tmp_path / "train").iterdir())
    ]
    (tmp_path / "recordings.csv").write_text("\n".join(["recording_id,site", *rows, ""]))
    proposal = proposed(tmp_path)
    assert proposal.values["split.group"] == "site"
    assert "sites: 7 by the column site of recordings.csv: a, b, c, d, e" in text_of(proposal)
    (tmp_path / "recordings.csv").write_text("recording_id,site\n")
    assert proposed(tmp_path).values["split.group"] == "SITE_YYYYMMDD_HHMMSS"


def test_recordings_of_several_channels_are_taken_by_their_mean(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert proposed(tmp_path).values["audio.channel"] is None
    path = tmp_path / "train/rec3.wav"
    mono, rate = soundfile.read(path)
    soundfile.write(path, np.stack([mono, 0.5 * mono], axis=1), rate)
    proposal = proposed(tmp_path)
    assert proposal.values["audio.channel"] == "mean"
    assert "1 recording with several channels" in text_of(proposal)
    assert proposal.values["data.on_bad_recording"] == "error"


def test_species_are_listed_with_their_boxes(tmp_path: Path) -> None:
    make_folder(tmp_path, n_recordings=4)
    text = text_of(proposed(tmp_path))
    assert "| a       |          2 |       2 |      0 |\n| b       |          2 |       2 |      1 |" in text
    assert "check: 2 species with fewer than 3 recordings: a, b" in text


def test_a_folder_without_test_recordings_says_so(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "test/later.wav").unlink()
    assert "check: no test recordings, so the submission will be empty" in text_of(proposed(tmp_path))


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (".", "folder does not exist; give the folder of train/, test/ and train_tp.csv"),
        ("train_tp.csv", r"no train_tp.csv; `callboard labels import TABLES --to .*` writes both tables"),
        ("train_fp.csv", r"no train_fp.csv; `callboard labels import"),
        ("train", r"train: no recordings; put those that the tables name there, as .flac, .wav"),
    ],
)
def test_what_is_missing_is_one_sentence_that_says_what_to_do(
    gone: str, message: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "recordings")
    (folder / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=message):
        survey_folder(folder, str(folder))


def test_calls_in_one_recording_only_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    write_boxes(tmp_path, "train_tp", [("rec0", "a", 1.0, 2.0, 2e3, 9e3)])
    write_boxes(tmp_path, "train_fp", [])
    with pytest.raises(UserError, match="calls are in one recording only; cross-validation needs"):
        survey_folder(tmp_path, str(tmp_path))


def test_a_folder_of_stereo_recordings_alone_is_taken_by_their_mean(tmp_path: Path) -> None:
    make_folder(tmp_path, length_s=2.0, rate=16000, box=(0.5, 1.0, 1000.0, 5000.0))
    for path in sorted(tmp_path.glob("t*/*.wav")):
        mono, rate = soundfile.read(path)
        soundfile.write(path, np.stack([mono, 0.5 * mono], axis=1), rate)
    proposal = proposed(tmp_path)
    assert (proposal.values["audio.channel"], proposal.survey.n_several_channels) == ("mean", 13)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"rec{k},{'abcdef'[k % 6]}" for k in range(11)], "no site for 1 training recording: rec11"),
        ([f"rec{k},{'abcdeE'[k % 6]}" for k in range(12)], "differ only in case, blanks or Unicode form"),
    ],
)
def test_a_table_with_unclear_sites_is_refused_not_passed_over(
    rows: list[str], message: str, tmp_path: Path
) -> None:
    make_folder(tmp_path, length_s=2.0, rate=16000, box=(0.5, 1.0, 1000.0, 5000.0))
    (tmp_path / "recordings.csv").write_text("\n".join(["recording_id,site", *rows, ""]))
    with pytest.raises(UserError, match=message):
        proposed(tmp_path)


def test_sites_are_counted_as_split_will_find_them(tmp_path: Path) -> None:
    """A recording copied to another site joins the two; a site without calls is in no count."""
    make_folder(tmp_path, length_s=2.0, name="S{0}_20240501_120000")
    ids = [f"S{number}_20240501_120000" for number in range(12)]
    for path in [tmp_path / f"train/{name}.wav" for name in ids[1:4]]:
        path.write_bytes((tmp_path / f"train/{ids[0]}.wav").read_bytes())
    assert "share a fold" in text_of(proposed(tmp_path))
    assert proposed(tmp_path).survey.sites.nunique() == 9
    write_boxes(tmp_path, "train_tp", [(name, s, 0.5, 1.0, 1e3, 5e3) for name in ids[:6] for s in "ab"])
    write_boxes(tmp_path, "train_fp", [(name, "a", 1.2, 1.5, 1e3, 5e3) for name in ids])
    assert proposed(tmp_path).values["split.group"] == "recording"
    assert "each recording alone: calls are at 3 sites only" in text_of(proposed(tmp_path))


def test_a_group_of_an_earlier_folder_does_not_stay(tmp_path: Path) -> None:
    survey = survey_folder(make_folder(tmp_path), str(tmp_path))
    proposal = propose(survey, with_values(TREE, {"split.group": "recordist"}), SMALL)
    assert proposal.values["split.group"] == "recording"
    assert "sites are not known" in text_of(proposal)


def test_the_reason_names_the_limit_that_decides(tmp_path: Path) -> None:
    """Boxes of 10 ms have 10 frames of 1 ms, the shortest hop, and windows of 64 frames, the fewest."""
    short_calls(tmp_path)
    text = text_of(proposed(tmp_path))
    assert "1 ms: 10 frames for a box of 0.01 s" in text
    assert "64 frames: the shortest window, for boxes of up to 0.01 s" in text


def test_the_proposed_row_is_no_other_row_whatever_the_number_of_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factor that rounds the FP recordings of two rows to one number would give the result two names."""
    survey = survey_folder(make_folder(tmp_path), str(tmp_path))
    for n_recordings in (2, 5, 12, 20, 40, 100, 400, 906):
        monkeypatch.setattr(Survey, "n_tp_recordings", n_recordings)
        tree = propose(survey, TREE, SMALL).tree
        rows = {name: TABLE.resolve(name, tree) for name, row in TABLE.rows.items() if not row.is_preset}
        assert [name for name in rows if rows[name] == rows["exp0051"]] == ["exp0051"]
