"""Engines: what they refuse before anything starts, and the same bytes from each of them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from callboard.cli import build_parser
from callboard.commands.arguments import job_options
from callboard.core.errors import UserError
from callboard.experiments.jobs.copies import COPIES
from callboard.experiments.jobs.engines import engine
from callboard.experiments.jobs.nodes import Node, refuse_unlike, this_node
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.ray_cluster import places
from callboard.experiments.launch import RunOptions
from tests.conftest import Workspace, new_workspace
from tests.experiments.test_side_by_side import callboard, outs

HERE = Node("here", {"callboard": "0.1.0", "torch": "2.11.0"}, "a processor", True)


def options(*arguments: str) -> JobOptions:
    return job_options(build_parser().parse_args(["run", "exp0051", *arguments]))


def test_options_of_jobs() -> None:
    assert options() == JobOptions()
    given = options("--on", "ray:head:6379", "--jobs", "3", "--cpus-per-job", "2", "--gpus-per-job", "0.25")
    assert given == JobOptions("ray:head:6379", 3, 2, 0.25)
    assert options("--on", "ray", "--gpus-per-job", "2").gpus == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "dask"], "'dask' must be local, ray or ray:ADDRESS"),
        (["--on", "ray:"], "'ray:' must be local"),
        (["--gpus-per-job", "1.5"], "'1.5' must be from 0 to 1, or a whole number"),
        (["--gpus-per-job", "-1"], "'-1' must be"),
        (["--cpus-per-job", "0"], "'0' must be a whole number"),
    ],
)
def test_the_parser_refuses_wrong_values(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(*arguments)
    assert words in capsys.readouterr().err


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UserError, match=r"need --on ray"):
        options("--cpus-per-job", "2")
    with pytest.raises(UserError, match=r"--on and --queue exclude each other"):
        RunOptions(is_queued=True, jobs=JobOptions("ray"))
    with pytest.raises(UserError, match=r"--on and --force exclude each other"):
        RunOptions(is_forced=True, jobs=JobOptions("ray"))


def test_on_this_machine_jobs_share_its_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "6")
    with engine(JobOptions(n_jobs=4), 1, tmp_path, tmp_path) as jobs:
        assert (jobs.n_jobs, jobs.n_threads, jobs.n_nodes) == (4, 1, 1)
    assert JobOptions(n_jobs=2).is_side_by_side(1)
    assert not JobOptions(n_jobs=1).is_side_by_side(1)
    assert JobOptions("ray", n_jobs=1).is_side_by_side(1)


@pytest.mark.parametrize(
    ("cpus", "gpus", "count"),
    [(1, 0, 12), (3, 0, 3), (5, 0, 1), (9, 0, 0), (1, 1, 2), (1, 0.25, 8), (2, 0.1, 4), (1, 2, 1), (1, 3, 0)],
)
def test_places_of_a_cluster(cpus: int, gpus: float, count: int) -> None:
    nodes: list[dict[str, Any]] = [{"Resources": {"CPU": 4.0}}, {"Resources": {"CPU": 8.0, "GPU": 2.0}}]
    assert places(nodes, cpus, gpus) == count


def test_a_node_with_other_versions_is_refused_by_name() -> None:
    refuse_unlike([HERE], HERE)
    other = HERE._replace(name="node7", versions={"callboard": "0.1.0", "torch": "2.12.0"})
    with pytest.raises(UserError, match=r"node7 has torch 2.12.0, this machine 2.11.0; .* same versions"):
        refuse_unlike([HERE, other], HERE)
    with pytest.raises(UserError, match=r"node7 has torch not installed"):
        refuse_unlike([other._replace(versions={"callboard": "0.1.0"})], HERE)


def test_unlike_processors_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    refuse_unlike([HERE, HERE._replace(processor="b")], HERE)
    assert "warning: unlike processors (a processor, b)" in capsys.readouterr().err


def test_a_machine_describes_itself(tmp_path: Path) -> None:
    node = this_node(str(tmp_path))
    assert node.sees_copies
    assert node.processor
    assert node.versions["torch"]
    assert not this_node(str(tmp_path / "elsewhere")).sees_copies


def refusal(job_options: JobOptions, folder: Path) -> str:
    with pytest.raises(UserError) as caught, engine(job_options, 1, folder, folder):
        pass
    return str(caught.value)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert (
        refusal(JobOptions("ray"), tmp_path) == "Ray is not installed; pip install -e '.[ray]' in the clone"
    )


def test_an_address_that_nobody_answers_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    said = refusal(JobOptions("ray:127.0.0.1:1"), tmp_path)
    assert said.startswith("cannot join Ray at 127.0.0.1:1: ")
    assert "refused" in said


@pytest.mark.slow
def test_a_local_ray_gives_the_bytes_of_one_after_the_other(finished: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    workspace = new_workspace(tmp_path / "workspace")
    refused = workspace.command(*callboard("repro", "--on", "ray", "--cpus-per-job", "1000"))
    assert refused.returncode == 1
    assert "error: no node has 1000 CPUs" in refused.stdout
    done = workspace.command(*callboard("repro", "--on", "ray", "--jobs", "2"))
    assert done.returncode == 0, done.stdout
    assert outs(workspace) == outs(finished)
    assert "2 of 2 stages" in done.stdout
    assert not list((workspace.root / COPIES).iterdir())
