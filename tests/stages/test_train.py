import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.compute import COMPUTE_COLUMNS
from callboard.core.errors import UserError
from callboard.data.clips import read_clips, write_clips
from callboard.features.frame_cache import EncodedRecording, write_cache
from callboard.model.device import describe_device, use_threads
from callboard.model.weights import load_model
from callboard.params.training import TrainParams
from callboard.training.progress import read_progress
from stages.train import TrainStageParams, main
from tests.toy_training import CPU, PARAMS, SPECIES, annotation, changed, clips_table, write_fold_inputs

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--mel", "mel", "--clips", "clips.csv", "--folds", "folds.csv", "--species", "species.csv"]


def arguments(name="fold0", fold=0, *more):
    return [
        "--fold",
        str(fold),
        *ARGUMENTS,
        "--weights",
        f"models/{name}.pt",
        "--curve",
        f"{name}.csv",
        *more,
    ]


def write_params(root, **changes):
    tree = changed(PARAMS, {name.replace("__", "."): value for name, value in changes.items()})
    (root / "params.yaml").write_text(yaml.safe_dump(tree))


@pytest.fixture
def root(tmp_path, monkeypatch):
    write_fold_inputs(tmp_path)
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "CALLBOARD_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    return tmp_path


def digest(root, name="fold0"):
    return hashlib.sha256((root / "models" / f"{name}.pt").read_bytes()).hexdigest()


def test_a_fold_is_trained_to_weights_and_a_curve(root, capsys):
    main(arguments())
    loaded = load_model(root / "models" / "fold0.pt", CPU)
    assert (loaded.species, loaded.fold) == (SPECIES, 0)
    curve = pd.read_csv(root / "fold0.csv")
    assert curve["epoch"].tolist() == [1, 2, 3]
    assert curve["val_lwlrap"].notna().tolist() == [False, True, True]
    assert (curve["loss"] > 0).all()
    line = capsys.readouterr().out
    assert line.startswith(f"train: fold 0, 3 epochs of 8 clips on {describe_device(CPU)}, loss ")
    assert "clips/s, data wait" in line
    checkpoints = root / ".cache" / "checkpoints"
    assert not list(checkpoints.glob("*.pt"))
    (progress,) = read_progress(checkpoints).values()
    assert (progress.name, progress.n_epochs, progress.is_finished) == ("fold0", 3, True)
    numbers = curve.drop(columns=list(COMPUTE_COLUMNS))
    shown = pd.DataFrame(progress.curve, columns=numbers.columns, dtype=float)
    pd.testing.assert_frame_equal(shown, numbers.astype(float), rtol=1e-5)


def test_boxes_longer_than_a_clip_are_counted_with_their_share(root, capsys):
    boxes = pd.read_csv(root / "clips.csv", dtype=str)
    lengths = (boxes["stop_frame"].astype(int) - boxes["start_frame"].astype(int)).sort_values()
    n_frames = int(lengths.iloc[-1]) - 1
    n_longer = int((lengths > n_frames).sum())
    write_params(root, train__epochs=1, clip__n_frames=n_frames, clip__offsets=[n_frames // 2])
    main(arguments())
    share = f"{n_longer / len(boxes):.1%}"
    assert f"{n_longer} of {len(boxes)} boxes ({share}) longer than clip.n_frames" in capsys.readouterr().out
    write_params(root, train__epochs=1, clip__n_frames=n_frames + 1, clip__offsets=[n_frames // 2])
    main(arguments())
    assert "longer than clip.n_frames" not in capsys.readouterr().out


def test_a_curve_says_with_how_many_threads_each_epoch_was_computed(root):
    for n_threads in (1, 2):
        write_params(root, train__threads=n_threads, train__epochs=2)
        main(arguments())
        curve = pd.read_csv(root / "fold0.csv")
        assert curve["threads"].tolist() == [n_threads] * 2
        assert curve["device"].tolist() == ["cpu"] * 2
    use_threads(1)


def test_training_twice_gives_the_same_bytes(root):
    main(arguments("a"))
    os.environ["CALLBOARD_WORKERS"] = "3"
    main(arguments("b"))
    del os.environ["CALLBOARD_WORKERS"]
    assert digest(root, "a") == digest(root, "b")
    assert (root / "a.csv").read_bytes() == (root / "b.csv").read_bytes()


def test_pseudo_labels_are_further_positives(root):
    pseudo = clips_table(annotation("r02", "pseudo", "a", 0, 150), annotation("r04", "pseudo", "a", 0, 150))
    write_clips(pseudo.assign(round=1, teacher="r0/fold2", score=0.95, votes=1), root / "pseudo.csv")
    main(arguments("teacher"))
    main(arguments("student", 0, "--pseudo", "pseudo.csv"))
    assert digest(root, "teacher") != digest(root, "student")


def test_pseudo_labels_of_validation_recordings_are_not_seen(root):
    pseudo = clips_table(annotation("r00", "pseudo", "07", 0, 150))
    write_clips(pseudo, root / "pseudo.csv")
    main(arguments("teacher"))
    main(arguments("student", 0, "--pseudo", "pseudo.csv"))
    assert digest(root, "teacher") == digest(root, "student")


def test_pseudo_labels_for_other_students_are_not_seen(root):
    pseudo = clips_table(*(annotation(name, "pseudo", "a", 0, 150) for name in ("r02", "r05")))
    for name, students in (("both", ["", "0"]), ("none", ["1", "2"]), ("one", ["0", "0-1"])):
        write_clips(pseudo.assign(student=students), root / "pseudo.csv")
        main(arguments(name, 0, "--pseudo", "pseudo.csv"))
    main(arguments("teacher"))
    assert digest(root, "none") == digest(root, "teacher")
    assert len({digest(root, name) for name in ("both", "one", "none")}) == 3


def test_a_training_never_resumes_one_on_other_inputs(root):
    """The progress file of a training has the name of its checkpoint."""
    write_params(root, train__epochs=1)
    folds = (root / "folds.csv").read_text()
    trainings = [
        (["a"], folds),
        (["a"], folds),
        (["a", "07"], folds),
        ([], folds),
        ([], folds.replace("r15,0", "r15,1")),
    ]
    n_checkpoints = []
    for labels, of_folds in trainings:
        pseudo = [annotation("r02", "pseudo", name, 0, 150) for name in labels]
        write_clips(clips_table(*pseudo), root / "pseudo.csv")
        (root / "folds.csv").write_text(of_folds)
        main(arguments("fold0", 0, "--pseudo", "pseudo.csv"))
        n_checkpoints.append(len(read_progress(root / ".cache" / "checkpoints")))
    assert n_checkpoints == [1, 1, 2, 3, 4]


def write_test_cache(root):
    frames = np.random.default_rng(5).integers(0, 256, (120, 32), dtype=np.uint8)
    write_cache(root / "test", [EncodedRecording("t0", frames, -80.0, 0.0)], 32)


def test_pseudo_labels_of_test_recordings_are_trained_on(root, capsys):
    write_test_cache(root)
    write_clips(clips_table(annotation("t0", "pseudo", "a", 0, 100)), root / "pseudo.csv")
    main(arguments("teacher"))
    main(arguments("student", 0, "--pseudo", "pseudo.csv", "--mel-others", "test"))
    assert digest(root, "teacher") != digest(root, "student")
    assert "epochs of 9 clips" in capsys.readouterr().out
    assert (
        load_model(root / "models" / "student.pt", CPU).held_out
        == load_model(root / "models" / "teacher.pt", CPU).held_out
    )
    with pytest.raises(UserError, match=r"recording_id that the folds table lacks.*t0"):
        main(arguments("student", 0, "--pseudo", "pseudo.csv"))


def test_a_test_cache_without_pseudo_labels_changes_nothing(root):
    write_test_cache(root)
    write_clips(clips_table(annotation("r02", "pseudo", "a", 0, 100)), root / "pseudo.csv")
    main(arguments("without", 0, "--pseudo", "pseudo.csv"))
    main(arguments("with", 0, "--pseudo", "pseudo.csv", "--mel-others", "test"))
    assert digest(root, "without") == digest(root, "with")


def test_a_recording_in_both_sets_is_refused(root):
    frames = np.zeros((120, 32), dtype=np.uint8)
    both = [EncodedRecording(name, frames, -80.0, 0.0) for name in ("t0", "r00")]
    write_cache(root / "test", both, 32)
    write_clips(clips_table(annotation("t0", "pseudo", "a", 0, 100)), root / "pseudo.csv")
    with pytest.raises(UserError, match="1 recordings are in both mel and test, first r00"):
        main(arguments("student", 0, "--pseudo", "pseudo.csv", "--mel-others", "test"))


def test_labels_fp_trains_another_network_on_fewer_clips(root, capsys):
    main(arguments("tp"))
    write_params(root, train__labels="fp")
    main(arguments("fp"))
    assert digest(root, "tp") != digest(root, "fp")
    assert "epochs of 2 clips" in capsys.readouterr().out


def test_a_network_of_song_types_is_saved_with_its_classes_and_speaks_of_species(root):
    clips = read_clips(root / "clips.csv")
    clips.loc[clips["recording_id"].isin(["r01", "r04"]), "songtype_id"] = "4"
    write_clips(clips, root / "clips.csv")
    write_params(root, train__classes="songtype")
    main(arguments())
    content = torch.load(root / "models" / "fold0.pt", weights_only=True)
    assert content["classes"] == ["a", "07:1", "07:4", "2e1"]
    loaded = load_model(root / "models" / "fold0.pt", CPU)
    assert loaded.species == SPECIES
    assert loaded.model(torch.zeros(1, 64, 32)).attention.shape == (1, 3)


def test_a_wrong_section_is_refused_before_any_work(root):
    write_params(root, optim__lr=-1.0)
    with pytest.raises(UserError, match=r"optim\.lr"):
        main(arguments())


def test_the_stage_reads_the_sections_that_dvc_watches():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages["train"]["params"]) == set(TrainStageParams.model_fields)
    assert TrainStageParams.model_fields["train"].annotation is TrainParams


def test_the_code_of_a_training_is_the_stage_all_it_imports_and_versions():
    named = [line.split()[-1] for line in code_fingerprint(ROOT, "stages.train").splitlines()]
    assert {
        "stages/train.py",
        "src/callboard/training/losses/terms.py",
        "src/callboard/model/class_axis.py",
    } < set(named)
    assert "stages/predict.py" not in named
    assert named[-1].startswith("torch==")


def start_process(root):
    command = [sys.executable, "-m", "stages.train", *arguments()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(condition, process, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.slow
def test_a_killed_training_resumes_with_the_same_bytes(root, capsys):
    write_params(root, train__epochs=40, train__validate_every=20)
    main(arguments())
    expected = digest(root), (root / "fold0.csv").read_bytes()
    (root / "models" / "fold0.pt").unlink()

    killed = start_process(root)
    wait_for(lambda: list((root / ".cache").glob("checkpoints/*-fold0.pt")), killed)
    time.sleep(0.1)  # into some later epoch
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (root / "models" / "fold0.pt").exists()

    resumed = start_process(root)
    printed, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0
    assert "resumed after epoch " in printed
    assert (digest(root), (root / "fold0.csv").read_bytes()) == expected
    (progress,) = read_progress(root / ".cache" / "checkpoints").values()
    assert [row["epoch"] for row in progress.curve] == list(range(1, 41))
    assert not list((root / ".cache" / "checkpoints").glob("*.pt"))
