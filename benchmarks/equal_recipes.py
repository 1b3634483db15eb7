"""How often verdicts call equal recipes different, in worlds where it is known what a seed does.

    PYTHONPATH=src:. python benchmarks/equal_recipes.py [--worlds 400]

The tables of docs/better.md: a pair of runs in each world, judged by the noise of five or ten other runs, and
means over two, three and five seeds. `kept` is the share of what a seed does to single recordings that a run
has from the one that it starts from. The width is half the 95 % interval, its median, over 1.96 standard
deviations of the change: if the deviation were known it would be 1. The last table has how often intervals
miss 0 where only Δ, `se` and sd are drawn, the worst of 24 worlds.
"""

import argparse
from itertools import product
from statistics import fmean, median

import numpy as np
from scipy.stats import t as student

from callboard.analysis.difference import Difference
from callboard.analysis.over_seeds import judge_changes, judge_cv
from callboard.analysis.verdict import Judgement, judge, pooled_noise
from callboard.results.settings import CV
from tests.toy_seeds import worlds

WITHIN = "within noise"


def single(n_worlds: int, common: float, n_noise: int, kept: float, gain: float = 0.0) -> str:
    """A line of the table of single pairs; with a gain, which of them differ."""
    changes: list[Difference] = []
    found: list[Judgement] = []
    for world in worlds(n_worlds, common):
        noise = pooled_noise([[world.run() for _ in range(n_noise)]], world.compare)
        base = world.run()
        change = world.compare(world.run(gain, base if kept else None, kept), base)
        judgement = judge(change, noise)
        assert judgement
        changes.append(change)
        found.append(judgement)
    sd = float(np.std([change.value for change in changes]))
    width = median((one.high - one.low) / 2 for one in found) / (1.96 * sd)
    alone = fmean(not change.is_within_noise for change in changes)
    alarms = fmean(one.word != WITHIN for one in found)
    se = fmean(change.sd for change in changes)
    rates = f"{alone:.1%} | {alarms:.1%}"
    mean = fmean(change.value for change in changes)
    return f"| {common} | {kept} | {n_noise} | {mean:+.3f} | {sd:.3f} | {se:.3f} | {rates} | {width:.2f} |"


def over_seeds(n_worlds: int, common: float, n_seeds: int, gain: float) -> str:
    """Rates of the plain t interval, the bootstrap alone and the verdict."""
    alarms = []
    for world in worlds(n_worlds, common):
        pairs = [(world.run(gain), world.run()) for _ in range(n_seeds)]
        verdict, alone = judge_cv(pairs, world.compare_means), world.compare_means(pairs)
        plain = judge_changes([a.metrics[CV] - b.metrics[CV] for a, b in pairs])
        assert verdict
        alarms.append([plain.word != WITHIN, not alone.is_within_noise, verdict.word != WITHIN])
    rates = " | ".join(f"{rate:.1%}" for rate in np.mean(alarms, axis=0))
    return f"| {common} | {n_seeds} | {gain} | {rates} |"


def worst_miss(dof: int, rng: np.random.Generator, n_draws: int = 40_000) -> str:
    """Of an interval with a floor of `dof` under its degrees of freedom, of the first, and of the narrower.

    A run's variance by the chance of single recordings is 1; `common` is what a seed adds for all alike,
    `part` and `of_common` the shares of both that a pair has of what two independent runs have.
    """
    worst = np.zeros(3)
    shares = [(1.0, 1.0), (0.3, 1.0), (0.1, 1.0), (0.3, 0.3), (0.1, 0.1), (0.1, 0.0)]
    for common, (part, of_common) in product([0.0, 0.5, 2.0, 10.0], shares):
        over_seeds = 2 * (1 + common) * rng.chisquare(dof, n_draws) / dof
        change = rng.normal(0, np.sqrt(2 * part + 2 * common * of_common), n_draws)
        once, twice = 2 * part + np.maximum(0, over_seeds - 2), 2 * part + over_seeds
        degrees = [np.clip(dof * (whole / over_seeds) ** 2 // 1, 1, 1e6) for whole in (once, twice)]
        halves = [
            student.ppf(0.975, df) * np.sqrt(whole)
            for df, whole in ((np.maximum(degrees[0], dof), once), (degrees[0], once), (degrees[1], twice))
        ]
        missed = np.abs(change) > np.stack([halves[0], halves[1], np.minimum(halves[1], halves[2])])
        worst = np.maximum(worst, missed.mean(axis=1))
    return f"| {dof} | {' | '.join(f'{rate:.1%}' for rate in worst)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=400)
    n_worlds = parser.parse_args().worlds
    print("| common | kept | noise runs | mean change | sd of it | se | bootstrap alone | verdict | width |")
    for common in (0.0, 0.1, 0.2):
        for n_noise in (5, 10):
            for kept in (0.0, 0.9):
                print(single(n_worlds, common, n_noise, kept), flush=True)
        print(single(n_worlds // 4, common, 5, 0.0, 0.45), flush=True)
    print("\n| common | seeds | gain | plain t | bootstrap alone | verdict |")
    for common in (0.0, 0.1, 0.2):
        for n_seeds in (2, 3, 5):
            print(over_seeds(n_worlds, common, n_seeds, 0.0), flush=True)
            print(over_seeds(n_worlds // 4, common, n_seeds, 0.34), flush=True)
    print("\n| dof of noise | with a floor | first interval | narrower of both |")
    for dof in (3, 4, 9):
        print(worst_miss(dof, np.random.default_rng(0)), flush=True)


if __name__ == "__main__":
    main()
