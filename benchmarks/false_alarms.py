"""Measure how often a verdict calls one seed better than another, although both are the same recipe.

    cd WORKSPACE && PYTHONPATH=.../src python .../benchmarks/false_alarms.py

For every group of results that differ in nothing but the seed, over all its pairs: the share whose 95 %
interval excludes 0, by the paired bootstrap over recordings alone, and by `judge` with the noise of the
group's other runs. Pairs of one group share runs, so rates are less certain than numbers of pairs suggest.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from callboard.analysis.differences import difference
from callboard.analysis.seed_noise import MIN_DOF, SeedNoise, pooled_noise, seed_groups
from callboard.analysis.verdict import Verdict, judge, judge_lb
from callboard.results.rows import BoardRow, rows_so_far


@dataclass(frozen=True)
class Alarms:
    """Whether each verdict on a pair of equal recipes is an alarm; None if it could not be judged."""

    bootstrap: bool | None
    judge: bool
    public: bool | None
    private: bool | None


def alarms(a: BoardRow, b: BoardRow, others: Sequence[BoardRow]) -> Alarms:
    """Judge a pair by the noise of other runs."""
    noise = pooled_noise([others])
    change = difference(a, b)
    assert noise
    assert change
    judgement = judge(change, noise)
    assert judgement
    return Alarms(
        None if not change.has_interval else not change.is_within_noise,
        judgement.verdict is not Verdict.WITHIN_NOISE,
        _lb_alarm(a, b, "lb.public", noise),
        _lb_alarm(a, b, "lb.private", noise),
    )


def _lb_alarm(a: BoardRow, b: BoardRow, key: str, noise: SeedNoise) -> bool | None:
    if key not in a.metrics or key not in b.metrics:
        return None
    judgement = judge_lb(a.metrics[key] - b.metrics[key], key, noise)
    if judgement is None or judgement.verdict is Verdict.UNSURE:
        return None
    return judgement.verdict is not Verdict.WITHIN_NOISE


def report(group: Sequence[BoardRow]) -> str:
    """Describe a group's noise and its rates of alarms."""
    noise = pooled_noise([group])
    assert noise
    lines = [
        f"{(group[0].names or (group[0].name,))[0]} and {len(group) - 1} more",
        f"  sd of CV {noise.sd['cv.lwlrap']:.4f}, of a difference {noise.recordings:.4f} by recordings "
        f"and {noise.beyond:.4f} beyond",
    ]
    if len(group) - 3 < MIN_DOF:
        return "\n".join([*lines, f"  no rates: {MIN_DOF + 3} runs are needed"])
    found = [alarms(a, b, [row for row in group if row not in (a, b)]) for a, b in combinations(group, 2)]
    for what in ("bootstrap", "judge", "public", "private"):
        judged = [value for alarm in found if (value := getattr(alarm, what)) is not None]
        if judged:
            rate = sum(judged) / len(judged)
            lines.append(f"  {what:>9}: {rate:6.1%} of {len(judged)} pairs called different")
    return "\n".join(lines)


def main() -> None:
    os.environ.setdefault("DVC_ROOT", str(Path.cwd()))
    groups = seed_groups(rows_so_far())
    print("\n".join(map(report, groups)) if groups else "no two results that differ in nothing but the seed")


if __name__ == "__main__":
    main()
