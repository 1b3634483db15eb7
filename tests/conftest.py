"""A toy world: the whole project on recordings of a few seconds, in a repository of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from callboard.data.corrections import CORRECTION_COLUMNS
from callboard.results.leaderboard import LEADERBOARD_COLUMNS

if TYPE_CHECKING:
    from callboard.training.fold_data import FoldData

ROOT = Path(__file__).parent.parent

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as stages/__init__.py does, before torch is loaded
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a token of the user is of other clusters

TOY_PARAMS: dict[str, Any] = {
    "data": {
        "demo": {
            "n_species": 3,
            "n_tp_recordings": 24,
            "n_fp_recordings": 8,
            "n_test_recordings": 8,
            "recording_length_s": 6.0,
        }
    },
    "features": {"n_mels": 32},
    "split": {"folds": [0, 1]},
    "clip": {"n_frames": 128, "offsets": [8, 16, 32, 64]},
    "augment": {"time_mask": 20, "freq_mask": 8},
    "model": {"backbone_args": {"channels": [8, 8, 8, 8], "stem_width": 4}},
    "train": {"epochs": 2, "batch_size": 8, "fp_per_epoch": 2, "validate_every": 1},
    "sched": {"t_max": 2},
    "predict": {"overlap_frames": 13},
    "evaluate": {"n_bootstrap": 100},
    "pseudo": {"n_frames": 32, "threshold": 0.3},
    "scale": {"window": 1 / 4, "fp_per_epoch": 2 / 30},
}
"""exp0051 at its scale, if its row validates after each epoch."""

COPIED = (
    *("src", "stages", "dvc.yaml", "requirements.lock", "requirements-birdnet.lock"),
    *("experiments.yaml", "presets", "README.md"),
)
COPIED += (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore")


IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "toy", "EMAIL": "toy@example.org"}.items()
}
"""Variables from which git knows its user."""


@dataclass(frozen=True)
class Workspace:
    """A copy of the project in a git and DVC repository."""

    root: Path

    def environment(self) -> dict[str, str]:
        """This Python first on the path, and nothing else of the caller's set-up."""
        foreign = ("DVC_", "MLFLOW_", "GIT_", "CALLBOARD_", "PYTHONPATH", "VIRTUAL_ENV")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        return clean | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            **IDENTITY,
            "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/tmp/site"),
            "DVC_NO_ANALYTICS": "1",
            "CALLBOARD_DEVICE": "cpu",
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command there; output and errors together."""
        return subprocess.run(
            arguments, cwd=self.root, env=self.environment(), text=True, stdout=-1, stderr=-2, check=False
        )

    def dvc(self, *arguments: str) -> str:
        """What a dvc command that must succeed prints."""
        done = self.command(sys.executable, "-m", "dvc", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def git(self, *arguments: str) -> str:
        """What a git command that must succeed prints."""
        done = self.command("git", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def commit(self) -> None:
        """Everything that is not ignored."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "toy")

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.root / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """A file anew; what was there may be a read-only link into DVC's cache."""
        path = self.root / name
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of the whole pipeline first, then other slow ones, so that none is alone at the end."""

    def rank(item: pytest.Item) -> int:
        is_slow = item.get_closest_marker("slow") is not None
        return 2 if not is_slow else "finished" not in getattr(item, "fixturenames", ())

    items.sort(key=rank)


def start_callboard(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """Start the command with the code of this checkout; Ctrl-C can end it."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); from callboard.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    """Undo what a shell does to a command in the background, which then ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ran(printed: str) -> set[str]:
    """The stages whose command dvc has run, by what it printed; without what stands behind @."""
    return {name.split("@")[0] for name in re.findall(r"Running stage '([^']+)'", printed)}


def merge(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    """Set the leaves of `changes` in `tree`."""
    for key, value in changes.items():
        if isinstance(value, dict):
            merge(tree.setdefault(key, {}), value)
        else:
            tree[key] = value


def new_workspace(root: Path) -> Workspace:
    """The project with toy parameters, committed and not yet run."""
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    for name, columns in (("leaderboard", LEADERBOARD_COLUMNS), ("corrections", CORRECTION_COLUMNS)):
        (root / f"{name}.csv").write_text(",".join(columns) + "\n")
    yaml = YAML()
    params = yaml.load(ROOT / "tests/params.yaml")
    merge(params, TOY_PARAMS)
    yaml.dump(params, root / "params.yaml")
    table = yaml.load(root / "experiments.yaml")
    for row in table["rows"]:
        every = row.get("set", {}).pop("train.validate_every", None)
        if every and "base" not in row:
            row["set"]["train.validate_every"] = 1
    yaml.dump(table, root / "experiments.yaml")
    workspace = Workspace(root)
    workspace.git("init", "--quiet")
    workspace.commit()
    return workspace


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write_fold_inputs` writes; not to be changed."""
    from tests.toy_training import write_fold_inputs  # brings torch, which most tests do without

    root = tmp_path_factory.mktemp("fold")
    write_fold_inputs(root)
    return root


@pytest.fixture(scope="session")
def data(root: Path) -> "FoldData":
    """Fold 0 of it; not to be changed."""
    from tests.toy_training import load_fold

    return load_fold(root)


def built_once(
    factory: pytest.TempPathFactory, worker: str, name: str, build: Callable[[Path], object]
) -> Path:
    """What `build` writes at a path; all processes of a test run share it, and the first one builds it.

    Args:
        factory: For the folder of the test run.
        worker: Name of the process, "master" if there is only one.
        name: Of the file or folder.
        build: Called with its path.
    """
    base = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    path, mark = base / name, base / f"{name}.built"
    with FileLock(f"{mark}.lock"):
        if not mark.exists():
            if path.is_dir():  # left by a build that failed
                shutil.rmtree(path)
            build(path)
            mark.touch()
    return path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """MLflow's tables, which take seconds to make; to be copied."""

    def build(path: Path) -> None:
        code = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
        subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], check=True, capture_output=True)

    return built_once(tmp_path_factory, worker_id, "mlflow.db", build)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Workspace:
    """A workspace after `dvc repro`; not to be changed, see `workspace`."""

    def build(path: Path) -> None:
        workspace = new_workspace(path)
        workspace.dvc("repro")
        workspace.commit()

    built = built_once(tmp_path_factory, worker_id, "workspace", build)
    own = tmp_path_factory.mktemp("toy") / "workspace"  # commands write caches and locks into it
    return Workspace(shutil.copytree(built, own, symlinks=True))


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Workspace:
    """A finished workspace of the test's own."""
    shutil.copytree(finished.root, tmp_path / "workspace", symlinks=True)
    return Workspace(tmp_path / "workspace")
