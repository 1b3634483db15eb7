import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.data.annotations import write_species
from callboard.data.clips import DTYPES, write_clips
from callboard.data.folds import write_folds
from callboard.data.score_tables import read_score_table, score_table, write_score_table
from callboard.results.lookup import find
from callboard.results.result import OUT_OF_FOLD, SUBMISSION
from callboard.scoring.postprocessing import read_steps, write_steps
from callboard.scoring.prevalence import estimate_prevalence, with_odds_times
from callboard.scoring.stacking import fit_stack
from callboard.scoring.window_scores import load_scores, recording_scores
from stages import infer
from tests.scoring.test_window_scores import window_scores
from tests.toy_git import PARAMS, ToyRepository
from tests.toy_models import PARAMS_YAML
from tests.toy_scoring import infer_params

ARGV = shlex.split(
    "--scores test.npz --oof oof.npz --scores-without without "
    "--clips clips.csv --folds folds.csv --species species.csv "
    "--sample sample_submission.csv --skipped skipped.csv "
    "--submission submission/submission.csv --without submission/without "
    "--prevalence submission/prevalence.csv"
)

SPECIES = [f"sp{i}" for i in range(4)]
TRAIN = [f"t{i}" for i in range(24)]
FOLD = np.arange(len(TRAIN)) % 3

COLUMNS = ["recording_id", "ssp0", "ssp1", "ssp2", "ssp3"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS_YAML)
    window_scores().save(tmp_path / "test.npz")
    window_scores((2,) * len(TRAIN), 1, prefix="t", seed=1, fold=FOLD).save(tmp_path / "oof.npz")
    write_species(SPECIES, tmp_path / "species.csv")
    write_folds(pd.DataFrame({"recording_id": TRAIN, "fold": FOLD}), tmp_path / "folds.csv")
    write_clips(clips(), tmp_path / "clips.csv")
    write_sample(["r2", "r0", "r1"])
    write_skipped([])
    write_steps([], tmp_path / "without")
    return tmp_path


def clips():
    """One TP annotation per recording, species in turn."""
    table = pd.DataFrame({"recording_id": TRAIN, "species_id": [SPECIES[i % 4] for i in range(len(TRAIN))]})
    cells = {"clip_id": range(len(TRAIN)), "label_type": "tp", "songtype_id": "1", "start_frame": 2}
    cells |= {"stop_frame": 9, "low_mel": 0, "high_mel": 4}
    return table.assign(**cells).reindex(columns=list(DTYPES)).astype(DTYPES)


def set_infer(workspace, **changes):
    tree = YAML().load(PARAMS_YAML)
    tree["infer"] |= changes
    YAML().dump(tree, workspace / "params.yaml")


def scores_of(path):
    return read_score_table(path)[COLUMNS[1:]].to_numpy()


def write_sample(recording_ids):
    table = score_table(recording_ids, [f"sp{i}" for i in range(4)], np.full((len(recording_ids), 4), 0.5))
    write_score_table(table, Path("sample_submission.csv"))


def write_skipped(recording_ids):
    rows = [f"{recording_id},test,silent\n" for recording_id in recording_ids]
    Path("skipped.csv").write_text("".join(["recording_id,subset,reason\n", *rows]))


def test_the_submission_holds_pooled_scores_in_the_order_of_the_sample(workspace, capsys):
    infer.main(ARGV)
    submission = read_score_table(workspace / "submission/submission.csv")
    assert submission.columns.tolist() == COLUMNS
    assert submission["recording_id"].tolist() == ["r2", "r0", "r1"]
    params = infer_params()
    expected = recording_scores(load_scores(workspace / "test.npz"), params)[[2, 0, 1]]
    np.testing.assert_allclose(submission[COLUMNS[1:]], expected, rtol=1e-5)
    assert capsys.readouterr().out.startswith(
        "infer: 3 recordings × 4 species, attention_max head, max over windows"
    )


def test_recordings_without_scores_stop_the_stage(workspace):
    write_sample(["r0", "r1", "r2", "r3"])
    with pytest.raises(UserError, match="1 of 4 recordings have no scores, first r3"):
        infer.main(ARGV)
    assert not (workspace / "submission").exists()


def test_recordings_that_crop_skipped_are_left_out_and_counted(workspace, capsys):
    write_sample(["r0", "r1", "r2", "r3"])
    write_skipped(["r3"])
    infer.main(ARGV)
    submission = read_score_table(workspace / "submission/submission.csv")
    assert submission["recording_id"].tolist() == ["r0", "r1", "r2"]
    assert "infer: 1 recordings that crop skipped are left out" in capsys.readouterr().out


def test_an_empty_test_set_gives_a_header_and_says_so(workspace, capsys):
    window_scores(()).save(workspace / "test.npz")
    write_sample([])
    infer.main(ARGV)
    assert (workspace / "submission/submission.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert "lists no recordings" in capsys.readouterr().out


def test_a_blend_is_the_mean_of_finished_submissions_and_reads_no_own_scores(
    workspace, tmp_path_factory, monkeypatch, capsys
):
    repository = ToyRepository(tmp_path_factory.mktemp("main") / "main")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    for name, score in (("exp0021", 0.2), ("exp0025", 0.6)):
        table = score_table(["r0", "r1", "r2"], [f"sp{i}" for i in range(4)], np.full((3, 4), score))
        repository.experiment(name, {SUBMISSION: repository.cache_table(table)})
    references = [find(name).reference for name in ("exp0021", "exp0025")]
    text = PARAMS_YAML.replace("blend: []", f"blend: [{', '.join(references)}]")
    (workspace / "params.yaml").write_text(text)
    (workspace / "test.npz").unlink()
    infer.main(ARGV)
    submission = read_score_table(workspace / "submission/submission.csv")
    assert submission["recording_id"].tolist() == ["r2", "r0", "r1"]
    np.testing.assert_allclose(submission[COLUMNS[1:]], 0.4)
    assert f"3 recordings × 4 species, blend of {', '.join(references)}" in capsys.readouterr().out


def test_without_active_steps_there_is_an_empty_list_of_them_and_a_header_of_prevalences(workspace):
    (workspace / "submission/without").mkdir(parents=True)
    (workspace / "submission/without/prevalence.csv").write_text("of an earlier run")
    (workspace / "oof.npz").unlink()  # not read
    infer.main(ARGV)
    assert [path.name for path in (workspace / "submission/without").iterdir()] == ["steps.csv"]
    assert (workspace / "submission/without/steps.csv").read_text() == "step\n"
    assert (workspace / "submission/prevalence.csv").read_text() == "species,training,scored,factor\n"


def test_each_active_step_has_a_submission_without_it(workspace, capsys):
    set_infer(workspace, temperature=3.0, smoothing=[1, 2, 1], prevalence=0.5)
    infer.main(ARGV)
    own = load_scores(workspace / "test.npz")
    oof = load_scores(workspace / "oof.npz")

    def expected(prevalence=0.5, **changes):
        params = infer_params(**{"temperature": 3.0, "smoothing": [1, 2, 1]} | changes)
        scores = recording_scores(own, params)[[2, 0, 1]]
        factors = estimate_prevalence(recording_scores(oof, params), scores).factors(prevalence)
        return with_odds_times(scores, factors)

    np.testing.assert_allclose(scores_of(workspace / SUBMISSION), expected())
    without = workspace / "submission/without"
    assert (without / "steps.csv").read_text().split() == ["step", "temperature", "smoothing", "prevalence"]
    np.testing.assert_allclose(scores_of(without / "temperature.csv"), expected(temperature=1.0))
    np.testing.assert_allclose(scores_of(without / "smoothing.csv"), expected(smoothing=[]))
    np.testing.assert_allclose(scores_of(without / "prevalence.csv"), expected(prevalence=0.0))
    table = pd.read_csv(workspace / "submission/prevalence.csv")
    assert table["species"].tolist() == SPECIES
    np.testing.assert_allclose(table["factor"], (table["scored"] / table["training"]) ** 0.5)
    factors = f"odds times {table['factor'].min():.2f} … {table['factor'].max():.2f}"
    assert factors in capsys.readouterr().out


def test_rescaling_follows_the_species_not_the_order_of_columns(workspace):
    set_infer(workspace, prevalence=1.0)
    infer.main(ARGV)
    in_class_order = read_score_table(workspace / SUBMISSION)
    sample = read_score_table(workspace / "sample_submission.csv")
    write_score_table(sample[["recording_id", *COLUMNS[:0:-1]]], workspace / "sample_submission.csv")
    infer.main(ARGV)
    pd.testing.assert_frame_equal(read_score_table(workspace / SUBMISSION)[COLUMNS], in_class_order)


def test_a_submission_is_written_without_each_step_of_predict(workspace):
    set_infer(workspace, prevalence=1.0)
    infer.main(ARGV)
    whole = (workspace / SUBMISSION).read_bytes()
    folder = workspace / "without/tta"
    folder.mkdir()
    window_scores(seed=7).save(folder / "test.npz")
    window_scores((2,) * len(TRAIN), 1, prefix="t", seed=8, fold=FOLD).save(folder / "oof.npz")
    write_steps(["tta"], workspace / "without")
    infer.main(ARGV)
    assert (workspace / SUBMISSION).read_bytes() == whole
    assert read_steps(workspace / "submission/without") == ["tta", "prevalence"]
    without = (workspace / "submission/without/tta.csv").read_bytes()
    for name in ("test.npz", "oof.npz"):
        (folder / name).rename(workspace / name)
    write_steps([], workspace / "without")
    infer.main(ARGV)
    assert (workspace / SUBMISSION).read_bytes() == without != whole


def test_an_empty_test_set_is_not_rescaled(workspace):
    set_infer(workspace, prevalence=1.0)
    window_scores(()).save(workspace / "test.npz")
    write_sample([])
    infer.main(ARGV)
    assert (workspace / SUBMISSION).read_text() == ",".join(COLUMNS) + "\n"
    assert (workspace / "submission/prevalence.csv").read_text() == "species,training,scored,factor\n"
    assert (workspace / "submission/without/prevalence.csv").read_text() == ",".join(COLUMNS) + "\n"


@pytest.fixture
def parts(tmp_path_factory, monkeypatch):
    """Scores of two finished experiments on both sets, and their references."""
    repository = ToyRepository(tmp_path_factory.mktemp("main") / "main")
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    rng = np.random.default_rng(5)
    oof, test = rng.random((2, len(TRAIN), 4)), rng.random((2, 3, 4))
    for part, name in enumerate(("exp0021", "exp0025")):
        tables = {OUT_OF_FOLD: score_table(TRAIN, SPECIES, oof[part])}
        tables[SUBMISSION] = score_table(["r2", "r0", "r1"], SPECIES, test[part])
        outs = {path: repository.cache_table(table) for path, table in tables.items()}
        repository.experiment(name, outs)
        repository.experiment(
            f"rescaled{part}", outs | {"a": str(part)}, {**PARAMS, "infer": {"prevalence": 1.0}}
        )
    return oof, test, repository


def named(*names):
    return [find(name).reference for name in names]


def test_a_weighted_blend_is_held_against_the_plain_mean(workspace, parts, capsys):
    oof, test, _ = parts
    set_infer(workspace, blend=named("exp0021", "exp0025"), blend_weights=[3, 1], prevalence=1.0)
    infer.main(ARGV)

    def expected(weights):
        own, seen = (np.average(scores, axis=0, weights=weights) for scores in (test, oof))
        return with_odds_times(own, estimate_prevalence(seen, own).factors(1.0))

    np.testing.assert_allclose(scores_of(workspace / SUBMISSION), expected([3, 1]))
    np.testing.assert_allclose(
        scores_of(workspace / "submission/without/blend_weights.csv"), expected([1, 1])
    )
    assert "blend of 3 × exp0021@" in capsys.readouterr().out


def test_a_stack_is_fitted_on_all_out_of_fold_scores(workspace, parts, capsys):
    oof, test, _ = parts
    set_infer(workspace, blend=named("exp0021", "exp0025"), stack=True)
    infer.main(ARGV)
    is_present = np.array([[species == i % 4 for species in range(4)] for i in range(len(TRAIN))])
    expected = fit_stack(oof, is_present).scores(test)
    np.testing.assert_allclose(scores_of(workspace / SUBMISSION), expected)
    np.testing.assert_allclose(scores_of(workspace / "submission/without/stack.csv"), test.mean(axis=0))
    assert "regressions for 4 species" in capsys.readouterr().out


@pytest.mark.parametrize("step", [{"stack": True}, {"prevalence": 0.5}])
def test_parts_that_were_rescaled_themselves_are_refused(workspace, parts, step):
    set_infer(workspace, blend=named("rescaled0", "exp0025"), **step)
    with pytest.raises(UserError, match=r"infer.prevalence rescaled the submission of rescaled0@"):
        infer.main(ARGV)
