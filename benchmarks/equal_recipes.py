"""Measure how often verdicts call equal recipes different, in simulated worlds with known seed noise.

    PYTHONPATH=src:. python benchmarks/equal_recipes.py [--worlds 400]

Prints the tables of docs/appendix/verdict.md: a pair of runs in each world, judged by the noise of five or
ten other runs, and means over two, three and five seeds. `kept` is the share of a seed's effect on
single recordings that a run inherits from the run that it starts from. The width is the median of half the
95 % interval, over
1.96 standard deviations of the change; with a known deviation it would be 1. The last table shows how often
the interval misses 0 where only Δ, `se` and sd are drawn, in the worst of 24 worlds.
"""

import argparse
from itertools import product
from statistics import fmean, median

import numpy as np
from scipy.special import stdtrit

from callboard.analysis.difference import Difference
from callboard.analysis.seed_noise import pooled_noise
from callboard.analysis.verdict import UPPER, Judgement, Verdict, judge, judge_cv_mean, judge_lb_mean
from callboard.results.rows import CV
from tests.toy_seeds import worlds


def is_alarm(judgement: Judgement) -> bool:
    return judgement.verdict is not Verdict.WITHIN_NOISE


def single(n_worlds: int, common: float, n_noise: int, kept: float, gain: float = 0.0) -> str:
    """Return a line of the table of single pairs; with a gain, its rates are those of differences found."""
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
    alarms = fmean(is_alarm(one) for one in found)
    se = fmean(change.sd for change in changes)
    rates = f"{alone:.1%} | {alarms:.1%}"
    mean = fmean(change.value for change in changes)
    return f"| {common} | {kept} | {n_noise} | {mean:+.3f} | {sd:.3f} | {se:.3f} | {rates} | {width:.2f} |"


def over_seeds(n_worlds: int, common: float, n_seeds: int, gain: float) -> str:
    """Return a line with the rates of the plain t interval, the bootstrap alone and the verdict."""
    alarms = []
    for world in worlds(n_worlds, common):
        pairs = [(world.run(gain), world.run()) for _ in range(n_seeds)]
        verdict, alone = judge_cv_mean(pairs, world.compare_means), world.compare_means(pairs)
        plain = judge_lb_mean([a.metrics[CV] - b.metrics[CV] for a, b in pairs])
        assert verdict
        alarms.append([is_alarm(plain), not alone.is_within_noise, is_alarm(verdict)])
    rates = " | ".join(f"{rate:.1%}" for rate in np.mean(alarms, axis=0))
    return f"| {common} | {n_seeds} | {gain} | {rates} |"


def worst_miss(dof: int, rng: np.random.Generator, n_draws: int = 40_000) -> str:
    """Return the highest rate, over 24 worlds, at which the interval of `judge` misses 0.

    The variance of a run from single recordings is 1; `common` is that which a seed adds to all alike.
    `part` and `of_common` are the shares of the two that a pair has, relative to independent runs.
    """
    worst = 0.0
    shares = [(1.0, 1.0), (0.3, 1.0), (0.1, 1.0), (0.3, 0.3), (0.1, 0.1), (0.1, 0.0)]
    for common, (part, of_common) in product([0.0, 0.5, 2.0, 10.0], shares):
        over_seeds = 2 * (1 + common) * rng.chisquare(dof, n_draws) / dof
        change = rng.normal(0, np.sqrt(2 * part + 2 * common * of_common), n_draws)
        whole = 2 * part + np.maximum(0, over_seeds - 2)
        degrees = np.clip(dof * (whole / over_seeds) ** 2 // 1, 1, 1e9)
        half = stdtrit(degrees, UPPER) * np.sqrt(whole)
        worst = max(worst, float(np.mean(np.abs(change) > half)))
    return f"| {dof} | {worst:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=400, help="worlds per line; default %(default)s")
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
    print("\n| dof of noise | misses 0 |")
    for dof in (3, 4, 9):
        print(worst_miss(dof, np.random.default_rng(0)), flush=True)


if __name__ == "__main__":
    main()
