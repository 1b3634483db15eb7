import json
import shlex

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.data.annotations import write_species
from callboard.data.folds import read_folds, write_folds
from callboard.data.presence import species_presence
from callboard.data.score_tables import read_score_table, score_table
from callboard.results.lookup import find
from callboard.results.result import OUT_OF_FOLD
from callboard.scoring.metrics import lwlrap
from callboard.scoring.stacking import cross_fitted
from stages import evaluate, predict
from tests.stages.test_predict import ARGV as PREDICT_ARGV
from tests.toy_git import ToyRepository
from tests.toy_models import PARAMS_YAML, SPECIES, TRAIN, save_fold, tiny_network, toy_clips, write_workspace

ARGV = shlex.split(
    "--scores scores/r0/oof.npz --scores-without scores/r0/without "
    "--clips data/clips.csv --folds data/folds.csv --species data/source/species.csv "
    "--oof scores/oof.csv --metrics metrics/cv.json "
    "--plot plots/species.csv"
)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    write_workspace(tmp_path)
    predict.main(PREDICT_ARGV)
    return tmp_path


def test_cv_is_lwlrap_of_the_written_oof_scores(workspace, capsys):
    evaluate.main(ARGV)
    oof = pd.read_csv("scores/oof.csv", dtype={"recording_id": str})
    assert sorted(oof["recording_id"]) == sorted(TRAIN)
    assert oof.columns.tolist() == ["recording_id", "fold", "s3", "s07", "sx1"]
    clips = toy_clips()
    is_present = species_presence(clips[clips["label_type"] == "tp"], oof["recording_id"].tolist(), SPECIES)
    cv = json.loads((workspace / "metrics/cv.json").read_text())["cv"]
    assert cv["lwlrap"] == pytest.approx(lwlrap(is_present, oof[["s3", "s07", "sx1"]].to_numpy()), abs=1e-5)
    assert list(cv) == [
        "lwlrap", "lwlrap_low", "lwlrap_high", "fold_mean", "fold_sd", "lrap", "lwlrap_known", "macro_ap",
        "n_recordings",
    ]  # fmt: skip
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"evaluate: CV LWLRAP {cv['lwlrap']:.4f} (")
    assert f"folds {cv['fold_mean']:.2f} ± {cv['fold_sd']:.2f}, 12 recordings" in line


def test_the_species_plot_has_a_row_per_species(workspace):
    evaluate.main(ARGV)
    plot = pd.read_csv("plots/species.csv", dtype={"species": str})
    assert plot.columns.tolist() == ["species", "ap", "n_tp"]
    assert plot["species"].tolist() == SPECIES
    assert plot["n_tp"].sum() == len(TRAIN)


def test_the_stage_gives_equal_bytes_twice(workspace):
    outputs = [workspace / name for name in ("scores/oof.csv", "metrics/cv.json", "plots/species.csv")]
    evaluate.main(ARGV)
    first = [path.read_bytes() for path in outputs]
    evaluate.main(ARGV)
    assert [path.read_bytes() for path in outputs] == first


def test_groups_are_in_the_scores_and_make_the_interval(workspace, capsys):
    folds = read_folds(workspace / "data/folds.csv")
    evaluate.main(ARGV)
    before = json.loads((workspace / "metrics/cv.json").read_text())["cv"]
    plain = pd.read_csv("scores/oof.csv")
    # two groups a fold, of two recordings each
    group = [f"site{fold}{place % 2}" for place, fold in enumerate(folds.groupby("fold").cumcount())]
    group = [f"f{fold}{name}" for fold, name in zip(folds["fold"], group, strict=True)]
    write_folds(folds.assign(group=group), workspace / "data/folds.csv")
    evaluate.main(ARGV)
    oof = read_score_table(workspace / "scores/oof.csv")
    assert oof["group"].tolist() == group
    pd.testing.assert_frame_equal(pd.read_csv("scores/oof.csv").drop(columns="group"), plain)
    cv = json.loads((workspace / "metrics/cv.json").read_text())["cv"]
    assert cv["n_groups"] == len(set(group))
    changed = {name for name in before if before[name] != cv[name]}
    assert changed == {"lwlrap_low", "lwlrap_high"}
    assert (cv["lwlrap_low"] + cv["lwlrap_high"]) / 2 == pytest.approx(cv["lwlrap"], abs=1.1e-5)
    assert f"12 recordings in {len(set(group))} groups, " in capsys.readouterr().out


def test_groups_in_two_folds_stop_the_stage(workspace):
    folds = read_folds(workspace / "data/folds.csv")
    write_folds(folds.assign(group="site"), workspace / "data/folds.csv")
    with pytest.raises(UserError, match=r"leak: groups in several folds: site in \[0, 1, 2\]"):
        evaluate.main(ARGV)


def test_without_bootstrap_the_interval_is_null(workspace, capsys):
    params = (workspace / "params.yaml").read_text().replace("n_bootstrap: 100", "n_bootstrap: 0")
    (workspace / "params.yaml").write_text(params)
    evaluate.main(ARGV)
    cv = json.loads((workspace / "metrics/cv.json").read_text())["cv"]
    assert cv["lwlrap_low"] is None
    assert f"CV LWLRAP {cv['lwlrap']:.4f}, folds" in capsys.readouterr().out


def test_scores_made_with_other_folds_stop_the_stage(workspace):
    folds = read_folds(workspace / "data/folds.csv")
    write_folds(folds.assign(fold=(folds["fold"] + 1) % 3), workspace / "data/folds.csv")
    with pytest.raises(UserError, match="leak: 000 is in fold 1 but was scored by the model of fold 0"):
        evaluate.main(ARGV)


def test_scores_of_other_species_stop_the_stage(workspace):
    write_species(SPECIES[::-1], workspace / "data/source/species.csv")
    with pytest.raises(UserError, match=r"the scores have species \['3', '07', 'x1'\]"):
        evaluate.main(ARGV)


def test_a_blend_is_evaluated_in_place_of_the_own_networks(workspace, tmp_path_factory, monkeypatch, capsys):
    evaluate.main(ARGV)
    own = read_score_table(workspace / OUT_OF_FOLD)
    repository = ToyRepository(tmp_path_factory.mktemp("main") / "main")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    scores = ["s3", "s07", "sx1"]
    for name, factor in (
        ("half", 0.5),
        ("none", 0.0),
    ):  # one split in other folds, the other in another order
        table = own.assign(fold=9, **{column: own[column] * factor for column in scores})
        outs = {OUT_OF_FOLD: repository.cache_table(table.iloc[::-1])}
        repository.experiment(name, outs)
    references = [find(name).reference for name in ("half", "none")]
    text = PARAMS_YAML.replace("blend: []", f"blend: [{', '.join(references)}]")
    (workspace / "params.yaml").write_text(text)
    cv_of_own = json.loads((workspace / "metrics/cv.json").read_text())
    evaluate.main(ARGV)
    blended = read_score_table(workspace / OUT_OF_FOLD)
    assert blended[["recording_id", "fold"]].equals(own[["recording_id", "fold"]])
    pd.testing.assert_frame_equal(blended[scores], own[scores] / 4)
    assert json.loads((workspace / "metrics/cv.json").read_text()) == cv_of_own  # ranks are the same
    assert f"blend of {', '.join(references)}" in capsys.readouterr().out


def set_infer(workspace, **changes):
    tree = YAML().load(PARAMS_YAML)
    tree["infer"] |= changes
    YAML().dump(tree, workspace / "params.yaml")


@pytest.mark.slow
def test_steps_of_predict_have_a_gain_too(workspace):
    """Averaged weights of other networks, and masked looks."""
    for fold in range(3):
        save_fold(workspace / "models/r0", fold, averages={"ema": tiny_network(50 + fold)})
    predict_line = "predict: {overlap_frames: 8, batch_size: 16, weights: last, tta: 0}"

    def cv(weights, tta):
        predicted = predict_line.replace("last", weights).replace("tta: 0", f"tta: {tta}")
        (workspace / "params.yaml").write_text(PARAMS_YAML.replace(predict_line, predicted))
        predict.main(PREDICT_ARGV)
        evaluate.main(ARGV)
        return json.loads((workspace / "metrics/cv.json").read_text())["cv"]

    plain, averaged, masked, both = cv("last", 0), cv("ema", 0), cv("last", 2), cv("ema", 2)
    assert both["gain_weights"] == pytest.approx(both["lwlrap"] - masked["lwlrap"], abs=2e-5)
    assert both["gain_tta"] == pytest.approx(both["lwlrap"] - averaged["lwlrap"], abs=2e-5)
    assert averaged["gain_weights"] == pytest.approx(averaged["lwlrap"] - plain["lwlrap"], abs=2e-5)
    assert "gain_tta" not in averaged
    assert averaged["gain_weights"]


def cv_of(workspace, **changes):
    set_infer(workspace, **changes)
    evaluate.main(ARGV)
    return json.loads((workspace / "metrics/cv.json").read_text())["cv"]


def test_the_gain_of_a_step_is_cv_with_it_minus_cv_without(workspace, capsys):
    both = cv_of(workspace, temperature=20.0, smoothing=[1, 3, 0])
    assert list(both)[-2:] == ["gain_temperature", "gain_smoothing"]
    for step, only in (("temperature", {"smoothing": [1, 3, 0]}), ("smoothing", {"temperature": 20.0})):
        gain = both["lwlrap"] - cv_of(workspace, **only)["lwlrap"]
        assert both[f"gain_{step}"] == pytest.approx(gain, abs=1.1e-5)  # each of the three is rounded
    assert f"gain_smoothing {both['gain_smoothing']:+.4f}" in capsys.readouterr().out


def test_prevalence_changes_no_out_of_fold_score(workspace):
    before = cv_of(workspace)
    table = (workspace / "scores/oof.csv").read_bytes()
    assert cv_of(workspace, prevalence=1.0) == before | {"gain_prevalence": 0.0}
    assert (workspace / "scores/oof.csv").read_bytes() == table


@pytest.fixture
def parts(tmp_path_factory, monkeypatch):
    """Out-of-fold scores of two finished experiments, and their references."""
    repository = ToyRepository(tmp_path_factory.mktemp("main") / "main")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    scores = np.random.default_rng(3).random((2, len(TRAIN), len(SPECIES)))
    for name, part in zip(("exp0021", "exp0025"), scores, strict=True):
        outs = {OUT_OF_FOLD: repository.cache_table(score_table(list(TRAIN), SPECIES, part))}
        repository.experiment(name, outs)
    return scores, [find(name).reference for name in ("exp0021", "exp0025")]


def test_weights_of_a_blend_are_held_against_the_plain_mean(workspace, parts):
    scores, references = parts
    weighted = cv_of(workspace, blend=references, blend_weights=[0.25, 0.75])
    table = read_score_table(workspace / OUT_OF_FOLD)
    np.testing.assert_allclose(table[["s3", "s07", "sx1"]], scores[0] / 4 + scores[1] * 3 / 4)
    plain = cv_of(workspace, blend=references)
    assert "gain_blend_weights" not in plain
    assert weighted["gain_blend_weights"] == pytest.approx(weighted["lwlrap"] - plain["lwlrap"], abs=1.1e-5)


def test_a_stack_scores_each_recording_by_regressions_that_did_not_see_it(
    workspace, parts, monkeypatch, capsys
):
    monkeypatch.setattr("callboard.scoring.stacking.MIN_STACK_RECORDINGS", 2)
    scores, references = parts
    stacked = cv_of(workspace, blend=references, stack=True)
    table = read_score_table(workspace / OUT_OF_FOLD)
    is_present = species_presence(toy_clips().query("label_type == 'tp'"), list(TRAIN), SPECIES)
    expected, _ = cross_fitted(scores, is_present, table["fold"].to_numpy())
    np.testing.assert_allclose(table[["s3", "s07", "sx1"]], expected)
    assert stacked["lwlrap"] == pytest.approx(lwlrap(is_present, expected), abs=1e-5)
    gain = lwlrap(is_present, expected) - lwlrap(is_present, scores.mean(axis=0))
    assert stacked["gain_stack"] == pytest.approx(gain, abs=1e-5)
    assert "regressions for 3 species, folds" in capsys.readouterr().out


def test_species_too_rare_for_a_regression_are_told(workspace, parts, capsys):
    cv_of(workspace, blend=parts[1], stack=True)
    words = "regressions for 0 species; 3 in fewer than 5 recordings use the mean: 3, 07, x1"
    assert words in capsys.readouterr().out


def test_a_part_that_was_trained_on_recordings_of_a_site_held_out_stops_a_blend_by_site(
    workspace, tmp_path_factory, monkeypatch
):
    repository = ToyRepository(tmp_path_factory.mktemp("main") / "main")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    folds = read_folds(workspace / "data/folds.csv")
    scores = score_table(list(TRAIN), SPECIES, np.random.default_rng(3).random((len(TRAIN), len(SPECIES))))
    fold_of = folds.set_index("recording_id")["fold"]
    whole = scores.assign(fold=fold_of[scores["recording_id"]].to_numpy())
    apart = whole.assign(fold=(whole["fold"] + np.arange(len(whole)) // 6) % 3)
    for name, table in (("exp0021", whole), ("exp0025", apart)):
        repository.experiment(name, {OUT_OF_FOLD: repository.cache_table(table)})
    references = [find(name).reference for name in ("exp0021", "exp0025")]
    write_folds(folds.assign(group=[f"site{fold}" for fold in folds["fold"]]), workspace / "data/folds.csv")
    assert cv_of(workspace, blend=references[:1])["n_groups"] == 3
    with pytest.raises(UserError, match=r"leak: groups .* in several folds of exp0025@\w+: site0 in "):
        cv_of(workspace, blend=references)
