"""Project how long many rows take on many workers, from times measured on one machine.

    python benchmarks/scaling.py --prepare 9 --fit 42 --overhead 3 --score 40 --finish 10

A model, not a measurement: folds of all rows are equal and independent, every worker is as fast as the one
that was measured, workers train folds and score them, and the machine where the command runs prepares one row
at a time and records one row at a time, as `callboard run` does. The network and waits for start weights are
left out.
"""

import argparse
import heapq
from typing import NamedTuple


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", type=float, required=True, help="s before the folds of a row")
    parser.add_argument("--fit", type=float, required=True, help="s of a fold's training")
    parser.add_argument("--overhead", type=float, required=True, help="s that a job adds to it")
    parser.add_argument("--score", type=float, required=True, help="s from the folds of a row to its scores")
    parser.add_argument("--finish", type=float, required=True, help="s from the scores to the end of a row")
    parser.add_argument("--rows", type=int, default=60, help="rows times seeds; default %(default)s")
    parser.add_argument("--folds", type=int, default=5, help="of each row; default %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64], help="default 1 2 8 64")
    args = parser.parse_args()
    job = args.fit + args.overhead
    serial = args.rows * (args.prepare + args.folds * args.fit + args.score + args.finish)
    print(f"one after the other, without jobs: {serial / 3600:.1f} h")
    for n_workers in args.workers:
        score = args.score + args.overhead
        seconds = makespan(args.rows, args.folds, n_workers, args.prepare, job, score, args.finish)
        busy = args.rows * (args.folds * job + score) / (n_workers * seconds)
        print(
            f"{n_workers} workers: {seconds / 3600:.2f} h, {serial / seconds:.1f} times as fast, "
            f"workers busy {busy:.0%} of the time"
        )


class Event(NamedTuple):
    """The end of something; of two at a time, that of the earlier row comes first."""

    s: float
    row: int
    what: str


def makespan(
    rows: int, folds: int, n_workers: int, prepare: float, job: float, score: float, finish: float
) -> float:
    """Return the seconds until the last row is finished; workers take what is ready of the earliest row."""
    events = [Event((row + 1) * prepare, row, "prepare") for row in range(rows)]
    ready = list[tuple[int, str]]()
    left, n_free, head_is_free = [folds] * rows, n_workers, 0.0
    while events:
        now, row, what = heapq.heappop(events)
        n_free += what != "prepare"
        if what == "prepare":
            ready += [(row, "fold")] * folds
        elif what == "score":
            head_is_free = max(head_is_free, now) + finish
        else:
            left[row] -= 1
            ready += [(row, "score")] * (not left[row])
        ready.sort()
        while ready and n_free:
            row, what = ready.pop(0)
            n_free -= 1
            heapq.heappush(events, Event(now + (score if what == "score" else job), row, what))
    return head_is_free


if __name__ == "__main__":
    main()
