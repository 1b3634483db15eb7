import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from callboard.analysis.bootstrap import (
    N_BOOTSTRAP,
    SEED,
    difference_of,
    mean_of,
    pair_precisions,
    precisions,
    species_differences,
)
from callboard.analysis.difference import Difference, MismatchError
from callboard.data.score_tables import score_table
from callboard.scoring.metrics import lwlrap, precision_sums, times_drawn

SPECIES = ["3", "07", "x"]
COLUMNS = ["s3", "s07", "sx"]


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, truth: pd.DataFrame, n_bootstrap: int = N_BOOTSTRAP, seed: int = SEED
) -> Difference:
    return difference_of(precisions(a, truth), precisions(b, truth), n_bootstrap, seed)


def world(n, seed):
    """Recordings with one or two species, one without any, and random scores of two results."""
    rng = np.random.default_rng(seed)
    ids = [f"r{i:03d}" for i in range(n)]
    rows = [
        (ids[i], SPECIES[k]) for i in range(1, n) for k in rng.choice(3, rng.integers(1, 3), replace=False)
    ]
    truth = pd.DataFrame(rows, columns=["recording_id", "species_id"])
    a, b = (score_table(ids, SPECIES, rng.normal(size=(n, 3))) for _ in range(2))
    return a, b, truth


def presence(truth, ids):
    return np.array(
        [[((truth["recording_id"] == r) & (truth["species_id"] == s)).any() for s in SPECIES] for r in ids]
    )


def test_the_difference_is_that_of_lwlrap():
    a, b, truth = world(30, 0)
    is_present = presence(truth, a["recording_id"])
    expected = lwlrap(is_present, a[COLUMNS].to_numpy()) - lwlrap(is_present, b[COLUMNS].to_numpy())
    assert paired_difference(a, b, truth, 100, 0).value == pytest.approx(expected)


def test_each_resample_is_scored_by_lwlrap():
    """Recordings have one species or two, so that resamples divide by different numbers."""
    a, b, truth = world(12, 3)
    is_present = presence(truth, a["recording_id"])
    has_any = np.flatnonzero(is_present.any(axis=1))
    resampled = []
    for counts in times_drawn(len(has_any), 50, 4).astype(int):
        rows = np.repeat(has_any, counts)
        gain = [lwlrap(is_present[rows], table[COLUMNS].to_numpy()[rows]) for table in (a, b)]
        resampled.append(gain[0] - gain[1])
    found = paired_difference(a, b, truth, 50, 4)
    np.testing.assert_allclose([found.low, found.high], np.quantile(resampled, [0.025, 0.975]), atol=1e-12)
    assert found.sd == pytest.approx(np.std(resampled, ddof=1))
    assert found.p_better == pytest.approx(np.mean(np.sign(np.round(resampled, 12)) / 2 + 0.5), abs=0.02)


def test_a_result_against_itself_differs_by_nothing():
    a, _, truth = world(30, 2)
    same = paired_difference(a, a.sample(frac=1, random_state=0), truth, 200, 0)
    assert same == Difference(0.0, 0.0, 0.0, 0.5, 0.0)
    assert same.is_within_noise


def test_the_precisions_of_pairs_add_up_to_those_of_recordings():
    rng = np.random.default_rng(0)
    is_present, scores = rng.random((40, 5)) < 0.3, rng.normal(size=(40, 5)).round(1)  # with ties
    sums, n_present = precision_sums(is_present, scores)
    row = np.nonzero(is_present)[0]
    found = np.bincount(row, pair_precisions(is_present, scores), minlength=40)
    np.testing.assert_allclose(found[is_present.any(axis=1)], sums)
    assert len(row) == n_present.sum()


@pytest.mark.slow
def test_of_two_equally_good_results_about_one_in_twenty_intervals_misses_zero():
    misses = [not paired_difference(*world(60, seed), 400, seed).is_within_noise for seed in range(200)]
    assert 0.01 < np.mean(misses) < 0.10


def test_the_interval_of_one_better_recording_by_hand():
    ids = ["r0", "r1"]
    truth = pd.DataFrame({"recording_id": ids, "species_id": ["3", "3"]})
    a = score_table(ids, SPECIES, np.array([[3.0, 2, 1], [1, 2, 3]]))
    b = score_table(ids, SPECIES, np.array([[2.0, 3, 1], [1, 2, 3]]))
    found = paired_difference(a, b, truth, 4000, 0)
    # 1 - 1/2 in r0 and 0 in r1: resamples give 0, 1/4 or 1/2
    assert (found.value, found.low, found.high) == (0.25, 0.0, 0.5)
    assert found.p_better == pytest.approx(0.75 + 0.25 / 2, abs=0.03)


def test_only_recordings_of_both_count_and_a_fold_is_no_score():
    a, b, truth = world(20, 3)
    extra = score_table(["zz"], SPECIES, np.array([[9.0, 0, 0]]))
    more = pd.concat([a, extra]).assign(fold=1)
    assert paired_difference(more, b, truth, 100, 0) == paired_difference(a, b, truth, 100, 0)


def test_other_species_are_refused():
    a, b, truth = world(10, 4)
    of_two = truth[truth["species_id"] != "x"]
    with pytest.raises(MismatchError, match=r"different score columns: 07, 3, x and 07, 3$"):
        paired_difference(a, b.drop(columns="sx"), of_two, 100, 0)
    with pytest.raises(MismatchError, match=r"species \['x'\] are annotated but not among the 2"):
        paired_difference(a, b.drop(columns="sx"), truth, 100, 0)


def test_columns_and_recordings_may_stand_in_any_order():
    a, b, truth = world(20, 5)
    shuffled = b[["sx", "recording_id", "s3", "s07"]].sample(frac=1, random_state=1)
    assert paired_difference(a, shuffled, truth, 100, 0) == paired_difference(a, b, truth, 100, 0)


def test_scores_that_are_no_numbers_and_recordings_without_species_are_refused():
    a, b, truth = world(10, 4)
    with pytest.raises(ValueError, match="1 scores are NaN or infinite") as refusal:
        paired_difference(a.replace(a["s3"][0], np.nan), b, truth, 100, 0)
    assert not isinstance(refusal.value, MismatchError)
    with pytest.raises(MismatchError, match="no recording that both tables have"):
        paired_difference(a, b, truth[:0], 100, 0)


def naive_species_mean(table, truth, species):
    """Mean precision at the rank of a species over the recordings that have it, pair by pair."""
    precision = []
    for recording in truth.loc[truth["species_id"] == species, "recording_id"]:
        scores = table.set_index("recording_id").loc[recording]
        present = truth.loc[truth["recording_id"] == recording, "species_id"]
        above = [name for name in SPECIES if scores[f"s{name}"] >= scores[f"s{species}"]]
        precision.append(sum(name in set(present) for name in above) / len(above))
    return np.mean(precision)


def test_the_part_of_each_species_equals_a_naive_loop():
    a, b, truth = world(25, 6)
    found = species_differences(a, b, truth)
    assert [part.species for part in found] == SPECIES
    for part in found:
        assert part.n == (truth["species_id"] == part.species).sum()
        assert part.a == pytest.approx(naive_species_mean(a, truth, part.species))
        assert part.b == pytest.approx(naive_species_mean(b, truth, part.species))
        assert part.low <= part.value <= part.high


def test_the_parts_of_species_add_up_to_the_change():
    a, b, truth = world(40, 7)
    truth = truth[~((truth["species_id"] == "x") & (truth["recording_id"] > "r010"))]
    found = species_differences(a, b[b["recording_id"] > "r003"], truth)
    added = sum(part.n * part.value for part in found) / sum(part.n for part in found)
    assert added == pytest.approx(paired_difference(a, b[b["recording_id"] > "r003"], truth).value)


def test_a_species_of_one_recording_has_no_interval_and_one_of_none_no_part():
    ids = ["r0", "r1"]
    truth = pd.DataFrame({"recording_id": ["r0", "r0", "r1"], "species_id": ["3", "07", "07"]})
    a = score_table(ids, SPECIES, np.array([[3.0, 2, 1], [1, 2, 3]]))
    b = score_table(ids, SPECIES, np.array([[1.0, 3, 2], [1, 3, 2]]))
    three, seven = species_differences(a, b, truth)
    assert (three.species, three.n, three.a, three.b) == ("3", 1, 1.0, pytest.approx(2 / 3))
    assert np.isnan([three.low, three.high]).all()
    # 07 in r0: 1 (both above it are present) and 1; in r1: 1/2 and 1
    assert (seven.n, seven.a, seven.b, seven.value) == (2, 0.75, 1.0, -0.25)
    assert (seven.low, seven.high) == (-0.5, 0.0)


def test_an_unknown_interval_is_not_noise():
    assert not Difference(0.1).has_interval
    assert not Difference(0.1).is_within_noise


def grouped(table, names):
    """The table with a group for each recording."""
    return table.assign(group=names)


def test_over_groups_the_interval_is_that_of_scoring_again_without_each():
    a, b, truth = world(40, 5)
    names = np.random.default_rng(0).choice(["A", "B", "C", "D"], 40)
    found = paired_difference(grouped(a, names), grouped(b, names), truth)
    value = paired_difference(a, b, truth).value
    without = [paired_difference(a[names != name], b[names != name], truth).value for name in "ABCD"]
    sd = np.sqrt(3 / 4 * np.sum((np.array(without) - value) ** 2))
    half = student.ppf(0.975, 3) * sd
    assert found == Difference(
        *map(
            pytest.approx, (value, value - half, value + half, student.cdf(value / sd, 3), sd)
        ),
        n_groups=4,
    )  # fmt: skip
    assert found.dof == 3


def test_of_two_groupings_the_coarser_counts_whichever_result_has_it():
    a, b, truth = world(40, 6)
    fine, coarse = [f"day{i // 4}" for i in range(40)], [f"site{i // 10}" for i in range(40)]
    expected = paired_difference(grouped(a, coarse), grouped(b, coarse), truth)
    assert expected.n_groups == 4
    for ours, theirs in ((coarse, fine), (fine, coarse)):
        assert paired_difference(grouped(a, ours), grouped(b, theirs), truth) == expected
    assert paired_difference(a, grouped(b, coarse), truth) == expected
    assert paired_difference(grouped(a, coarse), b, truth) == expected


def test_groups_are_those_of_the_recordings_of_both():
    a, b, truth = world(40, 11)
    names = np.random.default_rng(1).choice(["A", "B", "C", "D"], 40)
    ours, theirs = grouped(a, names), grouped(b, names)
    expected = paired_difference(ours.iloc[:25], theirs.iloc[:25], truth)
    assert paired_difference(ours, theirs.iloc[:25], truth) == expected
    assert paired_difference(ours.iloc[:25], b, truth) == expected


def test_a_mean_over_seeds_keeps_the_groups():
    a, b, truth = world(40, 7)
    names = [f"site{i // 10}" for i in range(40)]
    several = [precisions(grouped(table, names), truth) for table in (a, b)]
    found = difference_of(mean_of(several), several[0])
    assert found.n_groups == 4
    assert found.value == pytest.approx(difference_of(several[1], several[0]).value / 2)


def test_one_group_has_a_change_but_no_interval():
    a, b, truth = world(10, 8)
    found = paired_difference(grouped(a, "A"), b, truth)
    assert found.value == pytest.approx(paired_difference(a, b, truth).value)
    assert not found.has_interval


def test_a_species_interval_is_over_the_groups_that_have_it():
    a, b, truth = world(40, 9)
    names = np.array([f"site{i // 10}" for i in range(40)])
    changes = species_differences(grouped(a, names), b, truth)
    assert [one.value for one in changes] == [one.value for one in species_differences(a, b, truth)]
    only = truth[truth["species_id"] == "07"]
    of_one = paired_difference(grouped(a, names), b, truth).n_groups
    assert of_one == 4
    gain = precisions(a, truth), precisions(b, truth)
    is_07 = gain[0].species_of == gain[0].species.index("07")
    values = (gain[0].values - gain[1].values)[is_07]
    place = np.array([f"site{int(name[1:]) // 10}" for name in gain[0].recording_of[is_07]])
    without = np.array([values[place != name].mean() for name in np.unique(place)])
    half = student.ppf(0.975, len(without) - 1) * np.sqrt(
        (len(without) - 1) / len(without) * ((without - values.mean()) ** 2).sum()
    )
    change = next(one for one in changes if one.species == "07")
    assert change.n == len(only)
    assert (change.low, change.high) == pytest.approx((values.mean() - half, values.mean() + half))
