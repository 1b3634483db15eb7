import hashlib

import pandas as pd
import pytest
import torch
import yaml

from callboard.core.errors import UserError
from callboard.data.annotations import write_species
from callboard.data.clips import write_clips
from callboard.data.folds import read_folds, write_folds
from callboard.results.lookup import find
from stages.train import main
from tests.stages.test_train import arguments, write_params
from tests.toy_git import ToyRepository
from tests.toy_training import SPECIES, annotation, clips_table, write_fold_inputs

DATA = {"data/mel": "mel.dir", "data/clips.csv": "clips"}
WITHOUT_STEPS = {"optim__lr": 1e-9, "train__epochs": 1, "train__validate_every": 0}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A main workspace, beside the copy of it that is the current folder."""
    for name in ("CALLBOARD_WORKERS", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    here = tmp_path / "temporary"
    here.mkdir()
    write_fold_inputs(here)
    write_params(here)
    monkeypatch.chdir(here)
    write_lock(here, DATA)
    return ToyRepository(tmp_path / "main")


def write_lock(folder, outs, n_mels=32):
    """What DVC has noted of the stages before training."""
    crop = {"params": {"params.yaml": {"features": {"n_mels": n_mels}}}}
    crop["outs"] = [{"path": path, "md5": md5} for path, md5 in outs.items()]
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": {"crop": crop}}))


def finish(repository, here, name="stage1", fold=0, models="models/r0", outs=DATA):
    """Train a fold as an experiment that is then finished; its reference."""
    main(arguments(name, fold))
    md5 = repository.cache((here / "models" / f"{name}.pt").read_bytes())
    repository.experiment(name, {f"{models}/fold{fold}.pt": md5, **outs}, {"features": {"n_mels": 64}})
    return find(name).reference


@pytest.fixture
def here(repository, tmp_path):
    return tmp_path / "temporary"


@pytest.fixture
def stage1(repository, here):
    return finish(repository, here)


def weights_in(here, name):
    return torch.load(here / "models" / f"{name}.pt", weights_only=True)["state_dict"]


def test_a_fold_starts_from_another_experiment_s_weights_of_the_same_fold(here, stage1, capsys):
    write_params(here, seed=8, train__init_from=stage1, **WITHOUT_STEPS)
    main(arguments("stage2"))
    before, after = weights_in(here, "stage1"), weights_in(here, "stage2")
    for name in before:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    assert f", from {stage1}, loss " in capsys.readouterr().out


def test_a_chain_starts_from_the_student_of_the_last_round(repository, here):
    write_params(here, seed=9)
    reference = finish(repository, here, "student", models="models/r2")
    write_params(here, train__init_from=reference, **WITHOUT_STEPS)
    main(arguments("next"))
    weight = "head.classify.weight"
    torch.testing.assert_close(weights_in(here, "next")[weight], weights_in(here, "student")[weight])


def test_a_student_starts_from_them_too(here, stage1):
    write_clips(clips_table(annotation("r02", "pseudo", "a", 0, 150)), here / "pseudo.csv")
    write_params(here, train__init_from=stage1, **WITHOUT_STEPS)
    main(arguments("student", 0, "--pseudo", "pseudo.csv"))
    weight = "head.classify.weight"
    torch.testing.assert_close(weights_in(here, "student")[weight], weights_in(here, "stage1")[weight])


def test_weights_of_the_average_go_to_disk_beside_the_last(here, repository):
    write_params(here, train__ema_decay=0.5)
    main(arguments("averaged"))
    write_params(here)
    main(arguments("plain"))
    found = torch.load(here / "models" / "averaged.pt", weights_only=True)
    plain = weights_in(here, "plain")
    assert all(torch.equal(found["state_dict"][name], plain[name]) for name in plain)
    assert found["ema_state_dict"].keys() == plain.keys()
    assert not torch.equal(found["ema_state_dict"]["head.classify.weight"], plain["head.classify.weight"])


def refused(here, reference, words, fold=0, **changes):
    write_params(here, train__init_from=reference, **WITHOUT_STEPS, **changes)
    with pytest.raises(UserError, match=words):
        main(arguments("refused", fold))
    assert not (here / "models" / "refused.pt").exists()


def test_a_reference_without_key_is_refused(here, stage1):
    refused(here, "stage1", r"train\.init_from")


def test_a_result_that_is_no_longer_there_is_refused(here, stage1):
    refused(here, f"stage1@{'0' * 16}", f"no result is called 'stage1@{'0' * 16}'; the nearest are {stage1}")


def test_weights_that_left_the_cache_are_named(repository, here, stage1):
    md5 = hashlib.md5((here / "models" / "stage1.pt").read_bytes()).hexdigest()
    (repository.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    refused(here, stage1, rf"models/r0/fold0\.pt of {stage1} is not in DVC's cache")


def test_a_fold_that_the_other_experiment_lacks_is_refused(here, stage1):
    refused(here, stage1, f"{stage1} has no weights of fold 1; split.folds must be the same", fold=1)


def test_other_folds_are_refused_by_what_they_hold_out(here, stage1):
    folds = read_folds(here / "folds.csv")
    folds.loc[folds["recording_id"] == "r04", "fold"] = 1  # held out there
    folds.loc[folds["recording_id"] == "r01", "fold"] = 0  # trained on there
    write_folds(folds, here / "folds.csv")
    refused(
        here, stage1, f"fold 0 of {stage1} holds out different recordings: 2 differ, first r01; its weights"
    )


def test_other_species_and_classes_are_refused(here, stage1):
    write_species([*SPECIES, "new"], here / "species.csv")
    refused(here, stage1, f"train.init_from: {stage1} has different species: 1 only here, first new")
    write_species(SPECIES[::-1], here / "species.csv")
    refused(here, stage1, f"{stage1} has different species: in a different order")
    write_species(SPECIES, here / "species.csv")
    clips = pd.read_csv(here / "clips.csv", dtype=str)
    clips.loc[clips["recording_id"].isin(["r01", "r04"]), "songtype_id"] = "4"
    clips.to_csv(here / "clips.csv", index=False)
    refused(
        here, stage1, f"{stage1} has different classes: 1 only there, first 07", train__classes="songtype"
    )


def test_another_network_is_refused_by_its_parameters(here, stage1):
    refused(
        here, stage1, f"of {stage1} are of a different network: model.cbam: false → true$", model__cbam=True
    )


@pytest.mark.parametrize("path", DATA)
def test_other_data_are_refused_by_the_parameters_that_made_them(repository, here, stage1, path):
    write_lock(here, DATA | {path: "other"})
    words = (
        rf"{stage1} was trained on a different {path} \(.*features\.n_mels: 64 → 32\); run stage1 again from"
    )
    refused(here, stage1, words)


def test_a_workspace_that_does_not_tell_its_data_is_refused(here, stage1):
    (here / "dvc.lock").unlink()
    refused(here, stage1, r"train\.init_from: dvc\.lock does not say what data this is; run `dvc repro`")
