import shlex

import numpy as np
import pytest

from callboard.core.errors import UserError
from callboard.data.folds import read_folds
from callboard.scoring.postprocessing import read_steps
from callboard.scoring.window_scores import load_scores
from stages import predict
from tests.toy_models import TEST, TRAIN, random_cache, save_fold, tiny_network, write_workspace

ARGV = shlex.split("--models models/r0 --mel data/mel --folds data/folds.csv --scores scores/r0")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    write_workspace(tmp_path)
    return tmp_path


def test_oof_scores_cover_each_recording_exactly_once_by_its_own_fold(workspace, capsys):
    predict.main(ARGV)
    oof = load_scores(workspace / "scores/r0/oof.npz")
    folds = read_folds(workspace / "data/folds.csv").set_index("recording_id")["fold"]
    assert sorted(oof.recording_ids) == sorted(TRAIN)
    assert oof.fold.tolist() == folds.loc[oof.recording_ids].tolist()
    assert oof.n_models == 1
    out = capsys.readouterr().out
    assert out.startswith("predict: 12 training recordings out of fold, 4 test recordings by 3 models on cpu")


def test_test_recordings_are_scored_by_the_models_of_all_folds(workspace):
    predict.main(ARGV)
    test = load_scores(workspace / "scores/r0/test.npz")
    assert test.recording_ids == list(TEST)
    assert test.heads["max"].shape[1:] == (3, 3)
    assert test.fold is None


def test_replacing_one_folds_network_moves_only_its_recordings(workspace):
    predict.main(ARGV)
    before = load_scores(workspace / "scores/r0/oof.npz")
    save_fold(workspace / "models/r0", 1, tiny_network(99))
    predict.main(ARGV)
    after = load_scores(workspace / "scores/r0/oof.npz")
    moved = (before.heads["max"] != after.heads["max"]).any(axis=(1, 2))
    np.testing.assert_array_equal(moved, before.fold[before.recording] == 1)


def test_the_stage_gives_equal_bytes_twice(workspace):
    predict.main(ARGV)
    first = (workspace / "scores/r0/test.npz").read_bytes()
    predict.main(ARGV)
    assert (workspace / "scores/r0/test.npz").read_bytes() == first


def test_augmented_looks_move_the_scores_and_give_equal_bytes_twice(workspace):
    predict.main(ARGV)
    plain = load_scores(workspace / "scores/r0/test.npz").heads["max"]
    params = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(params.replace("tta: 0", "tta: 2"))
    predict.main(ARGV)
    first = (workspace / "scores/r0/test.npz").read_bytes()
    assert (load_scores(workspace / "scores/r0/test.npz").heads["max"] != plain).any()
    predict.main(ARGV)
    assert (workspace / "scores/r0/test.npz").read_bytes() == first


def test_scores_without_each_step_are_those_of_a_run_without_it(workspace):
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, averages={"ema": tiny_network(50 + fold)})
    params = workspace / "params.yaml"
    plain = params.read_text()

    def scores(weights, tta):
        predicted = plain.replace("weights: last", f"weights: {weights}")
        params.write_text(predicted.replace("tta: 0", f"tta: {tta}"))
        predict.main(ARGV)
        return {
            str(path.relative_to(workspace / "scores/r0")): path.read_bytes()
            for path in (workspace / "scores/r0").rglob("*.npz")
        }

    both, averaged, masked = scores("ema", 2), scores("ema", 0), scores("last", 2)
    assert set(scores("last", 0)) == {"oof.npz", "test.npz"}
    assert read_steps(workspace / "scores/r0/without") == []
    for name in ("oof.npz", "test.npz"):
        assert both[f"without/tta/{name}"] == averaged[name] != both[name]
        assert both[f"without/weights/{name}"] == masked[name] != both[name]


def test_an_empty_test_set_is_no_obstacle(workspace):
    random_cache(workspace / "data/mel/test", {})
    predict.main(ARGV)
    assert load_scores(workspace / "scores/r0/test.npz").recording_ids == []


def test_missing_weights_stop_the_stage_before_any_scores(workspace):
    (workspace / "models/r0/fold2.pt").unlink()
    with pytest.raises(UserError, match=r"fold2.pt missing; the folds are \[0, 1, 2\]"):
        predict.main(ARGV)
    assert not list(workspace.glob("scores/*"))
