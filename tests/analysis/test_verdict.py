from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import hypot, inf, isnan, nan, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import t as student

from callboard.analysis.difference import Difference
from callboard.analysis.seed_noise import (
    NO_SEEDS,
    NoiseOfRows,
    SeedNoise,
    are_unlike,
    pooled_noise,
    same_networks,
    seed_groups,
    seed_noise,
)
from callboard.analysis.verdict import (
    Judgement,
    Verdict,
    flag_optimistic,
    judge,
    judge_by_t,
    judge_lb,
    least_change,
)
from callboard.core.compute import Compute
from callboard.results.rows import CV, BoardRow
from tests.toy_seeds import START, worlds

SETTING = {"lr": "1", "train.epochs": "12", "split.folds": "[0]"}
PLAIN = BoardRow("x", SETTING | {"seed": "0"}, {CV: 0.7}, START, "", {}, key="0", data_md5="d")
BETTER, WORSE, WITHIN_NOISE, OPTIMISTIC = (
    Judgement(verdict, low=-1.0, high=1.0, p_better=0.5)
    for verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.WITHIN_NOISE, Verdict.OPTIMISTIC)
)
WORSE_PERHAPS = replace(WORSE, is_tentative=True)
TEN = SeedNoise({CV: 0.01, "lb.public": 0.02}, 0.01, 10, 11, 0.01, {CV: 10, "lb.public": 10})


def seeds(*cvs: float, lr: str = "1", **metrics: list[float]) -> list[BoardRow]:
    """Runs of seeds 0, 1, … with these scores."""
    return [
        replace(
            PLAIN,
            params=SETTING | {"lr": lr, "seed": str(k)},
            metrics={CV: cv} | {f"lb.{name}": values[k] for name, values in metrics.items()},
            key=f"{lr}-{k}",
        )
        for k, cv in enumerate(cvs)
    ]


def bootstrap(sd: float) -> Callable[[BoardRow, BoardRow], Difference]:
    return lambda a, b: Difference(a.metrics[CV] - b.metrics[CV], -1, 1, 0.5, sd)


def test_a_group_differs_in_nothing_but_the_seed() -> None:
    group = seeds(0.7, 0.71)
    others = [
        replace(group[0], params=group[0].params | {"lr": "2", "seed": "5"}),
        replace(group[0], params=group[0].params | {"seed": "6"}, data_md5="else"),
        replace(group[0], params=group[0].params | {"seed": "7"}, metrics={}),
        replace(group[0], params=group[0].params | {"seed": "8"}, clips_md5="else"),
        replace(group[0], params=group[0].params | {"seed": "9"}, metrics={CV: nan}),
    ]
    assert seed_groups([*others, *group]) == [group]
    assert seed_groups(others) == []
    assert seed_noise(others) is None


HERE = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1")
UNLIKE = [
    replace(HERE, device="cuda", processor="NVIDIA H200"),
    replace(HERE, processor="Intel Xeon (AVX512)"),
    replace(HERE, threads=2),
    replace(HERE, precision="bfloat16"),
    replace(HERE, torch="2.15.0"),
]


def trained_by(row: BoardRow, *computes: Compute) -> BoardRow:
    return replace(row, own_computes=frozenset(computes))


@pytest.mark.parametrize("there", UNLIKE)
def test_results_are_unlike_if_anything_that_trained_them_differs(there: Compute) -> None:
    base, row = seeds(0.7, 0.71)
    here = trained_by(base, HERE)
    assert not are_unlike(trained_by(row, HERE), here)
    assert are_unlike(trained_by(row, there), here)
    assert are_unlike(here, trained_by(row, there))
    mixed = trained_by(base, HERE, there)
    assert are_unlike(trained_by(row, HERE), mixed)
    assert are_unlike(trained_by(row, HERE, there), mixed)  # of which folds differs


def test_a_result_without_record_is_unlike_none() -> None:
    base, row = seeds(0.7, 0.71)
    for known in (trained_by(row, HERE), trained_by(row, HERE, UNLIKE[0])):
        assert not are_unlike(known, base)
        assert not are_unlike(base, known)
        assert not are_unlike(known, None)
        assert not are_unlike(known, known)


def test_a_step_after_training_is_compared_on_the_same_networks_if_they_were_trained_alike() -> None:
    base, *_ = group = seeds(0.5, 0.6, 0.7, 0.4)
    maximum = replace(base, key="max", params=base.params | {"infer.fold_agg": "max"})
    there = UNLIKE[1]
    for computes in ((), (HERE,), (HERE, there)):
        one, two = (trained_by(row, *computes) for row in (base, maximum))
        assert same_networks(two, one)
        assert not are_unlike(two, one)
    assert same_networks(trained_by(maximum, HERE), base)
    one, two = trained_by(base, HERE), trained_by(maximum, there)
    assert not same_networks(two, one)
    assert are_unlike(two, one)
    noises = NoiseOfRows([one, *group[1:]], bootstrap(0.01))
    assert noises.between(two, one) == noises.of(two) is not None  # and not as of no seeds


def test_unlike_runs_are_groups_of_their_own_and_those_without_record_stay_with_the_others() -> None:
    group = seeds(0.70, 0.71, 0.72, 0.80, 0.82)
    here = [trained_by(row, HERE) for row in group[:3]]
    there = [trained_by(row, UNLIKE[1]) for row in group[3:]]
    assert seed_groups([*here, *there]) == [here, there]
    assert seed_groups([here[0], there[0]]) == []
    assert seed_groups([*here, *group[3:]]) == [[*here, *group[3:]]]
    assert seed_groups([*here[:2], there[0], *group[2:3]]) == [here[:2]]
    found = seed_noise([*here, *there], bootstrap(0.0))
    assert found is not None
    # variances 0.0001 of three runs and 0.0002 of two; the shift between both machines is no noise
    assert found.sd[CV] == pytest.approx(sqrt((2 * 0.0001 + 0.0002) / 3))
    assert (found.dof, found.n_runs) == (3, 5)


def test_of_a_seed_that_unlike_machines_ran_each_has_its_own_result() -> None:
    group = [trained_by(row, HERE) for row in seeds(0.7, 0.71)]
    again = trained_by(replace(group[0], key="again"), UNLIKE[0])
    assert seed_groups([*group, again]) == [group]


def test_how_pseudo_labels_would_be_made_counts_only_where_there_are_any() -> None:
    one, two = seeds(0.5, 0.6)
    threshold = {"pseudo.threshold": "0.9"}
    for final, n_groups in (("0", 1), ("1", 0)):
        rows = [
            replace(one, params=one.params | {"pseudo.rounds": final} | threshold),
            replace(two, params=two.params | {"pseudo.rounds": final}),
        ]
        assert len(seed_groups(rows)) == n_groups


def test_seeds_have_no_part_in_a_change_of_what_is_done_after_training() -> None:
    base, other = seeds(0.5, 0.6)
    maximum = replace(base, key="max", params=base.params | {"infer.fold_agg": "max"})
    change = Difference(0.01, -0.005, 0.025, 0.9, 0.0077)
    noise = NoiseOfRows([*seeds(0.5, 0.6, 0.7, 0.4), maximum])
    judged = judge(change, noise.between(maximum, base))
    assert judged is not None
    assert judged.high - judged.low == pytest.approx(2 * 1.96 * change.sd, rel=1e-3)
    for unlike in (
        other,
        replace(maximum, params=maximum.params | {"optim.lr": "9"}),
        replace(maximum, params=maximum.params | {"infer.blend": '["a@0"]'}),
        replace(maximum, data_md5="another"),
        replace(maximum, clips_md5="another"),
    ):
        assert not same_networks(unlike, base)
    blend, sharper = (replace(row, params=row.params | {"infer.blend": '["a@0"]'}) for row in (base, maximum))
    assert same_networks(sharper, blend)
    assert not same_networks(sharper, replace(blend, params=blend.params | {"infer.blend": '["a@1"]'}))


def test_equal_parameters_of_two_results_are_no_equal_networks() -> None:
    base, *_ = group = seeds(0.5, 0.6, 0.7, 0.4)
    by_other_code = replace(base, key="other code", oof_md5="other weights")
    assert not same_networks(by_other_code, base)
    noises = NoiseOfRows(group, bootstrap(0.01))
    assert noises.between(by_other_code, base) == noises.of(base)
    itself = noises.between(base, base)
    assert itself is not None
    assert itself.beyond == 0


@pytest.mark.parametrize(("final", "is_same"), [("0", True), ("1", False), (None, False)])
def test_a_teacher_that_predicts_in_another_way_makes_another_student(
    final: str | None, is_same: bool
) -> None:
    params = PLAIN.params | ({"pseudo.rounds": final} if final else {})
    one = replace(PLAIN, params=params | {"predict.tta": "1"})
    two = replace(PLAIN, params=params | {"predict.tta": "2"}, key="two")
    assert same_networks(one, two) == is_same
    inferred = replace(one, params=one.params | {"infer.fold_agg": "max"}, key="max")
    assert same_networks(one, inferred)


def test_of_one_seed_the_newest_counts_and_of_a_blend_none() -> None:
    first, second = seeds(0.7, 0.71)
    again = replace(first, metrics={CV: 0.69}, key="new")
    assert seed_groups([first, second, again]) == [[again, second]]
    blends = [replace(row, params=row.params | {"infer.blend": '["a@0"]'}) for row in (first, second)]
    assert seed_groups(blends) == []


def test_variances_are_pooled_by_degrees_of_freedom() -> None:
    few, many = seeds(0.70, 0.72), seeds(0.60, 0.61, 0.62, 0.65, lr="2", public=[0.5, 0.6, 0.7, 0.6])
    found = pooled_noise([few, many], bootstrap(0.0))
    assert found
    expected = (np.var([0.70, 0.72], ddof=1) + 3 * np.var([0.60, 0.61, 0.62, 0.65], ddof=1)) / 4
    assert found.sd[CV] == pytest.approx(sqrt(expected))
    assert found.sd["lb.public"] == pytest.approx(np.std([0.5, 0.6, 0.7, 0.6], ddof=1))
    assert "lb.private" not in found.sd
    assert (found.dof, found.n_runs) == (4, 6)
    assert found.dofs == {CV: 4, "lb.public": 3}


def test_a_score_that_is_no_number_is_left_out() -> None:
    good = seeds(0.70, 0.72, 0.75, public=[0.5, 0.6, 0.7])
    bad = replace(good[0], params=good[0].params | {"seed": "9"}, metrics={CV: nan, "lb.public": 0.9})
    half = replace(good[2], metrics=good[2].metrics | {"lb.public": inf})
    assert seed_noise([*good, bad], bootstrap(0.01)) == seed_noise(good, bootstrap(0.01))
    found = seed_noise([*good[:2], half], bootstrap(0.01))
    assert found
    assert found.sd["lb.public"] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert found.dofs == {CV: 2, "lb.public": 1}


def test_beyond_is_what_pairs_show_more_than_the_bootstrap_says() -> None:
    runs = seeds(0.70, 0.72, 0.75)
    gaps = [0.02, 0.05, 0.03]
    expected = np.mean(np.square(gaps) - 0.01**2)
    found = pooled_noise([runs], bootstrap(0.01))
    assert found
    assert found.beyond == pytest.approx(sqrt(expected))
    assert found.recordings == pytest.approx(0.01)
    assert hypot(found.recordings, found.beyond) == pytest.approx(sqrt(np.mean(np.square(gaps))))
    explained = pooled_noise([runs], bootstrap(0.1))
    assert explained
    assert explained.beyond == 0


def test_variances_of_the_bootstrap_are_pooled_by_degrees_of_freedom_too() -> None:
    few, many = seeds(0.50, 0.60), seeds(0.50, 0.60, 0.70, 0.40, lr="2")

    def uneven(a: BoardRow, b: BoardRow) -> Difference:
        return bootstrap(0.03 if a.params["lr"] == "1" else 0.01)(a, b)

    found = pooled_noise([few, many], uneven)
    assert found
    shared = (0.03**2 + 3 * 0.01**2) / 4
    assert found.recordings == pytest.approx(sqrt(shared))
    assert found.beyond == pytest.approx(sqrt(2 * found.sd[CV] ** 2 - shared))


def test_pairs_without_tables_take_nothing_off() -> None:
    found = pooled_noise([seeds(0.70, 0.72)], lambda a, b: Difference(a.metrics[CV] - b.metrics[CV]))
    assert found
    assert found.beyond == pytest.approx(0.02)
    assert found.recordings == 0


def test_both_parts_widen_the_interval_by_student_s_t() -> None:
    found = judge(Difference(0.04, 0.02, 0.06, 0.99, 0.01), TEN)
    assert found
    # both variances are 1e-4, as is that of one run: V = 2 sd², so that all ten degrees count
    half = student.ppf(0.975, 10) * sqrt(2e-4)
    assert [found.low, found.high] == pytest.approx([0.04 - half, 0.04 + half])
    assert found.p_better == pytest.approx(student.cdf(0.04 / sqrt(2e-4), 10))
    assert found.verdict is Verdict.BETTER


def test_where_recordings_say_most_the_few_seeds_matter_less() -> None:
    found = judge(Difference(0.04, 0, 0, 0.5, 0.02), TEN)
    assert found
    dof = int(10 * (5e-4 / 2e-4) ** 2)  # Welch and Satterthwaite
    assert found.high - found.low == pytest.approx(2 * student.ppf(0.975, dof) * sqrt(5e-4))


def test_few_groups_of_recordings_leave_few_degrees_of_freedom() -> None:
    change = Difference(0.04, 0, 0, 0.5, 0.02, n_groups=6)
    found = judge(change, TEN)
    assert found
    dof = int((5e-4) ** 2 / ((4e-4) ** 2 / 5 + (2e-4) ** 2 / 10))  # Welch and Satterthwaite
    assert dof == 6
    assert found.high - found.low == pytest.approx(2 * student.ppf(0.975, dof) * sqrt(5e-4))
    same_networks = judge(change, NO_SEEDS)
    assert same_networks
    assert same_networks.high - same_networks.low == pytest.approx(2 * student.ppf(0.975, 5) * 0.02)
    few_seeds = judge(change, replace(TEN, dof=1))
    assert few_seeds
    half = student.ppf(0.975, int(5 * (5 / 4) ** 2)) * sqrt(5e-4)
    assert few_seeds.high == pytest.approx(0.04 + half)


def test_the_least_change_over_groups_is_the_widest_within_noise() -> None:
    noise = replace(TEN, recordings=0.02, n_groups=6)
    for factor, verdict in ((0.999, Verdict.WITHIN_NOISE), (1.001, Verdict.BETTER)):
        found = judge(Difference(factor * least_change(noise), sd=0.02, low=0, n_groups=6), noise)
        assert found
        assert found.verdict is verdict
    assert least_change(noise) > least_change(replace(noise, n_groups=0))


def test_the_noise_of_seeds_has_the_fewest_groups_of_its_pairs() -> None:
    runs = seeds(0.70, 0.72, 0.75)

    def over_groups(a: BoardRow, b: BoardRow) -> Difference:
        return replace(bootstrap(0.01)(a, b), n_groups=6 if a.key == runs[0].key else 12)

    found = pooled_noise([runs], over_groups)
    assert found
    assert found.n_groups == 6


def test_where_little_is_left_of_the_noise_of_seeds_one_degree_of_freedom_is_the_least() -> None:
    """Nothing is left of a variance of 2e-4 over seeds beyond recordings; 10 · (2.5e-5 / 2e-4)² is 0.16."""
    left = replace(TEN, beyond=0.0, recordings=sqrt(2e-4))
    found = judge(Difference(0.0, 0, 0, 0.5, 0.005), left)
    assert found
    assert found.high == pytest.approx(student.ppf(0.975, 1) * 0.005)


@pytest.mark.parametrize("dof", [0.2, 1, 1.7, 2, 3.4, 10, 200, 1e6, inf])
@pytest.mark.parametrize("value", [-0.3, 0.0, 0.01, 0.7])
def test_interval_and_probability_are_those_of_student_s_t(dof: float, value: float) -> None:
    found = judge_by_t(value, 0.2**2, dof)
    expected = student(max(1, int(dof))) if dof < inf else NormalDist()
    upper = student.ppf(0.975, max(1, int(dof))) if dof < inf else NormalDist().inv_cdf(0.975)
    assert (found.low, found.high) == pytest.approx((value - 0.2 * upper, value + 0.2 * upper))
    assert found.p_better == pytest.approx(expected.cdf(value / 0.2))


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.1, Verdict.BETTER), (-0.1, Verdict.WORSE), (0.01, Verdict.WITHIN_NOISE)],
)
def test_the_verdict_says_on_which_side_of_zero_the_interval_lies(value: float, verdict: Verdict) -> None:
    change = Difference(value, value - 0.02, value + 0.02, 0.5, 0.01)
    measured, unmeasured = judge(change, TEN), judge(change, None)
    assert measured
    assert unmeasured
    assert (measured.verdict, measured.is_tentative) == (verdict, False)
    assert (unmeasured.verdict, unmeasured.is_tentative) == (verdict, verdict is not Verdict.WITHIN_NOISE)
    assert (unmeasured.low, unmeasured.high, unmeasured.p_better) == (change.low, change.high, 0.5)
    assert (measured.has_seeds, unmeasured.has_seeds) == (True, False)


def test_two_seeds_are_used_but_marked() -> None:
    pair = SeedNoise({CV: 0.01}, 0.01, 1, 2, 0.01, {CV: 1})
    found = judge(Difference(0.1, 0, 0, 0.5, 0.01), pair)
    assert found
    assert (found.verdict, found.is_tentative) == (Verdict.BETTER, True)
    assert found.high - 0.1 == pytest.approx(NormalDist().inv_cdf(0.975) * sqrt(2e-4))


def test_without_interval_or_change_nothing_is_judged() -> None:
    unsure = judge(Difference(0.1), TEN)
    assert unsure
    assert unsure.verdict is Verdict.UNSURE
    assert isnan(unsure.low)
    assert judge(None, TEN) is None
    assert judge_lb(None, "lb.public", TEN) is None
    for noise, key in ((None, "lb.public"), (TEN, "lb.private")):
        found = judge_lb(0.1, key, noise)
        assert found
        assert found.verdict is Verdict.UNSURE


def test_a_result_against_itself_is_within_noise_where_seeds_do_nothing() -> None:
    still = SeedNoise({CV: 0.0}, 0.0, 5, 6, 0.0, {CV: 5})
    assert judge(Difference(0.0, 0.0, 0.0, 0.5, 0.0), still) == Judgement(Verdict.WITHIN_NOISE, 0.0, 0.0, 0.5)
    sure = judge(Difference(0.1, 0.1, 0.1, 1.0, 0.0), still)
    assert sure
    assert (sure.verdict, sure.p_better) == (Verdict.BETTER, 1.0)


def test_a_leaderboard_change_is_held_against_two_seeds() -> None:
    half = student.ppf(0.975, 10) * sqrt(2) * 0.02
    inside, outside = judge_lb(half * 0.99, "lb.public", TEN), judge_lb(-half * 1.01, "lb.public", TEN)
    assert inside
    assert outside
    assert (inside.verdict, outside.verdict) == (Verdict.WITHIN_NOISE, Verdict.WORSE)
    assert least_change(TEN, "lb.public") == pytest.approx(half)


@pytest.mark.parametrize(("dof", "t", "is_tentative"), [(2, inf, True), (3, 3, False), (4, 4, False)])
def test_a_leaderboard_score_has_the_degrees_of_freedom_of_the_runs_that_have_it(
    dof: int, t: float, is_tentative: bool
) -> None:
    """Ten degrees of CV do not help a score that few of the runs have."""
    found = judge_lb(0.5, "lb.public", replace(TEN, dofs={CV: 10, "lb.public": dof}))
    assert found
    assert 0.5 - found.low == pytest.approx(student.ppf(0.975, t) * sqrt(2) * 0.02)
    assert (found.verdict, found.is_tentative) == (Verdict.BETTER, is_tentative)


def test_the_least_change_is_the_widest_change_that_is_within_noise() -> None:
    for factor, verdict in ((0.99, Verdict.WITHIN_NOISE), (1.01, Verdict.BETTER)):
        found = judge(Difference(factor * least_change(TEN), 0, 0, 0.5, TEN.recordings), TEN)
        assert found
        assert found.verdict is verdict


def test_noise_is_that_of_the_row_s_own_setting_if_enough_seeds_measured_it() -> None:
    own = seeds(0.70, 0.71, 0.72, 0.73)
    long = [replace(row, params=row.params | {"train.epochs": "60"}) for row in seeds(0.8, 0.9)]
    noises = NoiseOfRows([*own, *long], bootstrap(0.01))
    mine, thin = noises.of(replace(own[0], params=own[0].params | {"lr": "7"})), noises.of(long[0])
    assert mine
    assert thin
    assert (mine.n_runs, mine.recordings) == (4, pytest.approx(0.01))
    assert thin.n_runs == 6
    assert noises.of(replace(own[0], data_md5="else")) is None
    only_thin = NoiseOfRows(long, bootstrap(0.01)).of(long[0])
    assert only_thin
    assert only_thin.n_runs == 2


@pytest.mark.parametrize(
    ("of_row", "of_base", "expected"),
    [
        ("1", "0", [OPTIMISTIC, WORSE, OPTIMISTIC, WORSE_PERHAPS]),
        ("0", "1", [BETTER, OPTIMISTIC, OPTIMISTIC, OPTIMISTIC]),
        ("1", "1", [OPTIMISTIC] * 4),
        ("0", "0", [BETTER, WORSE, WITHIN_NOISE, WORSE_PERHAPS]),
    ],
)
def test_an_optimistic_cv_is_not_called_better(of_row: str, of_base: str, expected: list[Judgement]) -> None:
    row, base = (replace(PLAIN, params={"pseudo.rounds": final}) for final in (of_row, of_base))
    judgements = (BETTER, WORSE, WITHIN_NOISE, WORSE_PERHAPS)
    assert [flag_optimistic(judgement, row, base) for judgement in judgements] == expected
    assert flag_optimistic(None, row, base) is None


def test_no_verdict_stands_on_a_cv_without_isolation() -> None:
    voted = {"pseudo.rounds": "1", "pseudo.isolation": "none", "pseudo.source": "train"}
    row = replace(PLAIN, params=voted)
    for judgement in (BETTER, WORSE, WITHIN_NOISE):
        for pair in ((row, PLAIN), (PLAIN, row)):
            assert flag_optimistic(judgement, *pair) == OPTIMISTIC


def rates(common: float, gain: float, n_worlds: int, kept: float = 0.0) -> tuple[float, float]:
    """Share of pairs that the bootstrap alone, and judge, call different; noise is measured on 5 seeds.

    Args:
        common: As of worlds.
        gain: Of one recipe over the other.
        n_worlds: Nine pairs in each, three where one run starts from the other.
        kept: What it keeps of it.
    """
    alone, judged = [], []
    for world in worlds(n_worlds, common):
        noise = pooled_noise([[world.run() for _ in range(5)]], world.compare)
        theirs = [world.run() for _ in range(3)]
        if kept:
            pairs = [(world.run(gain, start, kept), start) for start in theirs]
        else:
            pairs = list(product([world.run(gain) for _ in range(3)], theirs))
        for a, b in pairs:
            change = world.compare(a, b)
            judgement = judge(change, noise)
            assert judgement
            alone.append(not change.is_within_noise)
            judged.append(judgement.verdict is not Verdict.WITHIN_NOISE)
    return float(np.mean(alone)), float(np.mean(judged))


@pytest.mark.slow
def test_seeds_that_move_recordings_apart_only_are_all_in_the_bootstrap() -> None:
    """360 pairs of equals; a rate of 5 % has a standard error of 1.1 %."""
    alone, judged = rates(common=0.0, gain=0.0, n_worlds=40)
    assert 0.02 < alone < 0.09
    assert judged < 0.07


@pytest.mark.slow
def test_seeds_that_move_all_recordings_fool_the_bootstrap_but_not_the_verdict() -> None:
    alone, judged = rates(common=0.1, gain=0.0, n_worlds=40)
    assert alone > 0.3
    assert 0.005 < judged < 0.08


@pytest.mark.slow
def test_networks_that_start_from_each_other_are_seldom_called_different() -> None:
    """Nine tenths of what a seed does by chance is the same in both; of what it does to all, nothing."""
    _, judged = rates(common=0.1, gain=0.0, n_worlds=40, kept=0.9)
    assert judged < 0.08


def test_a_planted_gain_of_five_hundredths_is_found() -> None:
    _, judged = rates(common=0.0, gain=0.34, n_worlds=10)
    assert judged > 0.6
