"""Project how long many rows take on many workers, from times measured on one machine.

    python benchmarks/scaling.py --prepare 9 --fit 42 --overhead 3 --finish 20

A model, not a measurement: folds of all rows are equal and independent, every worker is as fast as the one
that was measured, and the machine where the command runs prepares one row at a time and finishes one row at a
time, as `callboard run` does. The network and waits for start weights are left out.
"""

import argparse
import heapq


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", type=float, required=True, help="s before the folds of a row")
    parser.add_argument("--fit", type=float, required=True, help="s of a fold's training")
    parser.add_argument("--overhead", type=float, required=True, help="s that a job adds to it")
    parser.add_argument("--finish", type=float, required=True, help="s after the folds of a row")
    parser.add_argument("--rows", type=int, default=60, help="rows times seeds; default %(default)s")
    parser.add_argument("--folds", type=int, default=5, help="of each row; default %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64], help="default 1 2 8 64")
    args = parser.parse_args()
    job = args.fit + args.overhead
    serial = args.rows * (args.prepare + args.folds * args.fit + args.finish)
    print(f"one after the other, without jobs: {serial / 3600:.1f} h")
    for n_workers in args.workers:
        seconds = makespan(args.rows, args.folds, n_workers, args.prepare, job, args.finish)
        busy = args.rows * args.folds * job / (n_workers * seconds)
        print(
            f"{n_workers} workers: {seconds / 3600:.2f} h, {serial / seconds:.1f} times as fast, "
            f"workers busy {busy:.0%} of the time"
        )


def makespan(rows: int, folds: int, n_workers: int, prepare: float, job: float, finish: float) -> float:
    """Return the seconds until the last row is finished; folds of earlier rows come first."""
    free = [0.0] * n_workers
    head_is_free = 0.0
    for row in range(rows):
        prepared = (row + 1) * prepare
        ends = []
        for _ in range(folds):
            end = max(heapq.heappop(free), prepared) + job
            heapq.heappush(free, end)
            ends.append(end)
        head_is_free = max(head_is_free, *ends) + finish
    return head_is_free


if __name__ == "__main__":
    main()
