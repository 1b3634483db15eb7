"""Presets: what they hold, and params.yaml with one applied."""

import shutil
from pathlib import Path

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.experiments.presets import apply_preset, preset_path, read_preset, with_values
from callboard.experiments.table import look_up
from callboard.params.base import read_tree
from callboard.params.experiment import load_experiment
from tests.toy_git import ToyRepository

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
COMMITTED = read_tree(ROOT / "tests/params.yaml")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """The project's params.yaml and presets, committed."""
    repository = ToyRepository(tmp_path / "main")
    shutil.copy(ROOT / "tests/params.yaml", repository.root)
    shutil.copytree(ROOT / "presets", repository.root / "presets")
    shutil.copy(ROOT / "dvc.yaml", repository.root)
    repository.commit()
    monkeypatch.chdir(repository.root)
    return repository


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_lists_only_what_differs_from_params_yaml(name: str) -> None:
    for key, value in read_preset(ROOT / "presets" / f"{name}.yaml").items():
        assert look_up(COMMITTED, key) != value, key


@pytest.mark.parametrize("name", NAMES)
def test_params_yaml_is_sound_with_a_preset_and_git_undoes_it(
    name: str, workspace: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    values = read_preset(preset_path(name))
    cli.dispatch(["preset", name])
    assert read_tree(Path("params.yaml")) == with_values(COMMITTED, values)
    load_experiment()
    lines = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    assert (
        lines[:2] == (ROOT / "tests/params.yaml").read_text(encoding="utf-8").splitlines()[:2]
    )  # comments stay
    cli.dispatch(["preset", name])
    told = capsys.readouterr().out.splitlines()
    path = f"presets/{name}.yaml"
    assert told == [
        f"preset: {len(values)} parameters of params.yaml changed to those of {path}; "
        "`git checkout params.yaml` undoes it",
        f"preset: params.yaml already has all values of {path}",
    ]


def test_what_params_yaml_leaves_out_is_added(workspace: ToyRepository) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("  rare_species: error\n", ""), encoding="utf-8")
    workspace.commit()
    apply_preset(preset_path("rfcx"))
    assert load_experiment().split.rare_species == "allow"


def test_the_file_of_a_preset_is_no_params_yaml(workspace: ToyRepository) -> None:
    with pytest.raises(UserError, match="set: unknown parameter"):
        load_experiment(preset_path("rfcx"))


def test_what_git_does_not_hold_is_not_written_over(workspace: ToyRepository) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text(encoding="utf-8").replace("416", "417"))
    with pytest.raises(UserError, match=r"params.yaml has uncommitted changes; commit them or"):
        apply_preset(preset_path("rfcx"))
    assert read_tree(Path("params.yaml")) == COMMITTED | {"seed": 417}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("set: {loss.negmask: seq}", "loss.negmask is not a parameter"),
        ("set: {train.epochs: many}", "train.epochs 'many': Input should be a valid integer"),
        ("train: {epochs: 3}", "train: unknown parameter"),
        (
            "set: {predict.overlap_frames: 256}",
            r"with the preset:\n.*must be below clip.n_frames",
        ),
    ],
)
def test_a_wrong_preset_changes_nothing(text: str, words: str, workspace: ToyRepository) -> None:
    Path("presets/wrong.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        apply_preset(preset_path("wrong"))
    assert read_tree(Path("params.yaml")) == COMMITTED


def test_an_unknown_preset_is_refused_with_those_that_there_are(workspace: ToyRepository) -> None:
    with pytest.raises(UserError, match="no preset 'rcfx' in presets; available: rfcx"):
        cli.dispatch(["preset", "rcfx"])
