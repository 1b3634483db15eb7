"""Engines: what they refuse before anything starts, and the same bytes from each of them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.cli import build_parser
from callboard.commands.arguments import job_options
from callboard.core.errors import UserError
from callboard.core.pinned_weights import file_digest
from callboard.experiments.jobs import ray_cluster
from callboard.experiments.jobs.copies import COPIES, Snapshot
from callboard.experiments.jobs.engines import engine
from callboard.experiments.jobs.nodes import Node, refuse_unlike, this_node
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.ray_cluster import places
from callboard.experiments.launch import RunOptions
from callboard.results.lookup import find
from tests.conftest import TOY_PARAMS, Workspace, new_workspace, ran
from tests.experiments.test_side_by_side import outs, processes_in
from tests.toy_cluster import on_slurm, tasks_of_ray, wait_until  # noqa: F401  a fixture

HERE = Node("here", {"callboard": "0.1.0", "torch": "2.11.0"}, "a processor", True)


def snapshot_in(folder: Path) -> Snapshot:
    return Snapshot(folder, "0" * 40, "0" * 40, folder)


def options(*arguments: str) -> JobOptions:
    return job_options(build_parser().parse_args(["run", "exp0051", *arguments]))


def test_options_of_jobs() -> None:
    assert options() == JobOptions()
    given = options("--on", "ray:head:6379", "--jobs", "3", "--cpus-per-job", "2", "--gpus-per-job", "0.25")
    assert given == JobOptions("ray:head:6379", 3, 2, 0.25)
    assert options("--on", "ray", "--gpus-per-job", "2").gpus == 2
    assert options("--on", "ray", "--dashboard").has_dashboard
    slurm = options("--on", "slurm", "--slurm", "partition=long,time=04:00:00").slurm
    assert slurm == {"partition": "long", "time": "04:00:00"}
    assert options("--shards", "3") == JobOptions(shards=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "dask"], "'dask' must be local, ray, ray:ADDRESS or slurm"),
        (["--on", "ray:"], "'ray:' must be local"),
        (["--gpus-per-job", "1.5"], "'1.5' must be from 0 to 1, or a whole number"),
        (["--gpus-per-job", "-1"], "'-1' must be"),
        (["--cpus-per-job", "0"], "'0' must be a whole number"),
        (["--shards", "0"], "'0' must be a whole number"),
        (["--slurm", "partition"], "'partition' of 'partition' must be KEY=VALUE"),
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
    for place in ("local", "ray:head:6379", "slurm"):
        with pytest.raises(UserError, match=r"--dashboard needs --on ray; a cluster has one unless"):
            options("--on", place, "--dashboard")
    with pytest.raises(UserError, match=r"--slurm needs --on slurm"):
        options("--on", "ray", "--slurm", "partition=long")
    with pytest.raises(UserError, match=r"--gpus-per-job 0.25: jobs of Slurm do not share a GPU"):
        options("--on", "slurm", "--gpus-per-job", "0.25")
    with pytest.raises(UserError, match=r"--on and --queue exclude each other"):
        RunOptions(is_queued=True, jobs=JobOptions("ray"))
    with pytest.raises(UserError, match=r"--on and --force exclude each other"):
        RunOptions(is_forced=True, jobs=JobOptions("ray"))
    with pytest.raises(UserError, match=r"--shards and --queue exclude each other"):
        RunOptions(is_queued=True, jobs=JobOptions(shards=2))


def test_on_this_machine_jobs_share_its_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_WORKERS", "6")
    with engine(JobOptions(n_jobs=4), 1, snapshot_in(tmp_path)) as jobs:
        assert (jobs.n_jobs, jobs.n_threads, jobs.n_nodes) == (4, 1, 1)
    assert JobOptions(n_jobs=2).is_side_by_side(1)
    assert not JobOptions(n_jobs=1).is_side_by_side(1)
    assert JobOptions(n_jobs=1, shards=2).is_side_by_side(1)
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
    with pytest.raises(UserError) as caught, engine(job_options, 1, snapshot_in(folder)):
        pass
    return str(caught.value)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert (
        refusal(JobOptions("ray"), tmp_path) == "Ray is not installed; pip install -e '.[ray]' in the clone"
    )


def test_slurm_needs_its_package_and_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(JobOptions("slurm"), tmp_path).startswith("sbatch: not found on PATH")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install -e '.[slurm]'" in refusal(JobOptions("slurm"), tmp_path)


def test_an_address_that_nobody_answers_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    said = refusal(JobOptions("ray:127.0.0.1:1"), tmp_path)
    assert said.startswith("cannot join Ray at 127.0.0.1:1: ")
    assert "refused" in said


class NoRay:
    """The part of Ray that joins or starts a cluster; it stops there."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayError=RuntimeError)
        self.options: dict[str, Any] = {}

    def init(self, address: str, **options: Any) -> SimpleNamespace:
        self.options = options
        return SimpleNamespace(dashboard_url="http://127.0.0.1:8265")


def test_the_dashboard_of_a_ray_of_this_machine_is_off_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = NoRay()
    monkeypatch.setattr(ray_cluster, "_refuse_missing_dashboard", lambda: None)
    ray_cluster._connect(ray, "", has_dashboard=False)
    assert (ray.options["include_dashboard"], capsys.readouterr().out) == (False, "")
    ray_cluster._connect(ray, "", has_dashboard=True)
    assert ray.options["include_dashboard"]
    assert capsys.readouterr().out == "Ray's dashboard: http://127.0.0.1:8265\n"
    ray_cluster._connect(ray, "auto", has_dashboard=False)
    assert "include_dashboard" not in ray.options  # it joins as a guest


def test_a_dashboard_without_its_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setitem(sys.modules, "ray.dashboard.optional_deps", None)
    with pytest.raises(UserError, match=r"needs packages that are not installed .*; pip install 'ray\[def"):
        ray_cluster._connect(NoRay(), "", has_dashboard=True)


ON_A_MACHINE_WITHOUT_THE_FOLDER = """
from contextlib import contextmanager
from callboard.experiments import side_by_side
from callboard.experiments.jobs.carried import carry, unpacked
from callboard.experiments.jobs.local import Workers

class Elsewhere(Workers):
    is_apart = True

    def run(self, job):
        return super().run(unpacked(job, self.carried))

    def carry_again(self):
        self.carried = carry(self.snapshot)

@contextmanager
def engine(options, threads, snapshot):
    jobs = Elsewhere(2, 1)
    jobs.snapshot = snapshot
    jobs.carry_again()
    yield jobs

side_by_side.engine = engine
"""


def command(*arguments: str, after: str = "") -> list[str]:
    return [sys.executable, "-c", f"{after}\nfrom callboard.cli import main; main()", *arguments]


def has_the_bytes_of(finished: Workspace, workspace: Workspace, printed: str) -> bool:
    assert "2 of 2 stages" in printed, printed
    assert ran(printed) == {"predict", "evaluate", "infer", "score", "track"}
    assert not list((workspace.root / COPIES).iterdir())
    return outs(workspace) == outs(finished)


@pytest.mark.slow
def test_a_ray_of_this_machine_starts_and_refuses_what_no_node_has(finished: Workspace) -> None:
    pytest.importorskip("ray")
    refused = finished.command(*command("doctor", "--on", "ray", "--cpus-per-job", "1000"))
    assert refused.returncode == 1
    assert "error: no node has 1000 CPUs" in refused.stdout


@pytest.mark.slow
def test_a_cluster_that_loses_a_process_and_then_a_node_gives_the_same_bytes(
    finished: Workspace, tmp_path: Path
) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    workspace = new_workspace(tmp_path / "workspace")
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")  # the command joins the other one
        place = f"ray:{cluster.address}"
        described = workspace.command(*command("doctor", "--on", place)).stdout
        assert described.count("; shares the workspace's folder") == 2
        assert "2 jobs at a time, each with 1 CPU" in described
        running = subprocess.Popen(
            command("repro", "--on", place),
            cwd=workspace.root,
            env=workspace.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_until(lambda: tasks_of_ray("-train-"), "no training began")
        wait_until(lambda: processes_in(workspace.root / COPIES), "no process in a copy")
        tasks_of_ray("-train-")[0].kill()
        cluster.remove_node(node, allow_graceful=False)
        printed = running.communicate(timeout=600)[0]
    finally:
        cluster.shutdown()
    assert "its process was killed" in printed
    assert has_the_bytes_of(finished, workspace, printed)


@pytest.mark.slow
def test_jobs_through_slurm_give_the_same_bytes(
    finished: Workspace,
    tmp_path: Path,
    on_slurm: str,  # noqa: F811
) -> None:
    workspace = new_workspace(tmp_path / "workspace")
    arguments = ("repro", "--on", "slurm", "--jobs", "2")
    if not on_slurm:
        refused = workspace.command(*command(*arguments, "--slurm", "partition=nope"))
        assert refused.returncode == 1
        assert "--partition=nope): " in refused.stdout
        assert "nvalid partition name" in refused.stdout
    done = workspace.command(*command(*arguments, after=on_slurm))
    assert has_the_bytes_of(finished, workspace, done.stdout)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for the workspaces of a machine without the folder of ours."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.slow
def test_a_machine_without_the_folder_gives_the_same_bytes_through_a_remote(
    finished: Workspace, tmp_path: Path, elsewhere: Path
) -> None:
    workspace = new_workspace(tmp_path / "workspace")
    there = command("repro", after=ON_A_MACHINE_WITHOUT_THE_FOLDER)
    refused = workspace.command(*there)
    assert refused.returncode == 1
    assert "share the folder, or give DVC a remote" in refused.stdout
    workspace.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    done = workspace.command(*there)
    assert has_the_bytes_of(finished, workspace, done.stdout)
    assert list(elsewhere.glob("callboard-*/workspace-*/.dvc/cache"))


START_FROM = """
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.side_by_side import Planned, run_side_by_side
starts = {"chain": ["train.init_from='%s'"], "weights": ["model.weights='%s'"]}
planned = [Planned(name, (), lambda own=own: own, lambda *_: 0) for name, own in starts.items()]
sys.exit(run_side_by_side(planned, JobOptions()))
"""


@pytest.mark.slow
def test_a_machine_without_the_folder_starts_from_a_different_result_and_from_a_file(
    workspace: Workspace, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm  # brings torch, which the other tests do without
    import torch

    workspace.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    workspace.commit()
    model = TOY_PARAMS["model"]["backbone_args"] | {"layers": [1] * 4, "stem_type": "deep"}
    backbone = timm.create_model("resnet18", in_chans=1, num_classes=0, **model)
    torch.save(backbone.state_dict(), workspace.root / "net.pth")
    monkeypatch.chdir(workspace.root)
    starts = find(None).reference, f"net.pth@{file_digest(workspace.root / 'net.pth')}"
    code = f"import sys\n{ON_A_MACHINE_WITHOUT_THE_FOLDER}\n{START_FROM % starts}"
    done = workspace.command(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(f"from {starts[0]}") == 2
    assert "6 of 6 stages" in done.stdout
