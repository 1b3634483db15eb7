"""A machine without the workspace's folder: it gets results and weights that trainings start from."""

import copy
from pathlib import Path
from typing import Any

import pytest

from callboard.core.errors import UserError
from callboard.core.pinned_weights import file_digest, find_weights
from callboard.experiments.jobs.carried import Carried, carry, unpacked
from callboard.experiments.jobs.copies import Snapshot, snapshot
from callboard.experiments.jobs.remote import pull_files, push_files
from callboard.experiments.jobs.start_files import files_to_start_from
from callboard.experiments.jobs.worker import CopyJob
from callboard.params.defaults import with_defaults
from callboard.results.dvc_cache import cached_file, object_path
from callboard.results.lookup import find, find_exactly
from tests.toy_git import PARAMS, ToyRepository


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """A main workspace with a remote, which is the current folder."""
    repository = ToyRepository(tmp_path / "main")
    config = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path}/store\n"
    (repository.root / ".dvc/config").write_text(config)
    repository.baseline = repository.commit()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("tempfile.tempdir", None)
    go_to(repository.root, monkeypatch)
    return repository


def go_to(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("DVC_ROOT", str(workspace))


def source_of(repository: ToyRepository) -> Snapshot:
    with snapshot(repository.root) as source:
        return source


def arrived(repository: ToyRepository, carried: Carried, needed: dict[str, str]) -> Path:
    """The workspace of a different machine, once a job is there."""
    source = source_of(repository)
    folders = str(source.workspace), str(source.copies)
    log = str(source.workspace / ".cache/jobs/x.log")
    job = CopyJob("exp0051-train-0", *folders, source.commit, "", "", [], {}, log, needed=needed)
    return Path(unpacked(job, carried).workspace)


def sections(**changes: Any) -> dict[str, Any]:
    tree = copy.deepcopy(with_defaults(PARAMS))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        tree[section][key] = value
    return tree


def stage1(repository: ToyRepository, **changes: Any) -> tuple[str, str]:
    """A result whose fold 0 has weights: its reference, and their md5."""
    md5 = repository.cache(b"weights of fold 0")
    outs = {"models/r0/fold0.pt": md5, "data/mel": "mel.dir"}
    params = sections(**changes) if changes else PARAMS
    repository.experiment("stage1", outs, params)
    return find("stage1").reference, md5


def test_the_networks_of_a_result_that_is_newer_than_the_command_reach_a_machine(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = carry(source_of(repository))
    reference, md5 = stage1(repository)
    needed = files_to_start_from(sections(train__init_from=reference), repository.root)
    assert needed == {md5: ""}
    push_files(needed, repository.root)
    there = arrived(repository, carried, needed)
    go_to(there, monkeypatch)
    with pytest.raises(UserError, match="no result is called"):
        find_exactly(reference, "train.init_from")
    go_to(repository.root, monkeypatch)
    again = carry(source_of(repository))
    assert arrived(repository, again, needed) == there != repository.root
    go_to(there, monkeypatch)
    found = find_exactly(reference, "train.init_from").output("models/r0/fold0.pt")
    assert found.is_relative_to(there)
    assert found.read_bytes() == b"weights of fold 0"
    assert not found.stat().st_mode & 0o222


def weights_file(folder: Path) -> str:
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights/net.pth").write_bytes(b"a backbone")
    return f"weights/net.pth@{file_digest(folder / 'weights/net.pth')}"


def test_a_file_of_weights_reaches_a_machine(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_file(repository.root)
    needed = files_to_start_from(sections(model__weights=weights), repository.root)
    assert list(needed.values()) == ["weights/net.pth"]
    push_files(needed, repository.root)
    carried = carry(source_of(repository))
    go_to(arrived(repository, carried, needed), monkeypatch)
    assert find_weights(weights) == Path.cwd() / "weights/net.pth"


def test_weights_outside_the_workspace_and_in_packages_stay_where_they_are(
    repository: ToyRepository, tmp_path: Path
) -> None:
    weights = weights_file(tmp_path)
    assert files_to_start_from(sections(model__weights=f"../{weights}"), repository.root) == {}
    assert files_to_start_from(sections(model__weights="efficientnet_lite0"), repository.root) == {}
    assert files_to_start_from(sections(), repository.root) == {}


def test_weights_with_a_different_digest_are_refused(repository: ToyRepository) -> None:
    weights_file(repository.root)
    with pytest.raises(UserError, match=r"model.weights: .*net.pth has the digest .*, not 0{16}"):
        files_to_start_from(sections(model__weights=f"weights/net.pth@{'0' * 16}"), repository.root)


def test_nested_networks_start_from_what_the_other_result_started_from(repository: ToyRepository) -> None:
    weights = weights_file(repository.root)
    reference, md5 = stage1(repository, model__weights=weights)
    weights_file(repository.root)  # the toy's commit has taken it along
    weights_file_of_its_own = {"model__weights": None, "train__init_from": reference}
    plain = files_to_start_from(sections(**weights_file_of_its_own), repository.root)
    assert plain == {md5: ""}
    nested = files_to_start_from(
        sections(pseudo__isolation="nested", **weights_file_of_its_own), repository.root
    )
    assert sorted(nested.values()) == ["", "weights/net.pth"]


def test_a_file_that_is_nowhere_is_refused_and_nothing_is_left(
    repository: ToyRepository, tmp_path: Path
) -> None:
    _, md5 = stage1(repository)
    with pytest.raises(UserError, match=r"remote 'store' does not give a file: .*No such file"):
        pull_files(["0" * 32], repository.root)
    assert not list(object_path("0" * 32, repository.root).parent.iterdir())
    push_files([md5], repository.root)
    cached_file(md5, "weights").unlink()
    push_files([md5], repository.root)  # the remote has it
    with pytest.raises(UserError, match="a file that a training starts from is not in DVC's cache"):
        push_files(["0" * 32], repository.root)
    (tmp_path / "main/.dvc/config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = gopher://a\n"
    )
    with pytest.raises(UserError, match="remote 'store' takes no files"):
        push_files([md5], repository.root)
