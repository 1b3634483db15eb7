"""Who made which pseudo-label and what they had seen, told by tables and weights files alone.

A network has *seen* a training recording that its weights file does not list as held out. It has *inherited*
one that a maker of the pseudo-labels it was trained on had seen or inherited: labels of that recording may
have reached it by way of other recordings. A pseudo-label of a training recording is isolated where no
network that voted had seen the recording; that is what `pseudo.isolation` recording promises. Nothing is
promised of inheritance, which no round after the first avoids while folds stay the same; it is counted.

Not traced: what weights that a network started from had seen (`train.init_from`, `model.weights`).
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from callboard.errors import UserError

HeldOut = Mapping[str, Collection[str]]
"""Network (`r0/fold3`) to the recordings that its weights file says it was not trained on."""

Open = Callable[[str], Path]
"""From the path of an output in a workspace to where the file lies."""


@dataclass(frozen=True)
class RoundLineage:
    """What is known of the makers of one round's pseudo-labels."""

    round: int
    """Of the student."""
    isolation: str
    """`pseudo.isolation`."""
    by_teacher: dict[str, int]
    """Pseudo-labels of each teacher: `r0/fold3`, or `r0` for the votes of a whole round."""
    n_test: int
    """Of test recordings, which any network may label."""
    n_unseen: int
    """Of training recordings that no maker had seen or inherited."""
    n_inherited: int
    """Of training recordings that no maker had seen, and some had inherited."""
    n_seen: int
    """Of training recordings that a network which voted had been trained on."""
    n_unsure: int
    """Of training recordings that a network which may have voted had been trained on."""
    seen: list[str]
    """The cases of the two before, in words."""
    strangers: list[str]
    """Teachers that are no network of the round before, or without weights file, in words."""
    is_traced: bool
    """Whether inheritance is known: the files of all rounds before are there."""

    @property
    def n_labels(self) -> int:
        """All pseudo-labels of the round."""
        return sum(self.by_teacher.values())

    @property
    def n_training(self) -> int:
        """Those of training recordings."""
        return self.n_labels - self.n_test

    @property
    def violations(self) -> list[str]:
        """What breaks the promise of `pseudo.isolation`, or cannot be proved to keep it."""
        return self.strangers + self.seen * (self.isolation == "recording")

    @property
    def sentence(self) -> str:
        """Whether the round is isolated."""
        if not self.n_training:
            return "no label of a training recording"
        if self.n_seen or self.n_unsure:
            unsure = f", {self.n_unsure:,} more may have had" * bool(self.n_unsure)
            return (
                f"NOT isolated: {self.n_seen:,} of {self.n_training:,} labels had a vote of a model trained "
                f"on the recording{unsure}"
            )
        proved = self.n_unseen + self.n_inherited
        if proved < self.n_training:
            return f"isolation proved of {proved:,} of {self.n_training:,} labels only"
        return f"isolated: no teacher had seen its recording ({proved:,} of {self.n_training:,})"

    @property
    def depth(self) -> str:
        """How far the proof goes."""
        proved = self.n_unseen + self.n_inherited
        if not proved:
            return "no label is isolated, so there is nothing to trace further"
        if not self.is_traced:
            return "what the makers' own pseudo-labels came from is not known: files of earlier rounds lack"
        if not self.n_inherited:
            return f"of {self.n_unseen:,} labels nobody in the makers' line had seen the recording"
        return (
            f"of {self.n_inherited:,} of {proved:,} isolated labels, the makers' own pseudo-labels came from "
            f"networks that had seen the recording; of {self.n_unseen:,} nobody in the line had"
        )


def trace_rounds(
    tables: Mapping[int, pd.DataFrame], folds: pd.DataFrame, held_out: HeldOut, isolation: str
) -> list[RoundLineage]:
    """The lineage of every round, in order.

    Args:
        tables: Round of the student to its pseudo-labels: recording_id, teacher, votes.
        folds: recording_id, fold of the training recordings; all others are test recordings.
        held_out: Of the networks of all rounds before the last, as far as they are known.
        isolation: `pseudo.isolation`.
    """
    tracer = _Tracer(tables, folds, held_out)
    return [tracer.trace(number, isolation) for number in sorted(tables)]


class _Tracer:
    """Looks up networks, and works out once what each has inherited."""

    def __init__(self, tables: Mapping[int, pd.DataFrame], folds: pd.DataFrame, held_out: HeldOut) -> None:
        self._tables = tables
        self._fold_of = dict(zip(folds["recording_id"], folds["fold"], strict=True))
        self._held_out = {network: frozenset(held) for network, held in held_out.items()}
        self._known: dict[str, frozenset[str] | None] = {}

    @cached_property
    def _recordings(self) -> frozenset[str]:
        return frozenset(self._fold_of)

    def trace(self, number: int, isolation: str) -> RoundLineage:
        table = self._tables[number]
        counts: Counter[str] = Counter()
        seen, strangers, is_traced = set(), set(), True
        for (recording_id, teacher, votes), count in _cases(table):
            networks = self._networks(teacher, number - 1)
            where = f"recording {recording_id}"
            if recording_id in self._fold_of:
                where += f" (fold {self._fold_of[recording_id]})"
            if not networks:
                told = f"of which there are no weights of round {number - 1}"
                strangers.add(f"{where} was labelled by {teacher}, {told}")
            if recording_id not in self._fold_of:
                counts["test"] += count
            elif networks:
                kind = self._kind(recording_id, networks, votes)
                counts[kind] += count
                if kind in ("seen", "unsure"):
                    seen.add(f"{where} was labelled by {teacher}, which had trained on it")
                else:
                    is_traced &= all(self._inherited(network) is not None for network in networks)
        return RoundLineage(
            round=number,
            isolation=isolation,
            by_teacher=dict(sorted(Counter(table["teacher"]).items())),
            n_test=counts["test"],
            n_unseen=counts["unseen"],
            n_inherited=counts["inherited"],
            n_seen=counts["seen"],
            n_unsure=counts["unsure"],
            seen=sorted(seen),
            strangers=sorted(strangers),
            is_traced=is_traced,
        )

    def _networks(self, teacher: str, number: int) -> list[str]:
        """Those that a teacher of a round stands for; none where it is not of that round, or unknown."""
        if teacher == f"r{number}":
            return [network for network in self._held_out if network.startswith(f"{teacher}/")]
        return [teacher] if teacher in self._held_out and teacher.startswith(f"r{number}/") else []

    def _kind(self, recording_id: str, networks: list[str], votes: int) -> str:
        n_isolated = sum(recording_id in self._held_out[network] for network in networks)
        if n_isolated < len(networks):
            return "seen" if votes > n_isolated else "unsure"
        is_inherited = any(recording_id in (self._inherited(network) or ()) for network in networks)
        return "inherited" if is_inherited else "unseen"

    def _inherited(self, network: str) -> frozenset[str] | None:
        """Recordings that makers of its pseudo-labels had seen or inherited; None where files lack."""
        if network not in self._known:
            self._known[network] = self._work_out(network)
        return self._known[network]

    def _work_out(self, network: str) -> frozenset[str] | None:
        number = int(network.partition("/")[0].removeprefix("r"))
        if number == 0:
            return frozenset()
        if number not in self._tables:
            return None
        table = self._tables[number]
        trained_on = table[~table["recording_id"].isin(self._held_out[network])]
        inherited: set[str] = set()
        for teacher in trained_on["teacher"].unique():
            makers = self._networks(teacher, number - 1)
            if not makers:
                return None
            for maker in makers:
                before = self._inherited(maker)
                if before is None:
                    return None
                inherited |= before | (self._recordings - self._held_out[maker])
        return frozenset(inherited)


def _cases(table: pd.DataFrame) -> list[tuple[tuple[str, str, int], int]]:
    """Recording, teacher and votes, each combination with its number of pseudo-labels."""
    return list(Counter(zip(table["recording_id"], table["teacher"], table["votes"], strict=True)).items())


def refuse_violations(lineage: RoundLineage) -> None:
    """Stop where the promise of isolation is broken.

    Raises:
        UserError: naming the first recording, its fold and its teacher.
    """
    if violations := lineage.violations:
        raise UserError(f"leak: pseudo-labels of round {lineage.round}: {first_of(violations)}")


def first_of(violations: list[str]) -> str:
    """The first violation, and how many more there are."""
    return violations[0] + f" (and {len(violations) - 1:,} more such)" * (len(violations) > 1)


def read_lineage(open_output: Open, params: Mapping[str, str]) -> list[RoundLineage]:
    """The lineage of all rounds of a result; none where it has no pseudo-labels.

    Args:
        open_output: Finds its folds, pseudo-labels and weights.
        params: Its parameters as text, by dotted key.

    Raises:
        UserError: a file is missing or not what it should be.
    """
    final = int(params.get("pseudo.final", "0"))
    if not final:
        return []
    from callboard.clips import read_clips
    from callboard.folds import read_folds

    folds = read_folds(open_output("data/folds.csv"))
    tables = {number: read_clips(open_output(f"pseudo/r{number}.csv")) for number in range(1, final + 1)}
    held_out = {
        f"r{number}/fold{fold}": _held_out(open_output(f"models/r{number}/fold{fold}.pt"), fold)
        for number in range(final)
        for fold in json.loads(params["split.folds"])
    }
    return trace_rounds(tables, folds, held_out, params.get("pseudo.isolation", "recording"))


def _held_out(path: Path, fold: int) -> frozenset[str]:
    from callboard.checkpoint import read_held_out

    told, held_out = read_held_out(path)
    if told != fold:
        raise UserError(f"{path}: holds the weights of fold {told}, not of fold {fold}")
    return held_out
