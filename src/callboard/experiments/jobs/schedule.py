"""Tasks that wait for each other: run in order of priority, a few at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from callboard.core.errors import UserError


class TaskError(UserError):
    """A task failed for a reason that concerns its group alone."""


@dataclass(frozen=True)
class Task:
    """Something to be done after other tasks."""

    key: str
    group: str
    """Name of the experiment; its tasks fail together."""
    lane: str
    priority: tuple[int, ...]
    """Rank among the tasks that can run; the lowest runs first."""
    needs: frozenset[str]
    """Keys of tasks that must have succeeded."""
    run: Callable[[], Iterable["Task"]]
    """Does it; returns further tasks."""


def run_tasks(
    tasks: Sequence[Task],
    widths: Mapping[str, int],
    report: Callable[[TaskError, Task], None],
    stop: Callable[[], None],
) -> set[str]:
    """Run tasks and those that they return, each after those that it needs; return the groups that failed.

    If a task raises a TaskError, what is left of its group is dropped, and so is every task that needs one of
    the group. Any other error, as by Ctrl-C, stops everything.

    Args:
        tasks: The first tasks.
        widths: Number of tasks that run at a time, by lane.
        report: Called with the error and the task that raised it.
        stop: Called on any other error, to end the tasks that run; they are waited for.
    """
    waiting, running = list(tasks), dict[Future[Iterable[Task]], Task]()
    done: set[str] = set()
    failed: set[str] = set()
    with ThreadPoolExecutor(sum(widths.values())) as pool:
        try:
            while True:
                _start_what_can_run(waiting, running, done, widths, pool)
                if not running:
                    return failed | {task.group for task in waiting}
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    try:
                        waiting.extend(future.result())
                        done.add(task.key)
                    except TaskError as error:
                        report(error, task)
                        failed.add(task.group)
                waiting = [task for task in waiting if task.group not in failed]
        except BaseException:
            stop()
            raise


def _start_what_can_run(
    waiting: list[Task],
    running: dict[Future[Iterable[Task]], Task],
    done: set[str],
    widths: Mapping[str, int],
    pool: ThreadPoolExecutor,
) -> None:
    """Move tasks from `waiting` to `running`."""
    for task in sorted(waiting, key=lambda task: task.priority):
        n_busy = sum(other.lane == task.lane for other in running.values())
        if task.needs <= done and n_busy < widths[task.lane]:
            waiting.remove(task)
            running[pool.submit(task.run)] = task
