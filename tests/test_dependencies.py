"""Dependencies proved: what each stage opens and asks of params.yaml while it runs, against dvc.yaml.

Every stage runs once in this process, as dvc.yaml says, and some once more in another way, since no single
setting reads all. `track` is left out: it reads what DVC itself writes, and needs the whole params.yaml.
"""

import importlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import networkx
import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from ruamel.yaml import YAML

from callboard.core.code_fingerprint import LOCKS
from callboard.params import base
from callboard.params.base import Params, read_tree
from callboard.params.scoring import held_out_sets
from tests.conftest import ROOT, merge, new_workspace

pytestmark = pytest.mark.slow

FIRST: dict[str, Any] = {
    "data": {"corrections": True, "demo": {"n_external_recordings": 4}},
    "split": {"folds": [0, 1, 2, 3]},
    "train": {"epochs": 1},
    "pseudo": {
        "rounds": 2,
        "isolation": "nested",
        "held_out": {"pairs": held_out_sets(range(4), 2), "triples": held_out_sets(range(4), 3)},
    },
}
"""On top of the toy parameters, so that every stage has something to do."""

AGAIN: dict[str, dict[str, Any]] = {
    "recordings": {"data": {"source": "own", "root": "../recordings"}},
    "prepare": {},
    "pseudo_label_1": {"pseudo": {"isolation": "recording", "labels": "soft", "source": "test"}},
    "infer": {"infer": {"prevalence": 0.5}},
}
"""What else reads what the first run leaves unread, or a stage that the first run is without, by stage."""

STANDS_FOR_MORE = ".check/"
"""Fingerprints of code, and the check of all parameters: no stage opens them."""


@dataclass(frozen=True)
class Declared:
    """What dvc.yaml says of a stage."""

    command: str
    deps: frozenset[str]
    params: frozenset[str]
    outs: frozenset[str]


@dataclass
class Reads:
    """What a stage read."""

    files: set[str] = field(default_factory=set)
    """Paths below the workspace."""
    keys: set[str] = field(default_factory=set)
    """Of params.yaml, dotted."""


class Recorder:
    """Notes opened files and read parameters, while there is something to note them in."""

    def __init__(self) -> None:
        self.reads: Reads | None = None
        self.sections: dict[int, tuple[str, Params]] = {}
        """By id: prefix of the keys, and the section itself, so that no other takes its id."""

    @contextmanager
    def into(self, reads: Reads) -> Iterator[None]:
        self.reads = reads
        try:
            yield
        finally:
            self.reads = None
            self.sections.clear()

    def note_open(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A hook of `sys.addaudithook`, which cannot be taken away again."""
        if self.reads is None or event not in ("open", "os.listdir", "os.scandir"):
            return
        path, mode = arguments[0], arguments[1] if event == "open" else "r"
        # `os.open` has no mode; by it `shutil.rmtree` opens folders, named relative to their parents
        if isinstance(path, str | bytes) and mode is not None and not set(mode) & set("wxa+"):
            self.reads.files.add(os.path.relpath(os.fsdecode(path)))

    def watch(self, section: Params, prefix: str = "") -> None:
        """Note from now on what is read of parameters, once they are validated."""
        for name in type(section).model_fields:
            if isinstance(value := getattr(section, name), Params):
                self.watch(value, f"{prefix}{name}.")
        self.sections[id(section)] = prefix, section

    def note_key(self, section: Params, name: str) -> Any:
        """In place of `Params.__getattribute__`."""
        value = object.__getattribute__(section, name)
        if self.reads and id(section) in self.sections and not isinstance(value, Params):
            prefix = self.sections[id(section)][0]
            self.reads.keys |= {f"{prefix}{name}"} if name in type(section).model_fields else set()
        return value


RECORDER = Recorder()
sys.addaudithook(RECORDER.note_open)


def declared_stages(root: Path) -> dict[str, Declared]:
    """The stages as DVC reads them, each after what it depends on."""
    with Repo(str(root)) as repo:
        return {stage.name: declared(stage) for stage in networkx.dfs_postorder_nodes(repo.index.graph)}


def declared(stage: Any) -> Declared:
    params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
    return Declared(
        stage.cmd,
        deps=frozenset(dep.def_path for dep in stage.deps if dep not in params),
        params=frozenset(key for dep in params for key in dep.params),
        outs=frozenset(out.def_path for out in stage.outs),
    )


def set_params(changes: dict[str, Any]) -> None:
    yaml, path = YAML(), Path("params.yaml")
    tree = yaml.load(path)
    merge(tree, changes)
    yaml.dump(tree, path)


def run(command: str, reads: Reads) -> None:
    """Run `python -m stages.x …` in this process."""
    module, *arguments = shlex.split(command)[2:]
    main = importlib.import_module(module).main
    with RECORDER.into(reads):
        main(arguments)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> "Pipeline":
    """Every stage, as declared and as run on recordings of a few seconds."""
    root = new_workspace(tmp_path_factory.mktemp("dependencies") / "workspace").root
    validate = base.validate

    def watched(cls: type[Params], tree: dict[str, Any], path: Path | str) -> Params:
        section = validate(cls, tree, path)
        if path == Path("params.yaml"):  # weights have parameters of their own
            RECORDER.watch(section)
        return section

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("DVC_ROOT", str(root))
        patch.setenv("CALLBOARD_DEVICE", "cpu")
        patch.setattr(base, "validate", watched)
        patch.setattr(Params, "__getattribute__", lambda section, name: RECORDER.note_key(section, name))
        set_params(FIRST)
        stages = {name: (stage, Reads()) for name, stage in declared_stages(root).items() if name != "track"}
        for stage, reads in stages.values():
            run(stage.command, reads)
        shutil.copytree("data/source", "../recordings")
        for name, changes in AGAIN.items():
            set_params(changes)
            for key, stage in declared_stages(root).items():
                if key.split("@")[0] == name:
                    run(stage.command, stages.setdefault(key, (stage, Reads()))[1])
    return stages


def covers(declared: str, read: str, separator: str) -> bool:
    return read == declared or read.startswith(declared + separator)


def problems(declared: Declared, reads: Reads) -> list[str]:
    """Where dvc.yaml and the stage disagree: read and not declared, or declared and not read."""
    files = {path for path in reads.files if not any(part.startswith(".") for part in path.split("/"))}
    files -= {path for path in files for out in declared.outs if covers(out, path, "/")}
    if declared.params:
        files.discard("params.yaml")
    deps = {path for path in declared.deps if not path.startswith(STANDS_FOR_MORE)}
    return differences(files, deps, "/") + differences(reads.keys, declared.params, ".")


def differences(read: set[str], declared: set[str] | frozenset[str], separator: str) -> list[str]:
    unknown = [one for one in read if not any(covers(entry, one, separator) for entry in declared)]
    unread = [entry for entry in declared if not any(covers(entry, one, separator) for one in read)]
    return [f"reads {one}" for one in sorted(unknown)] + [f"never reads {entry}" for entry in sorted(unread)]


Pipeline = dict[str, tuple[Declared, Reads]]


def test_every_stage_reads_what_dvc_yaml_says_and_nothing_else(pipeline: Pipeline) -> None:
    found = {name: problems(*pair) for name, pair in pipeline.items() if name != "code"}
    assert {name: words for name, words in found.items() if words} == {}


def test_stages_of_all_kinds_are_run(pipeline: Pipeline) -> None:
    declared = {kind_of(name) for name in read_tree(ROOT / "dvc.yaml")["stages"]}
    assert {kind_of(name.split("@")[0]) for name in pipeline} == declared - {"track"}


def kind_of(stage: str) -> str:
    """Of a stage without the rounds and sizes in its name."""
    return re.sub(r"(_r?\d)+$", "", stage)


def test_code_depends_on_the_folders_that_it_fingerprints(pipeline: Pipeline) -> None:
    assert pipeline["code"][0].deps == {"stages", "src/callboard", *LOCKS}


@pytest.mark.parametrize(
    ("stage", "dropped", "read"),
    [("train", "data/folds.csv", "data/folds.csv"), ("retrain_1", "pseudo/r1.csv", "pseudo/r1.csv")],
)
def test_a_dropped_file_is_found(pipeline: Pipeline, stage: str, dropped: str, read: str) -> None:
    for declared, reads in (pair for name, pair in pipeline.items() if name.split("@")[0] == stage):
        mutated = replace(declared, deps=declared.deps - {dropped})
        assert problems(mutated, reads) == [f"reads {read}"]


@pytest.mark.parametrize("narrowed", [set(), {"split.folds"}, {"split.folds", "split.rare_species"}])
def test_a_narrowed_section_is_found(pipeline: Pipeline, narrowed: set[str]) -> None:
    declared, reads = pipeline["split"]
    assert "reads split.seed" in problems(replace(declared, params=frozenset(narrowed)), reads)


def test_whatever_is_dropped_from_dvc_yaml_is_found(pipeline: Pipeline) -> None:
    for name, (declared, reads) in pipeline.items():
        if name == "code":
            continue
        for dep in declared.deps:
            if not dep.startswith(STANDS_FOR_MORE):
                assert problems(replace(declared, deps=declared.deps - {dep}), reads), (name, dep)
        for key in declared.params:
            assert problems(replace(declared, params=declared.params - {key}), reads), (name, key)


def test_whatever_is_declared_beyond_what_is_read_is_found(pipeline: Pipeline) -> None:
    declared, reads = pipeline["split"]
    more = replace(declared, deps=declared.deps | {"data/mel"}, params=declared.params | {"optim"})
    assert problems(more, reads) == ["never reads data/mel", "never reads optim"]
