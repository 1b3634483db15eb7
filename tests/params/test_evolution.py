"""A field added to every section: what was made before it is read, goes on, and compares as it did.

The package is copied, each section's class gets a field, and a process of that copy reads what this one made.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from callboard.data.folds import write_folds
from callboard.model.class_axis import species_classes
from callboard.model.weights import WeightsParams, load_model, save_model
from callboard.params.base import read_tree
from callboard.pseudo.labels import write_pseudo_labels
from callboard.results.mlflow.sync import sync
from callboard.results.result import OUT_OF_FOLD, SUBMISSION
from tests.toy_git import ToyRepository, lock_stages
from tests.toy_models import (
    CLIP,
    MODEL,
    SPECIES,
    TOY_FOLDS,
    TRAIN,
    TRAINING_SECTIONS,
    random_out_of_fold,
    tiny_network,
    toy_clips,
)

ROOT = Path(__file__).parents[2]
FIELD = "later"
COMPOSED = {"Params", "FrontEndParams", "Experiment"}
"""Classes of parameters that are no section of params.yaml."""
AXIS = species_classes(toy_clips(), SPECIES)
IMAGE = torch.linspace(0, 1, 64 * 32).reshape(1, 64, 32)  # (batch, frames, mels)
NETWORKS = [(0, 1), (0, 2), (1, 2)]

pytestmark = pytest.mark.slow

Facts = dict[str, Any]


def add_field(file: Path) -> list[str]:
    """Give each section's class of a module a field with a default; their names."""
    lines = file.read_text(encoding="utf-8").splitlines()
    classes = [
        node
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Params") and node.name not in COMPOSED
    ]
    for node in reversed(classes):
        lines.insert(node.body[0].end_lineno or 0, f"    {FIELD}: float = 0.0")  # after the docstring
    file.write_text("\n".join(lines), encoding="utf-8")
    return [node.name for node in classes]


def whole_tree() -> dict[str, Any]:
    """params.yaml of before: every key listed, for the toy's three folds."""
    tree = read_tree(ROOT / "tests/params.yaml")
    tree["split"]["folds"] = [0, 1, 2]
    return tree


def write_round(folder: Path, repository: ToyRepository) -> None:
    """A nested round: its labels, folds, networks, and the networks of the round before."""
    clips = toy_clips().drop_duplicates("recording_id").set_index("recording_id", drop=False)
    recording = TOY_FOLDS[1][0]
    table = clips.loc[[recording]].assign(
        label_type="pseudo", round=1, teacher="r0/folds0-1", score=0.9, votes=1, target=1.0, student="0"
    )
    write_folds(
        pd.DataFrame({"recording_id": list(TRAIN), "fold": [i % 3 for i in range(len(TRAIN))]}),
        folder / "data/folds.csv",
    )
    write_pseudo_labels(table.reset_index(drop=True), folder / "pseudo/r1.csv")
    entries = []
    for one, other in NETWORKS:
        path = folder / f"r0-folds{one}-{other}.pt"
        save_network(path, one, TOY_FOLDS[one] + TOY_FOLDS[other])
        entries.append({"relpath": path.name, "md5": repository.cache(path.read_bytes())})
    (folder / "pseudo/r1-networks").write_text(json.dumps(entries))
    for fold in range(3):
        save_network(folder / f"models/r0/fold{fold}.pt", fold, TOY_FOLDS[fold])


def save_network(path: Path, fold: int, held_out: list[str]) -> None:
    params = WeightsParams(model=MODEL, clip=CLIP)
    save_model(path, tiny_network(fold), params, AXIS, fold, held_out)


def finish(repository: ToyRepository, name: str, seed: int, tree: dict[str, Any], networks: Path) -> None:
    """An experiment with the tables of its seed and networks of three folds."""
    table = random_out_of_fold(seed)
    outs = {
        SUBMISSION: repository.cache_table(table.drop(columns="fold")),
        OUT_OF_FOLD: repository.cache_table(table),
    }
    for fold in range(3):
        path = f"models/r0/fold{fold}.pt"
        outs[path] = repository.cache((networks / path).read_bytes())
    stages = lock_stages(outs, tree)
    recipe = {"params.yaml": {name: tree[name] for name in ("seed", "augment", *TRAINING_SECTIONS)}}
    stages["train@0"] = stages.pop("train") | {"params": recipe}
    (repository.root / "dvc.lock").write_text(yaml.dump({"schema": "2.0", "stages": stages}))
    (repository.root / "params.yaml").write_text(yaml.dump(tree))
    commit = repository.commit()
    repository.git(
        "update-ref", f"refs/exps/{repository.baseline[:2]}/{repository.baseline[2:]}/{name}", commit
    )
    repository.git("reset", "--quiet", "--hard", repository.baseline)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> ToyRepository:
    """A result that MLflow holds, its weights in DVC's cache, and a nested round in `round/`."""
    repository = ToyRepository(tmp_path_factory.mktemp("before") / "main")
    root = repository.root
    (root / ".gitignore").write_text(
        "/.dvc/cache\n/.dvc/table.csv\n/mlflow.db*\n/.mlflow.lock\n/.cache\n/round\n"
    )
    (root / "params.yaml").write_text(yaml.dump(whole_tree()))
    (root / "leaderboard.csv").write_text("submission_md5,public,private,date,note\n")
    (root / "plots/train").mkdir(parents=True)
    for fold in range(3):
        (root / f"plots/train/r0-fold{fold}.csv").write_text("epoch,loss\n0,2.0\n")
    (root / "metrics").mkdir()
    (root / "metrics/cv.json").write_text('{"cv": {"lwlrap": 0.7}}')
    (root / "metrics/lb.json").write_text('{"lb": {"public": 0.65, "private": 0.64}}')
    repository.baseline = repository.commit()
    shutil.copy(empty_database, root / "mlflow.db")
    write_round(root / "round", repository)
    finish(repository, "before", 416, whole_tree(), root / "round")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("DVC_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert sync().new == 1
    return repository


READS_WHAT_WAS_MADE_BEFORE = """
import json, sys
from pathlib import Path

import torch

from callboard.analysis.bases import Bases
from callboard.model.weights import load_model
from callboard.params.base import validate
from callboard.params.experiment import load_experiment
from callboard.pseudo.provenance import read_lineage
from callboard.results.mlflow.sync import sync
from callboard.results.result import SUBMISSION
from callboard.results.rows import read_rows
from callboard.scoring.blend import blend_tables, refuse_rescaled
from callboard.training.fit import FitParams
from callboard.training.start_weights import find_fold_weights, find_recipe
from tests.params.test_evolution import AXIS, IMAGE
from tests.toy_models import MODEL, TOY_FOLDS, TRAIN, tiny_network

experiment = load_experiment()
loaded = load_model(Path("round/models/r0/fold0.pt"), torch.device("cpu"))
sync()
old, new = read_rows()
reference = f"{old.name}@{old.key}"
recipe = validate(FitParams, find_recipe(reference), reference)
start = find_fold_weights(reference, 0, AXIS, set(TOY_FOLDS[0]))
network = tiny_network(5)
start.load_into(network, MODEL)
refuse_rescaled([reference], "stack")
blend = blend_tables([reference], SUBMISSION, list(TRAIN), ["s3", "s07", "sx1"])
nested = {"pseudo.rounds": "1", "pseudo.isolation": "nested", "split.folds": "[0, 1, 2]"}
(lineage,) = read_lineage(Path("round").joinpath, ["pseudo/r1-networks"], nested)
json.dump(
    {
        "fields": [experiment.loss.later, experiment.data.demo.later, recipe.train.later, start.model.later],
        "predicted": loaded.model(IMAGE)[0].tolist(),
        "predicted by start": network(IMAGE)[0].tolist(),
        "names": [old.name, new.name],
        "differing": sorted(key for key in new.params if old.params.get(key) != new.params[key]),
        "is one setting": old.setting == new.setting,
        "base": Bases([old, new]).start_of(new).name,
        "blend": blend.to_numpy()[:, 1:].tolist(),
        "nested": [lineage.sentence, lineage.violations],
    },
    sys.stdout,
)
"""


@pytest.fixture(scope="module")
def after(before: ToyRepository, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What a process finds whose sections all have the field; a second result of it lists some of them."""
    copy = tmp_path_factory.mktemp("after")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    changed = [name for file in (copy / "src/callboard/params").glob("*.py") for name in add_field(file)]
    assert {"LossParams", "DemoParams", "ModelParams", "ClipParams", "PseudoParams"} <= set(changed)
    tree = whole_tree() | {"seed": 1}
    tree["loss"][FIELD], tree["data"]["demo"][FIELD] = 0.0, 0
    finish(before, "after", 1, tree, before.root / "round")
    stages = lock_stages({}, whole_tree())
    (before.root / "dvc.lock").write_text(yaml.dump({"schema": "2.0", "stages": stages}))
    environment = os.environ | {"PYTHONPATH": f"{copy / 'src'}:{ROOT}", "DVC_ROOT": str(before.root)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", READS_WHAT_WAS_MADE_BEFORE]
    done = subprocess.run(
        command, cwd=before.root, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    found: Facts = json.loads(done.stdout)
    return found


def test_params_recipes_and_start_weights_of_before_have_the_default(after: Facts) -> None:
    assert after["fields"] == [0.0] * 4


def test_weights_of_before_predict_what_they_did(before: ToyRepository, after: Facts) -> None:
    now = load_model(before.root / "round/models/r0/fold0.pt", torch.device("cpu")).model(IMAGE)[0].tolist()
    assert after["predicted"] == now
    assert after["predicted by start"] == now


def test_a_blend_takes_a_result_of_before(after: Facts) -> None:
    expected = random_out_of_fold(416).drop(columns=["recording_id", "fold"])
    np.testing.assert_allclose(after["blend"], expected)


def test_a_nested_round_of_before_is_still_proved(after: Facts) -> None:
    words = "isolated: no teacher had seen its recording, or what its student is validated on (1 of 1)"
    assert after["nested"] == [words, []]


def test_the_board_holds_results_of_before_and_after_as_of_one_setting(after: Facts) -> None:
    assert after["names"] == ["before", "after"]
    assert after["differing"] == ["seed"]
    assert after["is one setting"]
    assert after["base"] == "before"
