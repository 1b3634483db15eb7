"""Whether machines reach one remote, and the progress that they send."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from callboard.core.errors import UserError
from callboard.core.workspace import CHECKPOINTS
from callboard.experiments.jobs import ray_progress
from callboard.experiments.jobs.carried import carry, why_not_here
from callboard.experiments.jobs.copies import snapshot
from callboard.experiments.jobs.ray_progress import Pigeonhole, sent_progress
from callboard.experiments.jobs.remote import marked_remote, why_without
from tests.conftest import Workspace
from tests.experiments.test_side_by_side import repository

__all__ = ["repository"]


def give_remote(workspace: Workspace, folder: Path) -> None:
    workspace.write(".dvc/config", f"[core]\n    remote = store\n['remote \"store\"']\n    url = {folder}\n")


def test_a_machine_finds_what_a_different_one_wrote(repository: Workspace, tmp_path: Path) -> None:
    give_remote(repository, tmp_path / "store")
    with marked_remote(repository.root) as mark:
        assert [path.name for path in (tmp_path / "store").iterdir()] == [mark]
        assert why_without(mark, repository.root) == ""
        give_remote(repository, tmp_path / "store of this machine alone")
        assert why_without(mark, repository.root) == (
            f"does not find in DVC's remote 'store' ({tmp_path}/store of this machine alone) what this "
            "machine wrote there"
        )
    give_remote(repository, tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_a_remote_that_cannot_be_reached_is_refused(repository: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    give_remote(repository, tmp_path / "file/store")
    with pytest.raises(UserError, match=r"DVC's remote 'store' takes no files: .*file"):
        marked_remote(repository.root).__enter__()
    repository.write(
        ".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = gopher://a\n"
    )
    assert why_without("x", repository.root).startswith("cannot reach DVC's remote 'store': ")


def test_a_machine_without_the_folder_is_asked_before_anything_starts(
    repository: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    give_remote(repository, tmp_path / "store")
    repository.commit()
    root = repository.root
    with snapshot(root) as source:
        carried = carry(source)
    with marked_remote(root) as mark:
        assert why_not_here(carried, source.commit, mark) == ""
        assert "does not find in DVC's remote" in why_not_here(carried, source.commit, "callboard-0")
    assert list(tmp_path.glob("callboard-*/*/project/params.yaml"))


class Handle:
    """A Pigeonhole without Ray: `put.remote` puts at once."""

    def __init__(self) -> None:
        self.actor = Pigeonhole()
        self.put = self

    def remote(self, texts: dict[str, str]) -> None:
        self.actor.put(texts)


def test_a_node_sends_the_new_progress_of_its_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_progress, "EVERY_S", 0.01)
    folder = tmp_path / CHECKPOINTS
    folder.mkdir(parents=True)

    def write(name: str, **content: Any) -> None:
        (folder / name).write_text(json.dumps(content))

    write("old.json", experiment="exp0058", updated=time.time() - 60)
    write("other.json", experiment="exp0051", updated=time.time() + 60)
    handle = Handle()
    with sent_progress(tmp_path, "exp0058", handle):
        write("fold0.json", experiment="exp0058", updated=time.time() + 60)
    assert list(handle.actor.take()) == ["fold0.json"]
    assert handle.actor.take() == {}
