import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from callboard.core.errors import UserError
from callboard.model.class_axis import ClassAxis
from callboard.model.detector import build_model
from callboard.model.weights import WeightsParams, load_model, save_model, state_bytes
from callboard.training.checkpoint import Checkpoint, checkpoint_for
from tests.toy_training import CPU, SPECIES, fit_params

AXIS = ClassAxis(SPECIES, np.arange(3), [""] * 3)


def weights_params(**changes):
    params = fit_params(**changes)
    return WeightsParams(model=params.model, clip=params.clip)


def network(seed=0):
    torch.manual_seed(seed)
    return build_model(fit_params().model, len(SPECIES))


def test_a_saved_model_comes_back_with_what_it_needs(tmp_path):
    model = network().eval()
    save_model(tmp_path / "models" / "fold2.pt", model, weights_params(), AXIS, 2, ["b", "a"])
    loaded = load_model(tmp_path / "models" / "fold2.pt", CPU)
    image = torch.randn(2, 64, 32)
    with torch.no_grad():
        pairs = zip(model(image)[:5], loaded.model(image)[:5], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert (loaded.species, loaded.fold, loaded.clip) == (SPECIES, 2, fit_params().clip)
    assert loaded.held_out == {"a", "b"}
    assert not loaded.model.training


def test_a_model_of_song_types_comes_back_speaking_of_species(tmp_path):
    axis = ClassAxis(SPECIES, np.array([0, 1, 1, 2]), ["", "1", "4", ""])
    torch.manual_seed(0)
    model = build_model(fit_params().model, 4).eval()
    save_model(tmp_path / "a.pt", model, weights_params(), axis, 0, ["b", "a"])
    loaded = load_model(tmp_path / "a.pt", CPU)
    image = torch.randn(2, 64, 32)
    with torch.no_grad():
        classes, species = model(image), loaded.model(image)
    assert loaded.species == SPECIES
    assert not loaded.model.training
    for name in ("attention", "max", "framewise", "attention_weights", "segment"):
        values = getattr(classes, name)
        of_species = [values[..., axis.class_species == k].amax(dim=-1) for k in range(3)]
        assert torch.equal(getattr(species, name), torch.stack(of_species, dim=-1))
    assert torch.load(tmp_path / "a.pt", weights_only=True)["classes"] == ["a", "07:1", "07:4", "2e1"]


def test_equal_weights_are_equal_bytes(tmp_path):
    for name in ("a.pt", "longer_name.pt"):
        save_model(tmp_path / name, network(), weights_params(), AXIS, 0, ["b", "a"])
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "longer_name.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "longer_name.pt"]


def test_weights_are_plain_values_and_tensors(tmp_path):
    save_model(tmp_path / "a.pt", network(), weights_params(), AXIS, 0, ["b", "a"])
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(content) == {
        "params",
        "species",
        "classes",
        "class_species",
        "fold",
        "held_out",
        "state_dict",
        "ema_state_dict",
        "swa_state_dict",
    }
    assert content["ema_state_dict"] is content["swa_state_dict"] is None
    assert set(content["params"]) == {"model", "clip"}


def test_averaged_weights_come_back_where_they_are_asked_for(tmp_path):
    model, averages = network(0), {"ema": network(1), "swa": network(2)}
    save_model(tmp_path / "a.pt", model, weights_params(), AXIS, 0, ["b", "a"], averages)
    for weights, network_ in {"last": model, **averages}.items():
        loaded = load_model(tmp_path / "a.pt", CPU, weights).model.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in network_.state_dict().items())


@pytest.mark.parametrize(("weights", "asked_for_by"), [("ema", "ema_decay"), ("swa", "swa_epochs")])
def test_averaged_weights_that_are_not_there_are_refused(tmp_path, weights, asked_for_by):
    save_model(tmp_path / "a.pt", network(), weights_params(), AXIS, 0, ["b", "a"])
    told = rf"a.pt: no {weights} weights; set predict.weights=last, or train with train.{asked_for_by} above"
    with pytest.raises(UserError, match=told):
        load_model(tmp_path / "a.pt", CPU, weights)


def test_weights_from_before_there_was_an_average_are_read(tmp_path):
    save_model(tmp_path / "a.pt", network(), weights_params(), AXIS, 0, ["b", "a"])
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["swa_state_dict"]
    torch.save(content, tmp_path / "old.pt")
    assert load_model(tmp_path / "old.pt", CPU).fold == 0


@pytest.mark.parametrize("start", [{"pretrained": True}, {"weights": "gone.pt@579344248a93e230"}])
def test_a_trained_model_is_loaded_without_what_it_started_from(tmp_path, start):
    params = weights_params(**{f"model__{name}": value for name, value in start.items()})
    save_model(tmp_path / "a.pt", network(), params, AXIS, 0, ["b", "a"])
    assert load_model(tmp_path / "a.pt", CPU).fold == 0


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"fold0.pt: not found; run train first"):
        load_model(tmp_path / "fold0.pt", CPU)


def test_damaged_weights_are_refused(tmp_path):
    save_model(tmp_path / "a.pt", network(), weights_params(), AXIS, 0, ["b", "a"])
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"a.pt: not readable as weights"):
        load_model(tmp_path / "a.pt", CPU)


def test_a_file_of_another_kind_is_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a.pt: not a weights file of this project"):
        load_model(tmp_path / "a.pt", CPU)


def test_weights_of_another_network_are_refused(tmp_path):
    save_model(tmp_path / "a.pt", network(), weights_params(model__head_bias=True), AXIS, 0, ["b", "a"])
    with pytest.raises(UserError, match=r"a.pt: not weights that fit the network they describe"):
        load_model(tmp_path / "a.pt", CPU)


def test_weights_that_name_no_network_that_can_be_built_are_refused_with_their_file(tmp_path):
    odd = weights_params(model__backbone_args={"stem_widti": 4})
    save_model(tmp_path / "a.pt", network(), odd, AXIS, 0, ["b", "a"])
    with pytest.raises(
        UserError, match=r"a\.pt: model\.backbone_args: resnet18 cannot be built with .*; train again"
    ):
        load_model(tmp_path / "a.pt", CPU)


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "models").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"fold0.pt: cannot be written"):
        save_model(tmp_path / "models" / "fold0.pt", network(), weights_params(), AXIS, 0, ["b", "a"])


def test_a_checkpoint_holds_the_state_last_written(tmp_path):
    checkpoint = Checkpoint(tmp_path / "key" / "fold0.pt")
    assert checkpoint.read() is None
    for epoch in range(2):
        checkpoint.write({"history": [{"epoch": epoch}], "weights": torch.full((2,), float(epoch))})
    state = checkpoint.read()
    assert state["history"] == [{"epoch": 1}]
    assert state["weights"].tolist() == [1.0, 1.0]


def test_a_checkpoint_that_another_run_removed_may_be_removed_again(tmp_path):
    checkpoint = Checkpoint(tmp_path / "key-fold0.pt")
    checkpoint.write({})
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_runs_that_share_a_checkpoint_never_fail(tmp_path):
    path = tmp_path / "key-fold0.pt"

    def alternate(run):
        checkpoint = Checkpoint(path)
        for _ in range(100):
            checkpoint.write({"weights": torch.full((500,), float(run))})
            state = checkpoint.read()
            assert state is None or len(state["weights"].unique()) == 1
            checkpoint.remove()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(alternate, range(3))) == [None] * 3
    assert list(tmp_path.iterdir()) == []


def test_abandoned_checkpoints_are_removed_when_a_new_one_is_made(tmp_path):
    ages = {"a-fold0.pt": 31, ".a-fold0.pt.12ab.unfinished": 31, "b-fold0.pt": 29, "b-fold0.json": 29}
    ages |= {"finished-fold0.json": 2, "finished-fold1.json": 0.5}
    for name, age_days in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, times=(time.time() - age_days * 24 * 3600,) * 2)
    Checkpoint(tmp_path / "c-fold0.pt").write({})
    left = ["b-fold0.json", "b-fold0.pt", "c-fold0.pt", "finished-fold1.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


DAMAGE = {
    "empty": lambda whole: b"",
    "not a checkpoint": lambda whole: b"not a checkpoint",
    "cut": lambda whole: whole[: len(whole) // 2],
    "one bit of a weight": lambda whole: whole.replace(torch.ones(1).numpy().tobytes(), b"\0\0\x80\x3e", 1),
    "torch file of other content": lambda whole: state_bytes({"weights": torch.ones(1000)}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_reported_and_ignored(tmp_path, capsys, damage):
    checkpoint = Checkpoint(tmp_path / "fold0.pt")
    checkpoint.write({"weights": torch.ones(1000)})
    whole = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(damage(whole))
    assert checkpoint.path.read_bytes() != whole
    assert checkpoint.read() is None
    assert "fold0.pt: checkpoint ignored, training starts at the first epoch" in capsys.readouterr().err


def test_the_checkpoint_of_a_different_training_is_reported_and_ignored(tmp_path, capsys):
    Checkpoint(tmp_path / "a-fold0.pt").write({"history": [1, 2, 3]})
    (tmp_path / "a-fold0.pt").rename(tmp_path / "b-fold0.pt")
    assert Checkpoint(tmp_path / "b-fold0.pt").read() is None
    assert "b-fold0.pt: checkpoint ignored" in capsys.readouterr().err


def test_trainings_that_differ_never_share_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    table = tmp_path / "clips.csv"
    table.write_text("a")
    plain = checkpoint_for(fit_params(), [table], 0).path
    assert plain == checkpoint_for(fit_params(), [table], 0).path
    assert plain.is_relative_to(tmp_path / ".cache" / "checkpoints")
    other_params = checkpoint_for(fit_params(loss__neg_mask="seq"), [table], 0).path
    other_fold = checkpoint_for(fit_params(), [table], 1).path
    starts = [checkpoint_for(fit_params(train__init_from=f"a@{key * 16}"), [table], 0).path for key in "01"]
    table.write_text("b")
    other_input = checkpoint_for(fit_params(), [table], 0).path
    codes = [checkpoint_for(fit_params(), [table, code], 0).path for code in ("a  x.py\n", "b  x.py\n")]
    assert len({plain, other_params, other_fold, *starts, other_input, *codes}) == 8


def test_without_dvc_a_checkpoint_lies_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", "")
    assert checkpoint_for(fit_params(), [], 2).path.parent == tmp_path.resolve() / ".cache" / "checkpoints"
