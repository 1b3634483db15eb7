"""Lineage of pseudo-labels: who made each and what they had seen, read from tables and weights files alone.

A network has *seen* a training recording that its weights file does not list as held out. It has *inherited*
one that a maker of the pseudo-labels it was trained on had seen or inherited: labels of that recording may
have reached it through other recordings. A pseudo-label of a training recording is isolated if no network
that voted had seen the recording; that is what `pseudo.isolation` recording promises. Inheritance, which no
round after the first avoids while folds stay the same, is counted. `nested` promises that no network that
voted had seen or inherited the recording, or any recording that its student holds out.

Not traced: what the start weights of a network had seen. `callboard audit` continues with the result that
`train.init_from` names; of `model.weights` nothing is known.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.data.clips import labels_for, read_clips, students_of
from callboard.data.folds import read_folds
from callboard.pseudo.held_out import NETWORKS, labels_file, network_name, networks_behind, weights_file
from callboard.results.dvc_cache import cached_file, md5s_listed
from callboard.results.result import FOLDS

HeldOut = Mapping[str, Collection[str]]
"""Maps a network (`r0/fold3`) to the recordings that its weights file lists as held out."""

Open = Callable[[str], Path]
"""Maps the path of an output in a workspace to its file."""


@dataclass(frozen=True)
class RoundLineage:
    """Makers of one round's pseudo-labels, and what they had seen."""

    round: int
    """Round of the student."""
    isolation: str
    """`pseudo.isolation`."""
    by_teacher: dict[str, int]
    """Number of pseudo-labels of each teacher: `r0/fold3`, or `r0` for the votes of a whole round."""
    n_unfolded: int
    """Number of labels of test and external recordings, which any network may label."""
    n_unseen: int
    """Number of labels of training recordings that no maker had seen or inherited."""
    n_inherited: int
    """Number of labels of training recordings that no maker had seen, but some had inherited."""
    n_seen: int
    """Number of labels of training recordings that a network which voted was trained on."""
    n_unsure: int
    """Number of labels of training recordings that a network which may have voted was trained on."""
    seen: list[str]
    """Descriptions of the cases of `n_seen` and `n_unsure`."""
    known: list[str]
    """Descriptions of what else breaks the promise of `nested`, or is not known to keep it."""
    strangers: list[str]
    """Descriptions of teachers that are not networks of the round before, or without weights file; where many
    vote, of one of them."""
    is_traced: bool
    """Whether inheritance is known, since the files of all rounds before exist."""

    @property
    def n_labels(self) -> int:
        """Number of all pseudo-labels of the round."""
        return sum(self.by_teacher.values())

    @property
    def n_training(self) -> int:
        """Number of pseudo-labels of training recordings."""
        return self.n_labels - self.n_unfolded

    @property
    def violations(self) -> list[str]:
        """Descriptions of what breaks the promise of `pseudo.isolation`, or cannot be proved to keep it."""
        is_promised, is_nested = self.isolation != "none", self.isolation == "nested"
        return self.strangers + self.seen * is_promised + self.known * is_nested

    @property
    def sentence(self) -> str:
        """Whether the round is isolated, in words."""
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
            return f"isolation is proved for only {proved:,} of {self.n_training:,} labels"
        if self.isolation == "nested":
            if broken := self.known + self.strangers:
                verdict = "NOT nested" if self.known and self.is_traced else "nested is not proved"
                return f"{verdict}: {first_of(broken)}"
            also = ", or what its student is validated on"
            return f"isolated: no teacher had seen its recording{also} ({proved:,} of {self.n_training:,})"
        return f"isolated: no teacher had seen its recording ({proved:,} of {self.n_training:,})"

    @property
    def depth(self) -> str:
        """Extent of the proof, in words."""
        proved = self.n_unseen + self.n_inherited
        if not proved:
            return "no label is isolated, so there is nothing to trace further"
        if not self.is_traced:
            return "the origin of the makers' own pseudo-labels is unknown: files of earlier rounds are gone"
        if not self.n_inherited:
            return f"for {self.n_unseen:,} labels, no network in the makers' line had seen the recording"
        return (
            f"for {self.n_inherited:,} of {proved:,} isolated labels, the makers' own pseudo-labels came "
            f"from networks that had seen the recording; for {self.n_unseen:,}, no network in the line had"
        )


@dataclass(frozen=True)
class NestedFiles:
    """Contents of the files that networks of `pseudo.isolation` nested leave."""

    held_out: dict[str, frozenset[str]]
    """As HeldOut, by names such as `r0/folds0-2`."""
    tables: dict[str, pd.DataFrame]
    """Pseudo-labels that each network was trained on, by its name."""


def read_nested(weights: Mapping[str, Path], tables: Mapping[str, Path]) -> NestedFiles:
    """Read weights files and tables, by the names of the networks.

    Raises:
        UserError: a file is not what it should be.
    """
    from callboard.model.weights import read_held_out

    return NestedFiles(
        {network: read_held_out(path)[1] for network, path in weights.items()},
        {network: read_clips(path) for network, path in tables.items()},
    )


def trace_rounds(
    tables: Mapping[int, pd.DataFrame],
    folds: pd.DataFrame,
    held_out: HeldOut,
    isolation: str,
    of_networks: Mapping[str, pd.DataFrame] | None = None,
) -> list[RoundLineage]:
    """Trace the lineage of every round, in order.

    Args:
        tables: Maps the round of the student to its pseudo-labels: recording_id, teacher, votes, and student
            where they are not for all students.
        folds: recording_id, fold of the training recordings; test and external ones are not in it.
        held_out: Held-out recordings of the networks of all rounds before the last, as far as they are known.
        isolation: `pseudo.isolation`.
        of_networks: Pseudo-labels of single networks that are in none of `tables`.
    """
    tracer = _Tracer(tables, folds, held_out, of_networks or {})
    return [tracer.trace(number, isolation) for number in sorted(tables)]


class _Tracer:
    """Look-up of networks, and of what each has inherited."""

    def __init__(
        self,
        tables: Mapping[int, pd.DataFrame],
        folds: pd.DataFrame,
        held_out: HeldOut,
        of_networks: Mapping[str, pd.DataFrame],
    ) -> None:
        self._tables = tables
        self._of_networks = of_networks
        self._fold_of = dict(zip(folds["recording_id"], folds["fold"], strict=True))
        self._held_out = {network: frozenset(held) for network, held in held_out.items()}
        self._known: dict[str, frozenset[str] | None] = {}

    @cached_property
    def _recordings(self) -> frozenset[str]:
        return frozenset(self._fold_of)

    def trace(self, number: int, isolation: str) -> RoundLineage:
        table = self._tables[number]
        counts: Counter[str] = Counter()
        seen, known, strangers, is_traced = set(), set(), set(), True
        for (recording_id, teacher, votes, student), count in _cases(table):
            networks = self._networks(teacher, number - 1)
            where = f"recording {recording_id}"
            if recording_id in self._fold_of:
                where += f" (fold {self._fold_of[recording_id]})"
            if lack := self._lacks(teacher, networks, votes, number - 1):
                strangers.add(f"{where} was labelled by {teacher}, of which there are {lack}")
            if isolation == "nested" and (leak := self._known_of(student, networks)):
                known.add(f"{where} was labelled by {teacher}, {leak}")
            if recording_id not in self._fold_of:
                counts["unfolded"] += count
            elif networks:
                kind = self._kind(recording_id, networks, votes)
                counts[kind] += count
                if kind in ("seen", "unsure"):
                    seen.add(f"{where} was labelled by {teacher}, which had trained on it")
                else:
                    if kind == "inherited":
                        known.add(f"{where} was labelled by {teacher}, whose own teachers had trained on it")
                    is_traced &= all(self._inherited(network) is not None for network in networks)
        return RoundLineage(
            round=number,
            isolation=isolation,
            by_teacher=dict(sorted(Counter(table["teacher"]).items())),
            n_unfolded=counts["unfolded"],
            n_unseen=counts["unseen"],
            n_inherited=counts["inherited"],
            n_seen=counts["seen"],
            n_unsure=counts["unsure"],
            seen=sorted(seen),
            known=sorted(known),
            strangers=sorted(strangers),
            is_traced=is_traced,
        )

    def _networks(self, teacher: str, number: int) -> list[str]:
        """Return the networks that a teacher of a round stands for; empty if unknown or of another round."""
        if teacher == f"r{number}":
            return [
                network
                for network in self._held_out
                if network.startswith(f"{teacher}/fold") and network.removeprefix(f"{teacher}/fold").isdigit()
            ]
        if teacher.startswith(f"r{number}/") and teacher.endswith("-*"):
            student = _folds_in(teacher.removesuffix("-*"))
            return [
                network
                for network in self._held_out
                if network.startswith(f"r{number}/folds") and _is_teacher_of(student, _folds_in(network))
            ]
        return [teacher] if teacher in self._held_out and teacher.startswith(f"r{number}/") else []

    def _lacks(self, teacher: str, networks: list[str], votes: int, number: int) -> str:
        """Describe which weights of a teacher exist; empty if all networks that may have voted have them."""
        if not networks:
            return f"no weights of round {number}"
        if teacher in networks:
            return ""
        n_networks = votes
        if teacher.endswith("-*"):
            n_networks = max(
                votes, len(set(self._fold_of.values())) - len(_folds_in(teacher.removesuffix("-*")))
            )
        return f"weights of {len(networks)} of {n_networks} networks" * (len(networks) < n_networks)

    def _kind(self, recording_id: str, networks: list[str], votes: int) -> str:
        n_isolated = sum(recording_id in self._held_out[network] for network in networks)
        if n_isolated < len(networks):
            return "seen" if votes > n_isolated else "unsure"
        is_inherited = any(recording_id in (self._inherited(network) or ()) for network in networks)
        return "inherited" if is_inherited else "unseen"

    def _known_of(self, student: str, networks: list[str]) -> str:
        """Describe how networks saw, or may have, what a student is validated on; empty if none did."""
        if not student:
            return "for all students, so it cannot be nested"
        folds = student.split("-")
        validated = {recording_id for recording_id, fold in self._fold_of.items() if str(fold) in folds}
        for network in networks:
            if validated - self._held_out[network]:
                return f"and {network} had trained on fold {student}, which the student is validated on"
            inherited = self._inherited(network)
            if inherited is None:
                return f"and what {network} was taught is unknown: files of earlier rounds are gone"
            if validated & inherited:
                who = f"teachers of {network}"
                return f"and {who} had trained on fold {student}, which the student is validated on"
        return ""

    def _inherited(self, network: str) -> frozenset[str] | None:
        """Return recordings that makers of its pseudo-labels saw or inherited; None if files are gone."""
        if network not in self._known:
            self._known[network] = self._work_out(network)
        return self._known[network]

    def _work_out(self, network: str) -> frozenset[str] | None:
        number = int(network.partition("/")[0].removeprefix("r"))
        if number == 0:
            return frozenset()
        table = self._of_networks.get(network)
        if table is None:
            is_nested = "/folds" in network  # learns from a table of its own only
            if is_nested or number not in self._tables:
                return None
            table = labels_for(self._tables[number], network.rpartition("fold")[2])
        trained_on = table[~table["recording_id"].isin(self._held_out[network])]
        inherited: set[str] = set()
        for teacher in trained_on["teacher"].unique():
            makers = self._networks(teacher, number - 1)
            if self._lacks(teacher, makers, 1, number - 1):
                return None
            for maker in makers:
                before = self._inherited(maker)
                if before is None:
                    return None
                inherited |= before | (self._recordings - self._held_out[maker])
        return frozenset(inherited)


def _cases(table: pd.DataFrame) -> list[tuple[tuple[str, str, int, str], int]]:
    """Count pseudo-labels by recording, teacher, votes and student."""
    columns = table["recording_id"], table["teacher"], table["votes"], students_of(table)
    return list(Counter(zip(*columns, strict=True)).items())


def _is_teacher_of(student: frozenset[str], held_out: frozenset[str]) -> bool:
    """Return whether a network holds out what a student does, and one fold more."""
    return student < held_out and len(held_out) == len(student) + 1


def _folds_in(network: str) -> frozenset[str]:
    """Return the folds in a name such as `r0/folds0-2`."""
    return frozenset(network.rpartition("folds")[2].split("-"))


def refuse_violations(lineage: RoundLineage) -> None:
    """Refuse a round that breaks the promise of isolation.

    Raises:
        UserError: the promise is broken; names the first recording, its fold and its teacher.
    """
    if violations := lineage.violations:
        raise UserError(f"leak: pseudo-labels of round {lineage.round}: {first_of(violations)}")


def first_of(violations: list[str]) -> str:
    """Return the first violation, and how many more there are."""
    return violations[0] + f" (and {len(violations) - 1:,} more)" * (len(violations) > 1)


def read_lineage(open_output: Open, outs: Collection[str], params: Mapping[str, str]) -> list[RoundLineage]:
    """Read the lineage of all rounds of a result; empty if it has no pseudo-labels.

    Args:
        open_output: Finds the files of its folds, pseudo-labels and weights.
        outs: Paths of all its outputs.
        params: Its parameters as text, by dotted key.

    Raises:
        UserError: a file is missing or not what it should be.
    """
    final = int(params.get("pseudo.rounds", "0"))
    if not final:
        return []
    folds = read_folds(open_output(FOLDS))
    tables = {number: read_clips(open_output(f"pseudo/r{number}.csv")) for number in range(1, final + 1)}
    held_out = {
        f"r{number}/fold{fold}": _held_out(open_output(f"models/r{number}/fold{fold}.pt"), fold)
        for number in range(final)
        for fold in json.loads(params["split.folds"])
    }
    isolation = params.get("pseudo.isolation", "recording")
    if isolation != "nested":
        return trace_rounds(tables, folds, held_out, isolation)
    read = _read_networks_of_before if _networks_of(1) in outs else _read_networks
    nested = read(open_output, json.loads(params["split.folds"]), final)
    return trace_rounds(tables, folds, held_out | nested.held_out, isolation, nested.tables)


def _read_networks(open_output: Open, folds: list[int], final: int) -> NestedFiles:
    """Read the files of all networks that taught students, directly or indirectly."""
    networks = {one for number in range(1, final + 1) for one in networks_behind(folds, number)}
    return read_nested(
        {network_name(*one): open_output(f"{NETWORKS}/{weights_file(*one)}") for one in networks},
        {network_name(*one): open_output(f"{NETWORKS}/{labels_file(*one)}") for one in networks if one[0]},
    )


def _read_networks_of_before(open_output: Open, folds: list[int], final: int) -> NestedFiles:
    """Read the same files of a result with a folder of networks for each round: `r0-folds0-2.pt`."""
    paths: dict[str, dict[str, Path]] = {".pt": {}, ".csv": {}}
    for number in range(1, final + 1):
        listing = open_output(_networks_of(number))
        with reading(listing, "a list of networks"):
            for name, md5 in md5s_listed(listing).items():
                network = Path(name).stem.replace("-", "/", 1)
                paths[Path(name).suffix][network] = cached_file(md5, name)
    return read_nested(paths[".pt"], paths[".csv"])


def _networks_of(number: int) -> str:
    """Return the folder of the networks that taught the students of a round, in results of that form."""
    return f"pseudo/r{number}-networks"


def _held_out(path: Path, fold: int) -> frozenset[str]:
    from callboard.model.weights import read_held_out

    stored_fold, held_out = read_held_out(path)
    if stored_fold != fold:
        raise UserError(f"{path}: holds the weights of fold {stored_fold}, not of fold {fold}")
    return held_out
