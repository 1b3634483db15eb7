"""The map and the territory: dvc.yaml against the code, params.yaml, .gitignore and README."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from callboard.core.code_fingerprint import LOCKS, import_closure
from callboard.data.recording_listing import LISTING_STAGE
from callboard.data.sources import SOURCES
from callboard.params.base import Params, read_tree
from callboard.params.defaults import NOT_OF_A_RESULT
from callboard.params.experiment import Experiment, load_experiment
from callboard.params.scoring import MAX_ROUNDS, held_out_sets
from callboard.pseudo.held_out import folds_named, labels_file, networks_behind, weights_file

ROOT = Path(__file__).parent.parent
PIPELINE = read_tree(ROOT / "dvc.yaml")
STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage) for name, stage in PIPELINE["stages"].items()
}
WHOLE_FILE = {"check", "track"}
"""Stages that read all of params.yaml, and depend on the file."""


def sections(stage: str) -> set[str]:
    return {name.split(".")[0] for name in STAGES[stage].get("params", [])}


def outs(entry: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Path and whether DVC caches it."""
    for kind in ("outs", "metrics", "plots"):
        for out in entry.get(kind, []):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            yield re.sub(r"\$\{.*?\}", "0", path), options.get("cache", True)


def module_of(stage: str) -> str:
    """The module that a stage's command runs."""
    match = re.match(r"python -m (stages\.\w+) ", STAGES[stage]["cmd"])
    assert match, f"{stage}: expected a cmd like 'python -m stages.x …'"
    return match[1]


def params_class(module: str) -> type[Params] | None:
    """The class of a stage script that names the sections it reads."""
    found = [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type) and issubclass(value, Params) and value.__module__ == module
    ]
    assert len(found) <= 1, f"{module} has {len(found)} classes of parameters"
    return found[0] if found else None


def test_every_stage_but_code_depends_on_the_fingerprint_of_its_own_imports() -> None:
    for stage in set(STAGES) - {"code"}:
        named = [dep for dep in STAGES[stage]["deps"] if dep.startswith((".check/code", "src", "stages"))]
        assert named == [f".check/code/{module_of(stage).removeprefix('stages.')}.txt"], stage
    assert STAGES["code"]["deps"] == ["stages", "src/callboard", *LOCKS]


@pytest.mark.parametrize("stage", sorted(set(STAGES) - WHOLE_FILE))
def test_a_stage_reads_the_sections_that_it_depends_on(stage: str) -> None:
    cls = params_class(module_of(stage))
    assert set(cls.model_fields if cls else ()) == sections(stage)


def test_stages_depend_on_whole_sections_that_params_yaml_lists() -> None:
    """DVC refuses a key that dvc.yaml names and params.yaml lacks, as an older one lacks a new key."""
    refuse_missing_keys(read_tree(ROOT / "tests/params.yaml"))


def refuse_missing_keys(listed: dict[str, Any]) -> None:
    named = {name for stage in STAGES for name in STAGES[stage].get("params", [])}
    assert named == set(listed) - {NOT_OF_A_RESULT}
    for section, key in re.findall(r"\$\{(\w+)\.(\w+)", (ROOT / "dvc.yaml").read_text(encoding="utf-8")):
        assert section == "item" or key in listed[section]


def indexed_stages(tree: dict[str, Any], folder: Path) -> list[Any]:
    """The stages of dvc.yaml as DVC has them for these parameters, none of which makes what another makes."""
    YAML().dump(tree, folder / "params.yaml")
    shutil.copy(ROOT / "dvc.yaml", folder)
    with Repo.init(str(folder), no_scm=True) as repo:
        repo.index.check_graph()
        return list(repo.index.stages)


@pytest.mark.parametrize("isolation", ["recording", "none", "nested"])
@pytest.mark.parametrize("rounds", range(MAX_ROUNDS + 1))
def test_dvc_has_the_stages_of_as_many_rounds_as_params_yaml_asks_for(
    rounds: int, isolation: str, tmp_path: Path
) -> None:
    tree = read_tree(ROOT / "tests/params.yaml")
    tree["pseudo"] |= {"rounds": rounds, "isolation": isolation}
    cmds = [str(stage.cmd) for stage in indexed_stages(tree, tmp_path)]
    labelled = [
        re.search(r"pseudo_label --round (\d) --models (\S+) .* --pseudo pseudo/r(\d)", cmd) for cmd in cmds
    ]
    teachers = ["networks" if isolation == "nested" else f"models/r{k}" for k in range(rounds)]
    assert [found.groups() for found in labelled if found] == [
        (f"{k}", teacher, f"{k}") for k, teacher in enumerate(teachers, start=1)
    ]
    curves = [re.search(r"stages\.train .* --curve plots/train/(.*)\.csv", cmd) for cmd in cmds]
    trained = [f"r{number}-fold{fold}" for number in range(rounds + 1) for fold in tree["split"]["folds"]]
    assert sorted(found[1] for found in curves if found) == trained
    assert any(f"stages.predict --models models/r{rounds} " in cmd for cmd in cmds)


@pytest.mark.parametrize("source", SOURCES)
def test_the_content_of_a_folder_is_listed_each_time_and_that_of_soundscapes_never(
    source: str, tmp_path: Path
) -> None:
    tree = read_tree(ROOT / "tests/params.yaml")
    tree["data"]["source"] = source
    listing, *others = [
        stage
        for stage in indexed_stages(tree, tmp_path)
        if ".check/recordings.csv" in [out.def_path for out in stage.outs]
    ]
    assert not others
    assert listing.always_changed == (source != "demo")
    assert listing.name.startswith(LISTING_STAGE) == (source != "demo")


@pytest.mark.parametrize("isolation", ["recording", "nested"])
def test_a_result_with_rounds_has_every_output_of_one_without(isolation: str, tmp_path: Path) -> None:
    """So `dvc checkout` works in a fresh clone after `callboard run` of any row, whose dvc.lock it gets."""
    made = []
    for rounds in (0, 2):
        tree = read_tree(ROOT / "tests/params.yaml")
        tree["pseudo"] |= {"rounds": rounds, "isolation": isolation}
        folder = tmp_path / str(rounds)
        folder.mkdir()
        made.append({out.def_path for stage in indexed_stages(tree, folder) for out in stage.outs})
    assert made[0] <= made[1]


@pytest.mark.parametrize(("n_folds", "rounds"), [(3, 0), (3, 1), (4, 2), (5, 1), (5, 2), (5, 3)])
def test_each_nested_network_is_a_stage_that_waits_for_its_teachers(
    n_folds: int, rounds: int, tmp_path: Path
) -> None:
    """The networks that labels need, each by itself; labels wait for the folders of all of them."""
    folds = list(range(n_folds))
    tree = read_tree(ROOT / "tests/params.yaml")
    tree["split"]["folds"] = folds
    tree["pseudo"] |= {"rounds": rounds, "isolation": "nested"}
    for size, name in enumerate(tree["pseudo"]["held_out"], start=2):
        tree["pseudo"]["held_out"][name] = held_out_sets(folds, size)
    stages = indexed_stages(Experiment.model_validate(tree).model_dump(), tmp_path)

    expected = {one for number in range(1, rounds + 1) for one in networks_behind(folds, number)}
    made = [out.def_path for stage in stages for out in stage.outs if out.def_path.startswith("networks/")]
    labels = [f"networks/{labels_file(*one)}" for one in expected if one[0]]
    assert sorted(made) == sorted(labels + [f"networks/{weights_file(*one)}" for one in expected])

    for stage in stages:
        waits_for = {dep.def_path for dep in stage.deps if dep.def_path.startswith("networks/")}
        if match := re.search(r"pseudo_label --round (\d) (?:--held-out (\S+) )?--models", str(stage.cmd)):
            size = len(folds_named(match[2])) if match[2] else 1
            behind = networks_behind(folds, int(match[1]), size)
            assert waits_for == {f"networks/{weights_file(*one)}".rpartition("/")[0] for one in behind}
        elif match := re.search(r"network --round (\d) --held-out (\S+) .* --weights (\S+)", str(stage.cmd)):
            number, held_out = int(match[1]), folds_named(match[2])
            assert match[3] == f"networks/{weights_file(number, held_out)}"
            assert waits_for == ({f"networks/{labels_file(number, held_out)}"} if number else set())
        else:
            assert not waits_for


@pytest.mark.parametrize("stage", sorted(WHOLE_FILE))
def test_a_stage_that_reads_all_parameters_depends_on_the_file(stage: str) -> None:
    assert "params.yaml" in STAGES[stage]["deps"]
    assert params_class(module_of(stage)) is None


def test_every_parameter_of_a_result_is_read_by_some_stage() -> None:
    templated = set(re.findall(r"\$\{(\w+)\.", (ROOT / "dvc.yaml").read_text(encoding="utf-8")))
    assert set(Experiment.model_fields) - {NOT_OF_A_RESULT} == templated - {"item"} | {
        section for stage in STAGES for section in sections(stage)
    }


def test_every_file_that_a_stage_depends_on_exists_or_is_made() -> None:
    made = {re.sub(r"\d", "0", path) for entry in STAGES.values() for path, _ in outs(entry)}
    for name, entry in STAGES.items():
        for dep in entry["deps"]:
            path = re.sub(r"\$\{.*?\}|\d", "0", dep)
            is_made = any(
                path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in made
            )
            assert is_made or (ROOT / path).exists(), f"{name} depends on {dep}"


def test_only_track_has_an_uncached_out() -> None:
    """DVC's run-cache skips a stage with one: training would run again where it could be restored."""
    with_uncached = {
        name
        for name, entry in STAGES.items()
        for out in entry.get("outs", [])
        if isinstance(out, dict) and not next(iter(out.values())).get("cache", True)
    }
    assert with_uncached == {"track"}


def test_cached_outs_are_ignored_by_the_gitignore_at_the_root() -> None:
    """Else DVC writes a .gitignore beside them, which is then hashed as part of a directory dependency.

    track.json is ignored too: a clone that brought it along would take its result for recorded.
    """
    cached = [path for entry in STAGES.values() for path, is_cached in outs(entry) if is_cached]
    cached.append("track.json")
    command = ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", "--verbose", *cached]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    ignored = {line.split("\t")[1] for line in printed.splitlines() if line.startswith(".gitignore:")}
    assert ignored == set(cached)


def test_metrics_and_plots_are_kept_in_git() -> None:
    kept = [path for entry in STAGES.values() for path, is_cached in outs(entry) if not is_cached]
    assert {path.split("/")[0] for path in kept if path != "track.json"} == {"metrics", "plots"}


def test_the_plots_of_all_folds_name_the_folds_of_exp0051() -> None:
    folds = load_experiment(ROOT / "tests/params.yaml").split.folds
    for plot in PIPELINE["plots"]:
        (definition,) = plot.values()
        assert list(definition["y"]) == [f"plots/train/r0-fold{fold}.csv" for fold in folds]


def test_params_yaml_is_sound() -> None:
    """The only test that reads the workspace's own parameters: all others have tests/params.yaml."""
    load_experiment(ROOT / "params.yaml")
    refuse_missing_keys(read_tree(ROOT / "params.yaml"))


def test_an_override_changes_one_line_of_params_yaml(tmp_path: Path) -> None:
    copy = tmp_path / "params.yaml"
    shutil.copy(ROOT / "tests/params.yaml", copy)
    apply_overrides(copy, ["seed=416"])
    assert copy.read_text(encoding="utf-8") == (ROOT / "tests/params.yaml").read_text(encoding="utf-8")


def test_the_training_rooms_need_no_dvc_mlflow_or_soundfile() -> None:
    for file in import_closure(ROOT, "stages.train"):
        text = (ROOT / file).read_text(encoding="utf-8")
        imports = re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)
        assert not {"dvc", "mlflow", "soundfile"} & set(imports), file


def test_stages_that_need_no_network_do_not_import_torch() -> None:
    for stage in (
        "code",
        "check",
        "recordings",
        "prepare",
        "crop",
        "split",
        "evaluate",
        "infer",
        "score",
        "track",
    ):
        for file in import_closure(ROOT, f"stages.{stage}"):
            text = (ROOT / file).read_text(encoding="utf-8")
            assert not re.search(r"^(?:import|from) (torch|timm)\b", text, re.MULTILINE), f"{stage}: {file}"


def test_the_page_of_concepts_draws_and_lists_the_stages_of_the_pipeline() -> None:
    page = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    diagram = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert diagram
    drawn = set(re.findall(r"\b[a-z]+(?:_[a-z]+)*\b", diagram[1])) - {"flowchart"}
    names = {re.sub(r"(_r?\d)+$", "", name) for name in STAGES}
    assert names <= drawn
    assert not [name for name in names if f"`{name}`" not in page]


def test_the_architecture_has_a_phrase_for_every_room() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [path.name for path in (ROOT / "src/callboard").iterdir() if path.is_dir()]
    assert not [name for name in rooms if not name.startswith("__") and f"| `{name}` |" not in page]
