import os
import shlex
import shutil

import numpy as np
import pytest

from callboard.core.errors import UserError
from callboard.data.folds import read_folds
from callboard.scoring import parts as parts_of_scores
from callboard.scoring import predict as scoring
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


@pytest.mark.slow
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


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of few windows, fewer than a batch has, so that each set has several."""
    monkeypatch.setattr(parts_of_scores, "PART_FRAMES", 4 * 64)


@pytest.fixture
def n_scored(monkeypatch):
    """The number of windows times models that are scored from now on, one entry for each batch."""
    counts = []
    run = scoring._run

    def watched(models, images):
        outputs = run(models, images)
        counts.append(sum(len(output.attention) for output in outputs))
        return outputs

    monkeypatch.setattr(scoring, "_run", watched)
    return counts


def outputs(workspace):
    folder = workspace / "scores/r0"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def parts(workspace):
    return sorted((workspace / ".cache/parts/predict").iterdir())


def use(workspace, old, new):
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace(old, new))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("n_shards", "n_workers"),
    [(2, 1), *(pytest.param(*few, marks=pytest.mark.slow) for few in [(1, 2), (5, 3)])],
)
def test_any_number_of_shards_gives_the_same_bytes(workspace, n_scored, monkeypatch, n_shards, n_workers):
    use(workspace, "tta: 0", "tta: 2")
    predict.main(ARGV)
    before, n_before = outputs(workspace), sum(n_scored)
    assert set(before) > {"oof.npz", "test.npz", "without/tta/test.npz"}
    assert parts(workspace) == []
    shutil.rmtree(workspace / "scores")
    monkeypatch.setenv("CALLBOARD_WORKERS", str(n_workers))
    n_scored.clear()
    for number in range(n_shards, 0, -1):
        predict.main([*ARGV, "--shard", f"{number}/{n_shards}"])
    assert sum(n_scored) == n_before
    assert not (workspace / "scores").exists()
    predict.main(ARGV)
    assert outputs(workspace) == before
    assert sum(n_scored) == n_before
    assert parts(workspace) == []


def test_scores_do_not_depend_on_where_parts_end_if_batches_do_not(workspace, monkeypatch):
    use(workspace, "batch_size: 16", "batch_size: 1")  # so that parts do not change the batches
    use(workspace, "tta: 0", "tta: 2")
    predict.main(ARGV)
    before = outputs(workspace)
    monkeypatch.setattr(parts_of_scores, "PART_FRAMES", 4 * 64)
    predict.main(ARGV)
    assert outputs(workspace) == before


@pytest.mark.usefixtures("small_parts")
def test_after_a_kill_only_what_is_not_whole_is_scored_again(workspace, n_scored):
    predict.main(ARGV)
    before = outputs(workspace)
    predict.main([*ARGV, "--shard", "1/1"])
    files = parts(workspace)
    sizes = [load_scores(file).peak_frame[..., 0].size for file in files]
    assert len(files) > 5
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-100])
    whole = bytearray(files[2].read_bytes())
    whole[len(whole) // 2] ^= 1
    files[2].write_bytes(whole)
    files[3].write_bytes(b"")
    unfinished = files[4].with_name(f".{files[4].name}.0123.unfinished")
    unfinished.write_bytes(b"half")
    n_scored.clear()
    predict.main(ARGV)
    assert sum(n_scored) == sum(sizes[:4])
    assert outputs(workspace) == before
    assert parts(workspace) == [unfinished]
    os.utime(unfinished, (1, 1))
    predict.main(ARGV)
    assert parts(workspace) == []


@pytest.mark.usefixtures("small_parts")
def test_a_part_is_taken_only_for_the_networks_frames_parameters_and_code_that_it_was_made_of(
    workspace, capsys, monkeypatch
):
    def made():
        predict.main([*ARGV, "--shard", "1/1"])
        made, _, n_parts = capsys.readouterr().out.split(", ")[1].split()[:3]
        return int(made), int(n_parts)

    n_made, n_parts = made()
    assert n_made == n_parts
    assert made() == (0, n_parts)
    save_fold(workspace / "models/r0", 1, tiny_network(99))
    of_fold, of_test = 4, 4  # recordings, each a part by itself
    assert made() == (of_fold + of_test, n_parts)
    random_cache(workspace / "data/mel/test", TEST, seed=7)
    assert made() == (of_test, n_parts)
    use(workspace, "seed: 1", "seed: 2")
    assert made() == (n_parts, n_parts)
    monkeypatch.setattr(predict, "code_fingerprint", lambda root, module: "other code")
    assert made() == (n_parts, n_parts)


def test_a_shard_that_does_not_exist_is_refused(workspace, capsys):
    with pytest.raises(SystemExit):
        predict.main([*ARGV, "--shard", "9/8"])
    assert "'9/8' must be K/N with K from 1 to N" in capsys.readouterr().err
