"""Finished experiments by hand: a git repository with a dvc.lock and a DVC cache, but no pipeline."""

import copy
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from callboard.data.score_tables import write_score_table
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION

PARAMS = {"seed": 1, "loss": {"neg_mask": "none"}}


class ToyRepository:
    """A main workspace whose experiments are written, not run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = 1_600_000_000
        root.mkdir(exist_ok=True)
        (root / ".dvc").mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        (root / ".gitignore").write_text("/.dvc/cache\n/mlflow.db*\n/.mlflow.lock\n/mlartifacts\n")
        (root / "params.yaml").write_text(yaml.dump(PARAMS))
        self.baseline = self.commit()

    def copied(self, root: Path) -> "ToyRepository":
        """The same in another folder, for a test to change."""
        other = copy.copy(self)
        other.root = shutil.copytree(self.root, root)
        return other

    def git(self, *arguments: str) -> str:
        """What a git command prints; each is a minute later than the one before."""
        self.clock += 60
        when = {"GIT_AUTHOR_DATE": f"{self.clock} +0000", "GIT_COMMITTER_DATE": f"{self.clock} +0000"}
        command = ["git", "-c", "user.name=toy", "-c", "user.email=toy@example.org", *arguments]
        environment = os.environ | when | {"GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        """Everything that is not ignored."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "toy")
        return self.git("rev-parse", "HEAD")

    def cache(self, content: bytes, folder: str = ".dvc/cache") -> str:
        """The md5 of a file that is now in the cache."""
        md5 = hashlib.md5(content).hexdigest()
        path = self.root / folder / "files/md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5

    def cache_table(self, table: pd.DataFrame) -> str:
        """The same of a table."""
        path = self.root / ".dvc/table.csv"
        write_score_table(table, path)
        return self.cache(path.read_bytes())

    def experiment(
        self, name: str, outs: dict[str, str], params: dict[str, Any] = PARAMS, ref: str = ""
    ) -> str:
        """A commit on the baseline with these outputs, under DVC's reference of the name; its hash."""
        lock = {"schema": "2.0", "stages": lock_stages(outs, params)}
        (self.root / "dvc.lock").write_text(yaml.dump(lock))
        (self.root / "params.yaml").write_text(yaml.dump(params))
        commit = self.commit()
        self.git("update-ref", ref or f"refs/exps/{self.baseline[:2]}/{self.baseline[2:]}/{name}", commit)
        self.git("reset", "--quiet", "--hard", self.baseline)
        return commit


def lock_stages(outs: dict[str, str], params: dict[str, Any]) -> dict[str, Any]:
    """A pipeline of five stages; `outs` replaces the md5 of what it names; a sixth made all else in it.

    Where there are networks, a seventh predicts by those of their last round.
    """
    wrote = {
        "prepare": ["data/source"],
        "crop": [CLIPS],
        "evaluate": [OUT_OF_FOLD],
        "infer": [SUBMISSION],
        "score": ["metrics/lb.json"],
    }
    if others := sorted(set(outs) - {path for paths in wrote.values() for path in paths}):
        wrote["train"] = others
    rounds = {path.rpartition("/")[0] for path in outs if path.startswith("models/")}
    predict = {"predict": {"deps": [{"path": max(rounds), "md5": "m.dir"}]}} if rounds else {}
    return predict | {
        stage: {
            "cmd": stage,
            "deps": [{"path": "data/source", "md5": outs.get("data/source", "d")}] * (stage != "prepare"),
            "params": {"params.yaml": params},
            "outs": [{"path": path, "md5": outs.get(path, path)} for path in paths],
        }
        for stage, paths in wrote.items()
    }
