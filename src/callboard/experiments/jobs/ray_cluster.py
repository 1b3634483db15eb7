"""Jobs as tasks of Ray Core. A task starts the same process as a job of this machine, and ends with it."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from callboard.core.console import counted
from callboard.core.errors import UserError, one_line
from callboard.core.threads import n_workers
from callboard.experiments.jobs.carried import Carried, carry, unpacked, why_not_here
from callboard.experiments.jobs.copies import Snapshot
from callboard.experiments.jobs.local import WorkerKilledError, run_until_interrupted
from callboard.experiments.jobs.nodes import Node, refuse_unlike, this_node
from callboard.experiments.jobs.options import JobOptions
from callboard.experiments.jobs.ray_progress import Pigeonhole, received_progress, sent_progress
from callboard.experiments.jobs.remote import marked_remote
from callboard.experiments.jobs.schedule import TaskError
from callboard.experiments.jobs.worker import CopyJob, JobResult

SETTINGS = {
    "RAY_NUM_REDIS_GET_RETRIES": "5",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that Ray reads when it is imported: seconds to connect; no report to its makers."""

TOKEN = Path.home() / ".ray/auth_token"
"""File of the secret that Ray makes for a first cluster; all nodes need the same."""

ANSWER_S = 5.0
"""Time in which a cluster must take a connection."""

PROBE_S = 60.0
"""Time in which every node must start a process and answer."""

CHECK_EVERY_S = 10.0
"""Pause between looks at whether the cluster can still run a waiting job."""

STOP_S = 20.0
"""Time that jobs have to remove their copies after `stop`."""


class RayCluster(NamedTuple):
    """A cluster that this process has joined."""

    ray: Any
    """The package."""
    nodes: list[dict[str, Any]]
    """Nodes that are alive, as `ray.nodes` describes them."""
    cpus: int
    """CPUs of a job."""
    gpus: float
    """GPUs of a job."""
    n_places: int
    """Number of jobs that run at a time."""

    def ask(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run a function on every node, and return what it returned, in the order of `nodes`.

        Raises:
            UserError: a node cannot import callboard, or does not answer.
        """
        return [answer for _, answer in _ask(self.ray, self.nodes, function, *arguments)]

    @property
    def needs(self) -> str:
        """CPUs and GPUs that a job occupies, in words."""
        return _amount(self.cpus, self.gpus)

    def has_place(self) -> bool:
        """Return whether a node is left that can run a job."""
        alive = [node for node in self.ray.nodes() if node["Alive"]]
        return places(alive, self.cpus, self.gpus) > 0

    def cause_of_kill(self, error: Exception) -> Exception:
        """Return why the process of a task was killed, given the RayError of the task.

        Raises:
            UserError: the task ended by this error of its own.
            RayError: it ended by a different one.
        """
        cause: Exception = getattr(error, "cause", error)
        if isinstance(cause, UserError):
            raise cause from None
        is_from_ray: bool = isinstance(cause, self.ray.exceptions.RayError)
        if not is_from_ray:
            raise error
        return cause


@contextmanager
def joined_ray(options: JobOptions, default_cpus: int) -> Iterator[RayCluster]:
    """Yield a Ray of this machine, started for it, or a running cluster.

    Args:
        options: The user's options.
        default_cpus: CPUs of a job, unless the user wants a different number.

    Raises:
        UserError: Ray is not installed, nobody answers at the address, or no node has room for a job.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if TOKEN.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it, Ray would not send the token
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; pip install -e '.[ray]' in the clone") from None
    _connect(ray, options.place.partition(":")[2], has_dashboard=options.has_dashboard)
    try:
        cpus = options.cpus or default_cpus
        alive = [node for node in ray.nodes() if node["Alive"]]
        gpus = options.gpus if options.gpus is not None else _default_gpus(alive)
        n_places = places(alive, cpus, gpus)
        if not n_places:
            raise UserError(f"no node has {_amount(cpus, gpus)}, which a job asks for")
        yield RayCluster(ray, alive, cpus, gpus, n_places)
    finally:
        ray.shutdown()


@contextmanager
def ray_jobs(options: JobOptions, threads: int, snapshot: Snapshot) -> Iterator["RayJobs"]:
    """Yield an engine on a Ray of this machine, started for it, or on a running cluster; see `engine`."""
    with joined_ray(options, threads) as cluster:
        ray, alive = cluster.ray, cluster.nodes
        nodes = cluster.ask(this_node, str(snapshot.copies))
        refuse_unlike(nodes, this_node(str(snapshot.copies)))
        apart = [node for node, seen in zip(alive, nodes, strict=True) if not seen.sees_copies]
        carried = ray.put(carry(snapshot)) if apart else None
        if apart:
            _refuse_unreachable_remote(ray, apart, carried, snapshot)
        pigeonhole = ray.remote(num_cpus=0, max_restarts=-1)(Pigeonhole).remote() if apart else None
        n_jobs = options.n_jobs or cluster.n_places
        jobs = RayJobs(cluster, n_jobs, nodes, snapshot, carried, pigeonhole)
        with received_progress(ray, pigeonhole, snapshot.workspace) if apart else nullcontext():
            yield jobs


def _connect(ray: Any, address: str, *, has_dashboard: bool) -> None:
    """Join a cluster, or start one of this machine if the address is empty, with a dashboard or without.

    Raises:
        UserError: nobody answers at the address, or something that is not a Ray cluster of this version; or
            packages of the dashboard are missing.
    """
    if has_dashboard:
        _refuse_missing_dashboard()
    own = {} if address else {"num_cpus": n_workers(), "include_dashboard": has_dashboard}
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():
            socket.create_connection((host, int(port)), ANSWER_S).close()
        context = ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"cannot join Ray at {address or 'this machine'}: {one_line(error)}") from error
    if has_dashboard:
        print(f"Ray's dashboard: {context.dashboard_url}", flush=True)


def _refuse_missing_dashboard() -> None:
    try:
        import ray.dashboard.optional_deps  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"Ray's dashboard needs packages that are not installed ({error}); pip install 'ray[default]'"
        ) from None


def _default_gpus(nodes: Sequence[Mapping[str, Any]]) -> float:
    """Return one GPU for each job if the cluster has any and they are to be used, as on one machine."""
    has_gpu = any(node["Resources"].get("GPU") for node in nodes)
    return float(has_gpu and os.environ.get("CALLBOARD_DEVICE", "auto") in ("auto", "cuda"))


def places(nodes: Sequence[Mapping[str, Any]], cpus: int, gpus: float) -> int:
    """Return how many jobs nodes, as `ray.nodes` describes them, run at a time."""
    count = 0
    for node in nodes:
        by_cpu, n_gpus = int(node["Resources"].get("CPU", 0) // cpus), int(node["Resources"].get("GPU", 0))
        if not gpus:
            count += by_cpu
        else:
            by_gpu = n_gpus // int(gpus) if gpus >= 1 else n_gpus * int(1 / gpus + 1e-9)
            count += min(by_cpu, by_gpu)
    return count


def _amount(cpus: int, gpus: float) -> str:
    return counted(cpus, "CPU") + (f" and {gpus:g} GPUs" if gpus else "")


def _refuse_unreachable_remote(
    ray: Any, nodes: Sequence[Mapping[str, Any]], carried: Any, snapshot: Snapshot
) -> None:
    """Refuse nodes without the workspace's folder that do not reach the remote of this machine.

    Raises:
        UserError: the message names the node; or this machine does not reach it either.
    """
    with marked_remote(snapshot.workspace) as mark:
        for name, problem in _ask(ray, nodes, why_not_here, carried, snapshot.commit, mark):
            if problem:
                raise UserError(f"{name}: {problem}")


def _ask(
    ray: Any, nodes: Sequence[Mapping[str, Any]], function: Callable[..., Any], *arguments: Any
) -> list[tuple[str, Any]]:
    """Run a function on every node; return the nodes' names and what it returned.

    Raises:
        UserError: a node cannot import callboard, or does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(function)
    pinned = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [ask.options(scheduling_strategy=place).remote(*arguments) for place in pinned]
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        name = node["NodeManagerHostname"]
        try:
            found.append((name, ray.get(answer, timeout=PROBE_S)))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{name} cannot run callboard: {reason}") from error
    return found


def run_on_node(job: CopyJob, carried: Carried | None, pigeonhole: Any) -> JobResult:
    """Run a job in a process of this machine, also without the job's workspace; the function of a task."""
    if not carried or Path(job.copies).is_dir():
        return run_until_interrupted(job)
    job = unpacked(job, carried)
    with sent_progress(Path(job.workspace), job.environment["DVC_EXP_NAME"], pigeonhole):
        return run_until_interrupted(job)


class RayJobs:
    """Engine on the cluster that this process has joined."""

    def __init__(
        self,
        cluster: RayCluster,
        n_jobs: int,
        nodes: Sequence[Node],
        snapshot: Snapshot,
        carried: Any,
        pigeonhole: Any,
    ) -> None:
        """Keep what jobs need.

        `carried` is Ray's reference to a `Carried`, and `pigeonhole` the handle of a `Pigeonhole`; both are
        None if all nodes have the workspace's folder.
        """
        ray, cpus = cluster.ray, cluster.cpus
        self.n_jobs, self.n_threads, self.n_nodes = n_jobs, cpus, len(nodes)
        self._nodes, self._snapshot = nodes, snapshot
        self.is_apart = carried is not None
        is_larger = len(nodes) > 1 and n_jobs * cpus > n_workers()  # than this machine
        self.n_shards = n_jobs if is_larger and not self.is_apart else 1
        self._carried, self._pigeonhole = carried, pigeonhole
        self._cluster, self._ray = cluster, ray
        self._task = ray.remote(num_cpus=cpus, num_gpus=cluster.gpus, max_retries=0)(run_on_node)
        self._running: set[Any] = set()
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()

    def run(self, job: CopyJob) -> JobResult:
        """Run a job somewhere in the cluster; see `Engine.run`."""
        if not self._cluster.gpus:  # Ray hides GPUs only from tasks that ask for some
            job = job._replace(environment=job.environment | {"CUDA_VISIBLE_DEVICES": ""})
        with self._lock:
            if self._is_stopped.is_set():
                raise TaskError(f"{job.name}: stopped")
            answer = self._task.options(name=job.name).remote(job, self._carried, self._pigeonhole)
            self._running.add(answer)
        try:
            self._wait(job.name, answer)
            result: JobResult = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            cause = self._cluster.cause_of_kill(error)
            raise WorkerKilledError(f"{job.name}: its process was killed ({one_line(cause)})") from None
        finally:
            with self._lock:
                self._running.discard(answer)
        return result

    def _wait(self, name: str, answer: Any) -> None:
        """Wait for a task as long as a node is left that can run it."""
        while not self._ray.wait([answer], timeout=CHECK_EVERY_S)[0]:
            if not self._cluster.has_place():
                raise TaskError(f"{name}: no node is left with {self._cluster.needs}")

    def stop(self) -> None:
        """End all jobs, and wait until they have removed their copies."""
        with self._lock:
            self._is_stopped.set()
            running = list(self._running)
        for answer in running:
            self._ray.cancel(answer)
        if running:
            self._ray.wait(running, num_returns=len(running), timeout=STOP_S)

    def carry_again(self) -> None:
        """Put the workspace into the object store once more, for jobs from now on."""
        self._carried = self._ray.put(carry(self._snapshot))

    def describe(self) -> list[str]:
        """Return a line for each node, and one about jobs."""
        way = {True: "shares the workspace's folder", False: "data and results travel through DVC's remote"}
        nodes = [f"{node.name}: {node.processor}; {way[node.sees_copies]}" for node in self._nodes]
        return [
            *nodes,
            f"{counted(self.n_jobs, 'job')} at a time, each with {self._cluster.needs}",
        ]
