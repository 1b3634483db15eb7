"""Every row of the table learns and predicts, on recordings of 150 frames and 32 mel rows."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from callboard.experiments.table import read_experiments
from callboard.features.frame_cache import MelCache
from callboard.model.weights import LoadedModel
from callboard.params.base import read_tree, validate
from callboard.params.experiment import Experiment
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import score_recordings
from callboard.scoring.window_scores import recording_scores
from callboard.training.fit import Execution, FitParams, fit
from tests.toy_training import CPU, PARAMS, SPECIES, changed, load_fold

ROOT = Path(__file__).parents[2]
COMMITTED = read_tree(ROOT / "tests/params.yaml")
TABLE = read_experiments(ROOT / "experiments.yaml")
SIZE = {
    "scale.window": 1 / 8,
    "scale.fp_per_epoch": 1 / 25,
    "scale.learning_rate": 1.0,
    "features.n_mels": 32,
    "split.folds": [0, 1, 2],
    "augment.time_mask": 20,
    "model.backbone_args": PARAMS["model"]["backbone_args"],
    "train.epochs": 1,
    "train.batch_size": 3,  # makes two steps
}
SIZED = changed(COMMITTED, SIZE)
NAMES = [name for name, row in TABLE.rows.items() if not row.command and not row.is_preset]

ACTS_ELSEWHERE = {"infer.fold_agg", "infer.blend", "pseudo.rounds", "pseudo.source"}
"""Not on one network of round 0."""
ACTS_LATER = {"train.select", "train.validate_every"}
"""Not within one epoch."""
LATE_ROWS = {"exp0012"}
"""Plateau: its schedule moves the rate after some epochs only; tests of schedules show that it does."""

Run = Callable[[str], NDArray[np.float64]]


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    """A row's probabilities (recordings, species) after two steps of training; each row is trained once."""
    data = {labels: load_fold(root, labels=labels) for labels in ("tp", "fp")}
    unequal = np.array([1, 2, 4])  # so that class weights are not all 1
    data = {labels: dataclasses.replace(fold, n_tp_annotations=unequal) for labels, fold in data.items()}
    mels = MelCache.open(root / "mel")
    ids = mels.recording_ids[:2]

    @cache
    def train_and_predict(name: str) -> NDArray[np.float64]:
        tree = changed(SIZED, TABLE.resolve(name, SIZED) | {"infer.blend": []})
        experiment = validate(Experiment, tree, name)
        params, score_params = (
            validate(cls, {section: tree[section] for section in cls.model_fields}, name)
            for cls in (FitParams, ScoreParams)
        )
        fitted = fit(params, 0, data[experiment.train.labels], Execution(CPU))
        assert np.isfinite([value for value in fitted.history[0].values() if value is not None]).all()
        loaded = LoadedModel(fitted.model.eval(), SPECIES, 0, experiment.clip, frozenset(ids))
        return recording_scores(score_recordings([loaded], mels, ids, score_params, CPU), experiment.infer)

    return train_and_predict


@pytest.mark.parametrize("name", NAMES)
def test_a_row_learns_and_predicts(name: str, run: Run) -> None:
    probabilities = run(name)
    assert probabilities.shape == (2, len(SPECIES))
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("name", NAMES[1:])
def test_what_a_row_changes_is_seen_in_its_scores(name: str, run: Run) -> None:
    step = TABLE.step(name)
    assert step
    has_effect = name not in LATE_ROWS and bool(step.keys - ACTS_ELSEWHERE - ACTS_LATER)
    assert has_effect == (not np.array_equal(run(name), run(step.base)))
