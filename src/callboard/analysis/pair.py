"""Change from one result to another: parameters, metrics, verdict and species."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from callboard.analysis.difference import Difference, MismatchError, SpeciesDifference
from callboard.analysis.differences import difference
from callboard.analysis.seed_noise import NoiseOfRows
from callboard.analysis.verdict import Judgement, flag_optimistic, judge, judge_lb
from callboard.core.errors import UserError
from callboard.results.dvc_cache import NotCachedError, cached_file
from callboard.results.result import CLIPS, OUT_OF_FOLD, changes
from callboard.results.rows import CV, BoardRow, rows_named, rows_so_far, same_truth

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Metric:
    """A metric of both results; None for a result without it."""

    key: str
    a: float | None
    b: float | None

    @property
    def change(self) -> float | None:
        """Change from `a` to `b`."""
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True)
class Pair:
    """Two results on the same data; every change is from `a` to `b`."""

    a: BoardRow
    b: BoardRow
    change: Difference | None
    """Change of out-of-fold LWLRAP."""
    judgement: Judgement | None
    lb_judgements: dict[str, Judgement]
    """Judgements of the changes of those leaderboard scores that both have."""

    @property
    def params(self) -> list[str]:
        """Parameters that differ, as `key: old → new`."""
        return changes(self.a.params, self.b.params)

    @property
    def metrics(self) -> list[Metric]:
        """Metrics that either has: CV first, then by name."""
        keys = sorted({*self.a.metrics, *self.b.metrics}, key=lambda key: (key != CV, key))
        return [Metric(key, self.a.metrics.get(key), self.b.metrics.get(key)) for key in keys]

    @cached_property
    def species(self) -> list[SpeciesDifference]:
        """Contribution of each species, the largest change first.

        Empty if a table is not in DVC's cache or the tables have different species. In each, `a` is the
        result after and `b` the one before, so that `value` is the change.

        Raises:
            UserError: a table is damaged.
        """
        try:
            clips = cached_file(self.b.clips_md5, CLIPS)
            old, new = (cached_file(row.oof_md5, OUT_OF_FOLD) for row in (self.a, self.b))
        except NotCachedError:
            return []
        try:
            found = _species(new, old, clips)
        except MismatchError:
            return []
        return sorted(found, key=lambda one: -abs(one.value))


def _species(new: "Path", old: "Path", clips: "Path") -> list[SpeciesDifference]:
    from callboard.analysis.bootstrap import confirmed_in, species_differences
    from callboard.data.score_tables import read_score_table

    return species_differences(read_score_table(new), read_score_table(old), confirmed_in(clips))


def pair_of(a: BoardRow, b: BoardRow, rows: Sequence[BoardRow]) -> Pair:
    """Judge the change from `a` to `b` by the noise among all results.

    Raises:
        UserError: they are the same result, or have different data or annotations.
    """
    if a.key == b.key:
        raise UserError(
            f"{a.name} and {b.name} are the same result, {a.ref.reference}: there is nothing to compare"
        )
    if a.data_md5 != b.data_md5:
        texts = " and ".join(
            f"{row.name} of {row.params.get('data.source', '?')} {row.data_md5[:7]}" for row in (a, b)
        )
        raise UserError(f"{texts} have different data: their scores cannot be compared")
    if not same_truth(a, b):
        texts = " and ".join(f"{row.name} of {CLIPS} {row.clips_md5[:7]}" for row in (a, b))
        raise UserError(f"{texts} have different annotations: their scores cannot be compared")
    change, noise = difference(b, a), NoiseOfRows(rows).between(b, a)
    lb = {
        key: judge_lb(b.metrics[key] - a.metrics[key], key, noise)
        for key in ("lb.public", "lb.private")
        if key in a.metrics and key in b.metrics
    }
    return Pair(
        a,
        b,
        change,
        flag_optimistic(judge(change, noise), b, a),
        {key: one for key, one in lb.items() if one},
    )


def compare(a: str, b: str) -> Pair:
    """Judge the change from one result to another, as `callboard diff` does; of namesakes the newest counts.

    Args:
        a: The result before: name of an experiment, branch, tag or run, `name@key`, or a content key.
        b: The result after.

    Returns:
        `change` (of CV, with its interval over recordings or groups), `judgement` (verdict and 95 % interval
        over these and seeds), `params` that differ, `metrics` of both and `species` (change of each).

    Raises:
        UserError: no result has one of the names, both are one result, or they have different data.
    """
    rows = rows_so_far()
    return pair_of(rows_named(a, rows)[-1], rows_named(b, rows)[-1], rows)
