"""Measure intervals of CV at new sites, and verdicts there, with recordings or sites as independent units.

    PYTHONPATH=src:. python benchmarks/place.py [--worlds 600] [--sizes 0.6]

Prints a table of docs/appendix/verdict.md. Each world draws sites, of 20 recordings on average, and scores by
networks that have seen none of them. Sites differ in how hard their calls are, in which species call there
and which other sounds resemble them, and in how good one recipe is there and another elsewhere. The truth is
CV over thousands of sites. `covered` is the share of 95 % intervals of CV that hold it; `alarms` that of
verdicts which call two recipes different that are equal over all sites, with the noise of six other seeds.
"""

import argparse
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from callboard.analysis.bootstrap import Precisions, difference_of, pair_precisions
from callboard.analysis.difference import Difference
from callboard.analysis.seed_noise import pooled_noise
from callboard.analysis.verdict import Verdict, judge
from callboard.results.rows import CV, BoardRow
from callboard.scoring.grouped import lwlrap_interval_over_groups
from callboard.scoring.metrics import lwlrap, lwlrap_interval
from tests.toy_seeds import START

N_SPECIES, N_AT_SITE, N_RECORDINGS, N_BOOTSTRAP, N_NOISE, N_TRUTH = 24, 8, 20, 500, 6, 4000
OF_RECORDING, OF_SEED, OF_RECIPE, COMMON = 1.0, 0.6, 0.3, 0.1
"""Standard deviations of a logit in a recording, by a seed, and by recipe and site; and of what a seed adds
to the logits of all calls."""

Logits = NDArray[np.float64]
"""(recordings, species)"""


@dataclass
class Sites:
    """One draw of sites, and networks that score their recordings."""

    rng: np.random.Generator
    n_sites: int
    spread: float
    """Standard deviation over sites of the logits of calls, and of other sounds like each species."""
    spread_of_sizes: float
    """Standard deviation of the logarithm of a site's number of recordings."""

    def __post_init__(self) -> None:
        rng = self.rng
        centre = -(self.spread_of_sizes**2) / 2
        sizes = N_RECORDINGS * np.exp(rng.normal(centre, self.spread_of_sizes, self.n_sites))
        self.site = np.repeat(np.arange(self.n_sites), np.maximum(2, sizes.round().astype(int)))
        calls_here = np.argsort(rng.random((self.n_sites, N_SPECIES)), axis=1) < N_AT_SITE
        order = np.where(calls_here[self.site], rng.random((len(self.site), N_SPECIES)), 2.0)
        rank = np.argsort(np.argsort(order, axis=1), axis=1)
        self.is_present = rank < rng.integers(1, 4, len(self.site))[:, None]
        self.row, self.column = np.nonzero(self.is_present)
        self.names = np.array([f"r{i:05d}" for i in range(len(self.site))])
        by_site = self.by_site(self.spread)
        self.logits = 2.8 * self.is_present + by_site + rng.normal(0, OF_RECORDING, by_site.shape)
        self.known: dict[str, Precisions] = {}

    def by_site(self, sd: float) -> Logits:
        """Draw what each site adds to the logits of its calls, and to those of each species."""
        of_calls = self.rng.normal(0, sd, self.n_sites)[self.site, None] * self.is_present
        return of_calls + self.rng.normal(0, sd, (self.n_sites, N_SPECIES))[self.site]

    def scores(self, recipe: Logits, common: float = COMMON) -> Logits:
        """Score the recordings by a recipe with a seed of its own, which adds to the logits of all calls."""
        of_calls = self.rng.normal(0, common) * self.is_present
        return self.logits + recipe + of_calls + self.rng.normal(0, OF_SEED, recipe.shape)

    def run(self, scores: Logits, *, is_grouped: bool) -> BoardRow:
        """Return the result with these scores."""
        name = str(len(self.known))
        group = self.site.astype(str)[self.row] if is_grouped else None
        values = pair_precisions(self.is_present, scores)
        species = tuple(map(str, range(N_SPECIES)))
        self.known[name] = Precisions(species, self.names[self.row], self.column, values, group)
        return BoardRow(
            name, {"seed": name}, {CV: float(values.mean())}, START, "", {}, key=name, data_md5="d"
        )

    def compare(self, a: BoardRow, b: BoardRow) -> Difference:
        """Return the difference between two results."""
        return difference_of(self.known[a.name], self.known[b.name], N_BOOTSTRAP, 0)


def is_alarm(sites: Sites, recipe: list[Logits], noise: list[Logits], *, is_grouped: bool) -> bool:
    """Return whether the verdict calls two recipes different, with the noise of other runs of the first."""
    a, b = (sites.run(scores, is_grouped=is_grouped) for scores in recipe)
    others = [sites.run(scores, is_grouped=is_grouped) for scores in noise]
    judgement = judge(sites.compare(a, b), pooled_noise([others], sites.compare))
    assert judgement
    return judgement.verdict is not Verdict.WITHIN_NOISE


def line(n_worlds: int, n_sites: int, spread: float, spread_of_sizes: float, truth: float) -> str:
    """Return a line of the table."""
    covered, alarms = [], []
    for seed in range(n_worlds):
        sites = Sites(np.random.default_rng([seed, n_sites]), n_sites, spread, spread_of_sizes)
        recipes = sites.by_site(OF_RECIPE), sites.by_site(OF_RECIPE)
        pair = [sites.scores(recipe) for recipe in recipes]
        noise = [sites.scores(recipes[0]) for _ in range(N_NOISE)]
        scores = sites.scores(recipes[0], common=0.0)  # the interval of one CV is not meant to cover seeds
        over_recordings = lwlrap_interval(sites.is_present, scores, N_BOOTSTRAP, seed)
        over_sites = lwlrap_interval_over_groups(sites.is_present, scores, sites.site.astype(str))
        covered.append([low <= truth <= high for low, high in (over_recordings, over_sites)])
        alarms.append([is_alarm(sites, pair, noise, is_grouped=is_grouped) for is_grouped in (False, True)])
    rates = [f"{rate:.1%}" for rates in (covered, alarms) for rate in np.mean(rates, axis=0)]
    return f"| {spread} | {n_sites} | {truth:.3f} | {' | '.join(rates)} |"


def truth_of(spread: float, spread_of_sizes: float) -> float:
    """Return CV over so many sites that their choice matters little, as a mean over five recipes."""
    many = Sites(np.random.default_rng(0), N_TRUTH, spread, spread_of_sizes)
    return fmean(lwlrap(many.is_present, many.scores(many.by_site(OF_RECIPE), common=0.0)) for _ in range(5))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=600, help="worlds per line; default %(default)s")
    parser.add_argument(
        "--sizes", type=float, default=0.6, help="spread of the sizes of sites; default %(default)s"
    )
    args = parser.parse_args()
    print(
        "| spread | sites | CV of all | covered by recordings | by sites | alarms by recordings | by sites |"
    )
    for spread in (0.5, 1.0):
        truth = truth_of(spread, args.sizes)
        for n_sites in (6, 12, 24):
            print(line(args.worlds, n_sites, spread, args.sizes, truth), flush=True)


if __name__ == "__main__":
    main()
