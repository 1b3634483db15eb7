import threading
from collections.abc import Callable, Iterable

import pytest

from callboard.experiments.jobs.schedule import Task, TaskError, run_tasks
from callboard.experiments.jobs.units import units_of


class Log:
    """Records which tasks ran, in order, and how many at a time."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.errors: list[str] = []
        self.n_running = 0
        self.most = 0
        self._lock = threading.Lock()

    def task(
        self,
        key: str,
        *,
        needs: Iterable[str] = (),
        lane: str = "train",
        priority: int = 0,
        then: Callable[[], Iterable[Task]] = tuple,
    ) -> Task:
        def run() -> Iterable[Task]:
            with self._lock:
                self.ran.append(key)
                self.n_running += 1
                self.most = max(self.most, self.n_running)
            try:
                return then()
            finally:
                with self._lock:
                    self.n_running -= 1

        return Task(key, key.split()[0], lane, (priority,), frozenset(needs), run)

    def run(self, tasks: list[Task], n_wide: int = 1) -> set[str]:
        widths = {"train": n_wide, "finish": 1}
        return run_tasks(tasks, widths, lambda error, task: self.errors.append(str(error)), lambda: None)


def fail() -> Iterable[Task]:
    raise TaskError("diverged")


def test_tasks_run_in_order_of_priority_after_those_that_they_need() -> None:
    log = Log()
    tasks = [
        log.task("a last", needs=["a 0", "a 1"]),
        log.task("b 0", priority=2),
        log.task("a 1", priority=1),
        log.task("a 0", priority=0),
    ]
    assert log.run(tasks) == set()
    assert log.ran == ["a 0", "a 1", "a last", "b 0"]


def test_a_task_can_return_further_ones() -> None:
    log = Log()
    first = log.task("a 0", then=lambda: [log.task("a 1"), log.task("a 2", needs=["a 1"])])
    assert log.run([first]) == set()
    assert log.ran == ["a 0", "a 1", "a 2"]


def test_as_many_run_at_a_time_as_the_lane_is_wide() -> None:
    meeting = threading.Barrier(2)

    def meet() -> Iterable[Task]:
        meeting.wait(timeout=30)  # only passes if two run at a time
        return ()

    log = Log()
    log.run([log.task(f"a {number}", then=meet) for number in range(6)], n_wide=2)
    assert log.most == 2
    assert len(log.ran) == 6


def test_a_failure_drops_its_group_and_what_needs_it_and_nothing_else() -> None:
    log = Log()
    tasks = [
        log.task("a 0", then=fail),
        log.task("a 1", priority=1),
        log.task("b 0", needs=["a 1"]),
        log.task("c 0", priority=2),
    ]
    assert log.run(tasks) == {"a", "b"}
    assert log.ran == ["a 0", "c 0"]
    assert log.errors == ["diverged"]


def test_any_other_error_stops_what_runs_and_is_raised() -> None:
    stopped = threading.Event()

    def interrupt() -> Iterable[Task]:
        raise KeyboardInterrupt

    def wait() -> Iterable[Task]:
        assert stopped.wait(timeout=30)
        return ()

    log = Log()
    tasks = [log.task("a 0", then=wait), log.task("b 0", then=interrupt), log.task("c 0", priority=1)]
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks, {"train": 2}, lambda error, task: None, stopped.set)
    assert "c 0" not in log.ran


GRAPH = """\
strict digraph {
"recordings@-";
"prepare";
"split";
"train@0";
"pseudo_label_1@1-0";
"retrain_1@1-0";
"predict";
"recordings@-" -> "prepare";
"prepare" -> "split";
"split" -> "train@0";
"train@0" -> "pseudo_label_1@1-0";
"pseudo_label_1@1-0" -> "retrain_1@1-0";
"split" -> "retrain_1@1-0";
"retrain_1@1-0" -> "predict";
}
"""


def test_the_units_are_the_later_stages_of_matrices_and_need_only_each_other() -> None:
    assert units_of(f"Running stage 'split':\n> python\n{GRAPH}", "split") == [
        ("train@0", ("split",)),
        ("pseudo_label_1@1-0", ("train@0",)),
        ("retrain_1@1-0", ("pseudo_label_1@1-0", "split")),
    ]
    assert [unit.needs for unit in units_of(GRAPH, "split")] == [[], ["train@0"], ["pseudo_label_1@1-0"]]
