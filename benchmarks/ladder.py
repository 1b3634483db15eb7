"""Collect the ladder's runs from workspaces in docs/ladder.csv, and print the tables of docs/ladder.md.

    cd WORKSPACE && PYTHONPATH=.../src python .../benchmarks/ladder.py collect synthetic
    python benchmarks/ladder.py table
    python benchmarks/ladder.py gain stage3-nested stage2 real

`collect` adds the results of exp0051 and of the rows of block preset that the file lacks. `gain` compares two
rows over the seeds that both have: mean changes, with 95 % intervals over seeds alone.
"""

import argparse
import os
import sys
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from callboard.analysis.verdict import judge_lb_mean  # noqa: E402

RUNS = ROOT / "docs/ladder.csv"
SCORES = {"cv": "cv.lwlrap", "lb_public": "lb.public", "lb_private": "lb.private"}
WORLDS = ("synthetic", "real")
BASELINE = "exp0051"


def collect(world: str) -> None:
    """Add the results of the workspace in the current folder to RUNS."""
    os.environ.setdefault("DVC_ROOT", str(Path.cwd()))
    from callboard.experiments.table import read_experiments
    from callboard.results.rows import mark_of, read_rows

    table = read_experiments()
    wanted = [name for name, row in table.rows.items() if row.block == "preset" or name == BASELINE]
    found = {
        (world, name, int(row.params["seed"])): [
            *(round(row.metrics.get(key, nan), 5) for key in SCORES.values()),
            mark_of(row),
        ]
        for row in read_rows()
        for name in wanted
        if name in row.table_names and isfinite(row.metrics.get(SCORES["cv"], nan))
    }
    known = read_runs()
    there = set(known[["world", "row", "seed"]].itertuples(index=False, name=None))
    new = [[*key, *values] for key, values in found.items() if key not in there]
    both = pd.concat([known, pd.DataFrame(new, columns=known.columns)])
    order = {"world": WORLDS.index, "row": wanted.index, "seed": lambda seed: (seed != 416) * (seed + 1)}
    both = both.sort_values(list(order), key=lambda column: column.map(order[column.name]), kind="stable")
    both.to_csv(RUNS, index=False)
    print(f"{len(new)} of {len(found)} runs are new in {RUNS.name}")


def read_runs() -> pd.DataFrame:
    """Read RUNS: world, row, seed, scores and mark."""
    return pd.read_csv(RUNS, keep_default_na=False)


def runs_of(runs: pd.DataFrame, world: str, row: str) -> pd.DataFrame:
    """Return the runs of a row in a world, indexed by seed."""
    return runs[(runs["world"] == world) & (runs["row"] == row)].set_index("seed")


def score(values: pd.Series, mark: str = "") -> str:
    """Format mean and standard deviation."""
    numbers = [float(value) for value in values]
    spread = f" ({stdev(numbers):.3f})" if len(numbers) > 1 else ""
    return f"{fmean(numbers):.3f}{mark.replace('*', chr(92) + '*')}{spread}"


def table() -> None:
    """Print means over seeds as Markdown, a line for each row of the ladder."""
    runs = read_runs()
    for name in runs["row"].unique():
        cells = [name]
        for world in WORLDS:
            of_row = runs_of(runs, world, name)
            cells += [str(len(of_row)), score(of_row["cv"], of_row["mark"].iloc[0])]
            cells += [score(of_row[key]) for key in ("lb_public", "lb_private")]
        print("|", " | ".join(cells), "|")


def gain(row: str, base: str, world: str) -> None:
    """Print the mean change of each score over common seeds."""
    runs = read_runs()
    ours, theirs = (runs_of(runs, world, name) for name in (row, base))
    seeds = ours.index.intersection(theirs.index)
    for key in SCORES:
        changes = [float(ours.loc[seed, key]) - float(theirs.loc[seed, key]) for seed in seeds]
        found = judge_lb_mean(changes) if len(changes) > 1 else None
        interval = f" ({found.low:+.3f} … {found.high:+.3f})" if found else ""
        print(f"{world} {key:<10} {fmean(changes):+.3f}{interval}, {len(changes)} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(required=True, dest="action")
    actions.add_parser("collect").add_argument("world", choices=WORLDS)
    actions.add_parser("table")
    of_gain = actions.add_parser("gain")
    of_gain.add_argument("row")
    of_gain.add_argument("base")
    of_gain.add_argument("world", choices=WORLDS)
    args = parser.parse_args()
    if args.action == "collect":
        collect(args.world)
    elif args.action == "table":
        table()
    else:
        gain(args.row, args.base, args.world)


if __name__ == "__main__":
    main()
