import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from callboard import cli
from callboard.analysis.adversarial import validation as adversarial
from callboard.analysis.adversarial.pieces import Pieces, mel_bands, read_pieces
from callboard.analysis.adversarial.validation import (
    Settings,
    auc_by_fold,
    compare_sets,
    deal_folds,
    out_of_fold,
    resampled_auc,
)
from callboard.core.errors import UserError
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache

N_MELS = 8
SHIFTED = slice(3, 5)
"""Mel rows that are louder in the test set of a workspace with a shift."""
SETTINGS = Settings(n_folds=3, n_repeats=1, seed=0, in_decibels=False)
PARAMS = f"""
audio: {{sample_rate: 1000, on_other_rate: error}}
features: {{kind: log_mel, embedding_hop_s: 0.5,
  n_fft: 256, hop_length: 100, n_mels: {N_MELS}, f_min: 0.0, f_max: 480.0, top_db: 80.0}}
"""
"""Ten frames a second: pieces of 50 frames."""


def write_set(folder: Path, subset: str, n_recordings: int, *, louder: int = 0, db_max: float = 0.0) -> None:
    rng = np.random.default_rng([n_recordings, louder])
    recordings = []
    for number in range(n_recordings):
        own = rng.integers(0, 40, N_MELS)
        frames = (80 + own + rng.integers(0, 60, (120, N_MELS))).astype(np.uint8)
        frames[:, SHIFTED] += np.uint8(louder)
        recordings.append(EncodedRecording(f"{subset}{number:03}", frames, db_max - 80.0, db_max))
    write_cache(folder / subset, recordings, N_MELS)


def pieces_of(folder: Path, *, in_decibels: bool = False) -> Pieces:
    caches = [MelCache.open(folder / subset) for subset in ("train", "test")]
    return read_pieces(caches[0], caches[1], piece_frames=50, in_decibels=in_decibels)


def noise(n_train: int = 60, n_test: int = 30, n_pieces: int = 2) -> Pieces:
    """Train and test from one distribution."""
    rng = np.random.default_rng(3)
    n_recordings = n_train + n_test
    return Pieces(
        recording_ids=[f"r{number}" for number in range(n_recordings)],
        is_test=np.arange(n_recordings) >= n_train,
        recording=np.repeat(np.arange(n_recordings), n_pieces),
        statistics=rng.standard_normal((n_recordings * n_pieces, 8, 4)).astype(np.float32),
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where train and test differ in two mel rows; the current folder."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(PARAMS)
    write_set(tmp_path / "data/mel", "train", 40)
    write_set(tmp_path / "data/mel", "test", 20, louder=40)
    monkeypatch.setattr(adversarial, "N_HALVINGS", 5)  # quicker
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str) -> None:
    cli.dispatch(["adversarial", "--folds", "3", "--repeats", "1", *options])


@pytest.mark.slow
def test_a_planted_shift_is_found_in_its_band_and_drawn(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    summary = json.loads((workspace / "adversarial/summary.json").read_text())
    assert summary["auc"] > 0.95
    assert summary["auc_low"] > 0.9
    assert summary["is_told_apart"]
    assert (summary["n_train"], summary["n_test"], summary["n_pieces"]) == (40, 20, 120)

    bands = pd.read_csv(workspace / "adversarial/bands.csv")
    assert bands["f_low_hz"].iloc[0] == 0
    assert bands["f_high_hz"].iloc[-1] == 480
    assert (bands["f_low_hz"].to_numpy()[1:] == bands["f_high_hz"].to_numpy()[:-1]).all()
    assert set(bands["auc"].nlargest(2).index) == set(range(N_MELS)[SHIFTED])
    louder = bands["level_test"] - bands["level_train"]
    np.testing.assert_allclose(louder[SHIFTED], 40 / 255, atol=0.05)
    assert bands["auc"].drop(range(N_MELS)[SHIFTED]).mean() == pytest.approx(0.5, abs=0.1)

    recordings = pd.read_csv(workspace / "adversarial/recordings.csv")
    assert sorted(recordings["recording_id"]) == [f"test{k:03}" for k in range(20)] + [
        f"train{k:03}" for k in range(40)
    ]
    assert recordings["score"].is_monotonic_decreasing
    assert recordings["subset"].iloc[0] == "test"
    printed = capsys.readouterr().out
    loudest = bands.loc[bands["auc"].idxmax()]
    assert f"range): {loudest.f_low_hz:.0f}–{loudest.f_high_hz:.0f} Hz" in printed
    assert f"test recordings least like train: {recordings['recording_id'].iloc[0]}" in printed
    assert (workspace / "adversarial/adversarial.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_sets_that_do_not_differ_are_not_told_apart_and_other_files_in_the_folder_stay(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(workspace / "data/mel", "test", 20)
    (workspace / "elsewhere").mkdir()
    (workspace / "elsewhere/mine.txt").write_text("keep")
    run("--output", "elsewhere")
    assert (workspace / "elsewhere/mine.txt").read_text() == "keep"
    summary = json.loads((workspace / "elsewhere/summary.json").read_text())
    assert summary["auc"] == pytest.approx(0.5, abs=0.2)
    assert not summary["is_told_apart"]
    printed = capsys.readouterr().out
    assert "test differs from train no more than halves of train differ from each other" in printed
    assert "bands" not in printed.replace("bands.csv", "")


@pytest.mark.slow
def test_train_against_train_is_about_one_half() -> None:
    comparison = compare_sets(noise(n_train=120), mel_bands(8), SETTINGS)
    assert comparison.null_auc.shape == (20, 9)
    assert comparison.null_auc[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    assert comparison.null_auc.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_the_halves_of_train_do_not_see_the_test_set() -> None:
    pieces = noise()
    shifted = noise()
    shifted.statistics[shifted.is_test[shifted.recording]] += 5
    one, other = (compare_sets(both, [], SETTINGS) for both in (pieces, shifted))
    assert other.auc[0] == 1
    assert one.auc[0] < 0.8
    np.testing.assert_array_equal(one.null_auc, other.null_auc)


def test_no_recording_is_on_both_sides() -> None:
    """Pieces of a recording are all but equal here: who has seen one knows the label of the others."""
    n_recordings, n_pieces = 60, 20
    rng = np.random.default_rng(1)
    recording = np.repeat(np.arange(n_recordings), n_pieces)
    fingerprints = rng.standard_normal((n_recordings, 60))
    features = (fingerprints[recording] + 0.01 * rng.standard_normal((len(recording), 60))).astype(np.float32)
    is_second = rng.permutation(np.arange(n_recordings) < 30)

    fold = deal_folds(is_second, 5, rng)
    grouped = auc_by_fold(out_of_fold(features, recording, is_second, fold), is_second, fold)
    assert np.mean(grouped) == pytest.approx(0.5, abs=0.15)

    alone = np.arange(len(recording))
    piece_fold = deal_folds(is_second[recording], 5, rng)
    ungrouped = out_of_fold(features, alone, is_second[recording], piece_fold)
    assert roc_auc_score(is_second[recording], ungrouped) > 0.95


def test_the_score_is_the_log_odds_were_the_sets_of_one_size() -> None:
    """Of normal densities with a common covariance; three in four are of the first set."""
    rng = np.random.default_rng(0)
    alone = np.arange(40_000)
    is_second = alone % 4 == 0
    mixed = np.array([[1, 0.8, 0], [0, 1, 0], [0.5, 0, 1]])
    shift, scales = np.array([0.5, 1, 0]), np.array([1.0, 100.0, 0.01])
    features = (rng.standard_normal((40_000, 3)) @ mixed + np.outer(is_second, shift)) * scales
    expected = (features / scales - shift / 2) @ np.linalg.solve(mixed.T @ mixed, shift)
    scores = out_of_fold(features.astype(np.float32), alone, is_second, alone // 4 % 2)
    np.testing.assert_allclose(scores, expected, atol=0.3)  # -6 … 6; log 3 off if the sets were weighted


def test_more_features_than_pieces_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    alone, is_second = np.arange(40), np.arange(40) % 2 == 0
    features = rng.standard_normal((40, 200)).astype(np.float32)
    features[is_second, :20] += 1
    scores = out_of_fold(features, alone, is_second, alone // 2 % 4)
    assert roc_auc_score(is_second, scores) > 0.9
    assert np.abs(scores).max() < 50


def test_every_fold_gets_its_share_of_both_sets() -> None:
    is_second = np.arange(50) < 20
    fold = deal_folds(is_second, 5, np.random.default_rng(0))
    assert np.bincount(fold[is_second]).tolist() == [4] * 5
    assert np.bincount(fold[~is_second]).tolist() == [6] * 5


def test_the_auc_compares_recordings_of_the_same_fold() -> None:
    rng = np.random.default_rng(0)
    scores, is_second, fold = rng.standard_normal(40), np.arange(40) % 3 == 0, rng.integers(0, 4, 40)
    found = auc_by_fold(scores, is_second, fold)
    for number, auc in enumerate(found):
        members = fold == number
        won = [a > b for a in scores[members & is_second] for b in scores[members & ~is_second]]
        assert auc == pytest.approx(np.mean(won))
    shift = np.array([0, 100, -100, 7])
    assert auc_by_fold(scores + shift[fold], is_second, fold) == pytest.approx(found)


def test_a_resample_counts_recordings_as_often_as_drawn() -> None:
    rng = np.random.default_rng(0)
    is_second, fold = np.arange(30) % 2 == 0, np.arange(30) // 15
    scores = rng.integers(0, 6, 30).astype(float)  # with ties
    times_drawn = rng.integers(0, 3, (4, 30))
    resampled = resampled_auc(scores, is_second, fold, times_drawn)
    assert resampled.shape == (2, 4)
    for times, auc in zip(times_drawn, resampled.T, strict=True):
        drawn = np.repeat(np.arange(30), times)
        assert auc == pytest.approx(auc_by_fold(scores[drawn], is_second[drawn], fold[drawn]))


def test_a_fold_without_recordings_of_one_set_is_left_out_of_a_resample() -> None:
    is_second, fold = np.arange(8) % 2 == 0, np.arange(8) // 4
    drawn = np.ones((1, 8), np.int64)
    drawn[0, [0, 2]] = 0
    first, second = resampled_auc(np.arange(8.0), is_second, fold, drawn)
    assert np.isnan(first[0])
    assert second[0] == 0.25


def test_the_interval_holds_the_auc() -> None:
    pieces = noise()
    pieces.statistics[pieces.is_test[pieces.recording], 0, 0] += 1
    comparison = compare_sets(pieces, [], SETTINGS)
    low, high = comparison.interval
    assert low < comparison.auc[0] < high
    assert 0.05 < high - low < 0.4


@pytest.mark.slow
def test_a_gain_is_seen_in_decibels_only(tmp_path: Path) -> None:
    write_set(tmp_path, "train", 30)
    write_set(tmp_path, "test", 20, db_max=-6.0)
    by_image, by_level = (
        compare_sets(pieces_of(tmp_path, in_decibels=chosen), [], SETTINGS).auc[0] for chosen in (False, True)
    )
    assert by_level > by_image + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 0.3])
def test_a_mel_row_that_never_changes_does_no_harm(level: float) -> None:
    pieces = noise()
    pieces.statistics[:, :2] = level
    comparison = compare_sets(pieces, [slice(0, 2), slice(2, 8)], SETTINGS)
    assert comparison.auc[1] == 0.5
    assert comparison.auc[0] == pytest.approx(comparison.auc[2], abs=0.02)
    assert np.abs(comparison.score).max() < 10


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_and_another_does_not(workspace: Path) -> None:
    for seed, output in (("0", "a"), ("0", "b"), ("1", "c")):
        run("--seed", seed, "--output", output)
    for name in ("summary.json", "recordings.csv", "bands.csv", "adversarial.png"):
        assert (workspace / "a" / name).read_bytes() == (workspace / "b" / name).read_bytes()
    assert (workspace / "a/recordings.csv").read_bytes() != (workspace / "c/recordings.csv").read_bytes()


def test_a_workspace_without_caches_is_told_to_run_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^data/mel/train: no log-mel cache; run `dvc repro crop` first$"):
        run()


def test_a_cache_of_other_params_is_refused(workspace: Path) -> None:
    (workspace / "params.yaml").write_text(PARAMS.replace("n_mels: 8", "n_mels: 4"))
    with pytest.raises(UserError, match=r"data/mel/train: 8 mel rows, but features\.n_mels is 4; run"):
        run()


@pytest.mark.parametrize(
    ("subset", "n_recordings", "folds", "message"),
    [
        ("test", 9, 3, "test: 9 recordings, but 10 or more are needed: they fill 3 folds"),
        ("train", 11, 6, "train: 11 recordings, but 12 or more are needed: each half of them fills 6 folds"),
        ("test", 0, 3, "test: 0 recordings, but 10"),
    ],
)
def test_too_few_recordings_are_refused(
    workspace: Path, subset: str, n_recordings: int, folds: int, message: str
) -> None:
    write_set(workspace / "data/mel", subset, n_recordings)
    with pytest.raises(UserError, match=message):
        run("--folds", str(folds))
    assert not (workspace / "adversarial").exists()
