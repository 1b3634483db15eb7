"""The results in MLflow as rows of the board, and marks for those whose CV cannot be trusted."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from callboard.core.compute import Computes, computes_of
from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.params.defaults import texts_with_defaults
from callboard.params.references import OF_A_SEED, all_but_seed, blend_parts, init_from
from callboard.results.committed import params_of
from callboard.results.git_errors import GitError
from callboard.results.lookup import find_all, find_result
from callboard.results.mlflow import record as tag
from callboard.results.mlflow.connection import tracking_uri, without_credentials
from callboard.results.result import Result, ResultRef
from callboard.results.stored_runs import NoResultsError, StoredRun, stored_runs

CV = "cv.lwlrap"
"""Metric by which results are compared."""

AUTOMATIC_NOTE = re.compile(r"^Against [0-9a-f]{7,}: .*$", re.MULTILINE)
"""Paragraph of a note that `track` wrote, not a person."""


FRONT_END_SECTIONS = ("audio.", "features.")
"""Sections of parameters that change where an annotation is in the features, but not its content."""

Setting = tuple[tuple[str, str], frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class BoardRow:
    """One result on the board."""

    name: str
    params: dict[str, str]
    """Dotted key to text, with the defaults of keys that the run does not list."""
    metrics: dict[str, float]
    start: datetime
    commit: str
    base: dict[str, str]
    """Parameters of the commit that it started from; empty if unknown."""
    names: tuple[str, ...] = ()
    """Names of every DVC experiment that reached it; without any, of its row of experiments.yaml."""
    key: str = ""
    """Content key."""
    data_md5: str = ""
    clips_md5: str = ""
    oof_md5: str = ""
    submission_md5: str = ""
    note: str = ""
    """Text that a person wrote about it in MLflow."""
    parts: "tuple[BoardRow, ...]" = ()
    """Those parts of a blend that are on the board."""
    begun_from: "BoardRow | None" = None
    """Result whose weights training started from, if it is on the board."""
    own_computes: Computes = frozenset()
    """Records of the trainings of its own networks; empty for a blend, or if there are none."""

    @property
    def ref(self) -> ResultRef:
        """Reference to the run, without the commit that holds its result."""
        return ResultRef(self.name, self.key, time_ms=round(self.start.timestamp() * 1000))

    @property
    def split_group(self) -> str:
        """Value of `split.group`: what recordings that stay in one fold have in common."""
        return self.params.get("split.group", "recording")

    @property
    def measured_on(self) -> tuple[str, str]:
        """md5s of data and annotations; scores on different ones cannot be compared."""
        return self.data_md5, self.clips_md5

    @cached_property
    def setting(self) -> Setting:
        """Data, annotations and parameters that results of several seeds have in common."""
        return self.measured_on, all_but_seed(self.params)

    @cached_property
    def table_names(self) -> list[str]:
        """Rows of the table that it can be a result of: its names, with and without the suffix of a seed."""
        return list(dict.fromkeys([*self.names, *(OF_A_SEED.sub("", name) for name in self.names)]))

    @cached_property
    def blend(self) -> list[str]:
        """References to the parts of a blend; empty for a result with networks of its own."""
        return blend_parts(self.params)

    @cached_property
    def computed_by(self) -> Computes:
        """Records of the trainings of its networks, those of a blend's parts and those that it started from.

        Empty if none of it was recorded. Several entries mean that the result is mixed in itself.
        """
        behind = (*self.parts, *([self.begun_from] if self.begun_from else []))
        return self.own_computes.union(*(row.computed_by for row in behind))

    @property
    def is_optimistic(self) -> bool:
        """Whether CV can have seen some of the labels that it is measured on.

        The result that training started from passes this on with its weights. If a part or that result is not
        on the board, CV counts as optimistic.
        """
        if self.blend:
            return len(self.parts) < len(self.blend) or any(part.is_optimistic for part in self.parts)
        if init_from(self.params) and (self.begun_from is None or self.begun_from.is_optimistic):
            return True
        chose_epoch = self.params.get("train.select", "last") != "last"
        chose_rate = self.params.get("sched.name") == "plateau"
        has_students = self.params.get("pseudo.rounds", "0") != "0"
        is_nested = self.params.get("pseudo.isolation") == "nested"
        return chose_epoch or chose_rate or (has_students and not is_nested)

    @property
    def is_unisolated(self) -> bool:
        """Whether networks labelled recordings that they had trained on, for it, a part or its start."""
        if self.blend:
            return any(part.is_unisolated for part in self.parts)
        return is_unisolated(self.params) or (self.begun_from is not None and self.begun_from.is_unisolated)


def newest_by_seed(rows: Iterable[BoardRow]) -> dict[str, BoardRow]:
    """Return the last row of each seed, by seed in order of first appearance."""
    return {row.params.get("seed", ""): row for row in rows}


def board_refs(rows: Iterable[BoardRow]) -> list[ResultRef]:
    """Return references to every run under its name and those of the experiments that reached its result."""
    return [row.ref._replace(name=name) for row in rows for name in dict.fromkeys((row.name, *row.names))]


def rows_named(text: str, rows: Sequence[BoardRow], others: Iterable[str] = ()) -> list[BoardRow]:
    """Return every result of that name, see `lookup.find_all`.

    Args:
        text: The name as typed.
        rows: The board, oldest first.
        others: Further names that could be typed here, for the hint.

    Returns:
        One or more rows, the newest last.

    Raises:
        UserError: nothing has that name, or the newest result of that name is not on the board.
    """
    found = find_all(text, board_refs(rows), others)
    by_key = {row.key: row for row in rows}
    if found[-1].key not in by_key:
        raise UserError(f"{found[-1].reference} is in git but not on the board; `callboard sync` records it")
    return [by_key[ref.key] for ref in found if ref.key in by_key]


def result_named(text: str | None) -> Result:
    """Return the whole result that a name means, names on the board among them; errors as `find_result`.

    Args:
        text: As typed; None for the result of HEAD.
    """
    rows, _ = read_board()
    return find_result(text, board_refs(rows))


def same_truth(a: BoardRow, b: BoardRow) -> bool:
    """Return whether two results are measured on the same annotations of the same data.

    `data/clips.csv` also has the position of calls in the features, so if the features differ, a different
    file need not mean different annotations.
    """
    if a.data_md5 != b.data_md5 or a.clips_md5 == b.clips_md5:
        return a.data_md5 == b.data_md5
    keys = a.params.keys() | b.params.keys()
    return any(key.startswith(FRONT_END_SECTIONS) for key in keys if a.params.get(key) != b.params.get(key))


def is_unisolated(params: dict[str, str]) -> bool:
    """Return whether flat parameters let networks label recordings that they had trained on."""
    voted_on_all = params.get("pseudo.isolation", "recording") == "none"
    has_students = params.get("pseudo.rounds", "0") != "0"
    return voted_on_all and has_students and params.get("pseudo.source") not in ("test", "external")


def read_rows() -> list[BoardRow]:
    """Return every finished result in MLflow, oldest first, then by name.

    Raises:
        NoResultsError: there is no database yet.
        UserError: the server is down, or the database cannot be read.
    """
    rows: list[BoardRow] = []
    by_key: dict[str, BoardRow] = {}
    uri = tracking_uri()
    for run in stored_runs():
        with reading(f"run {run.name} in {without_credentials(uri, uri)}", "a result of this project"):
            row = _row(run, by_key)
        rows.append(row)
        by_key[row.key] = row
    return rows


def rows_so_far() -> list[BoardRow]:
    """Return `read_rows`, or no rows before the first result."""
    try:
        return read_rows()
    except NoResultsError:
        return []


def read_board() -> tuple[list[BoardRow], str]:
    """Return `read_rows` and an empty text, or no rows and the reason if MLflow cannot be read.

    Raises:
        GitError: git fails.
    """
    try:
        return read_rows(), ""
    except GitError:
        raise
    except UserError as error:
        return [], str(error)


def _row(run: StoredRun, earlier: dict[str, BoardRow]) -> BoardRow:
    tags = run.tags
    commit = tags.get(tag.COMMIT, "")
    parts = (earlier.get(reference.rpartition("@")[2]) for reference in blend_parts(run.params))
    return BoardRow(
        name=run.name,
        params=texts_with_defaults(run.params),
        metrics=run.metrics,
        start=datetime.fromtimestamp(run.start_ms / 1000, UTC),
        commit=commit,
        base=params_of(commit),
        names=tag.split_names(tags.get(tag.NAMES, "")),
        key=tags.get(tag.KEY, ""),
        data_md5=tags.get(tag.DATA_MD5, ""),
        clips_md5=tags.get(tag.CLIPS_MD5, ""),
        oof_md5=tags.get(tag.OOF_MD5, ""),
        submission_md5=tags.get(tag.SUBMISSION_MD5, ""),
        note=AUTOMATIC_NOTE.sub("", tags.get(tag.NOTE, "")).strip(),
        parts=tuple(part for part in parts if part),
        begun_from=earlier.get(init_from(run.params).rpartition("@")[2]),
        own_computes=computes_of(tags.get(tag.COMPUTED_BY, "")),
    )


OPTIMISTIC = "*"
UNISOLATED = "!"
OPTIMISTIC_LEGEND = (
    f"{OPTIMISTIC} CV is optimistic: the epoch or the learning rate was chosen on the validation fold "
    "(train.select, sched.name plateau), or "
    "pseudo-labels came from teachers that had learned from other folds' labels (pseudo.rounds above 0, "
    "pseudo.isolation not nested), or "
    "training started from the weights of such a result (train.init_from)."
)
UNISOLATED_LEGEND = (
    f"{UNISOLATED} CV is not out of fold: models voted on recordings that they had trained on "
    "(pseudo.isolation none), for this result or for one that it started from."
)


def mark_of(row: BoardRow | None) -> str:
    """Return the mark of a CV that cannot be trusted; empty for others."""
    if row is None:
        return ""
    return UNISOLATED if row.is_unisolated else OPTIMISTIC * row.is_optimistic


MARKS = {OPTIMISTIC: OPTIMISTIC_LEGEND, UNISOLATED: UNISOLATED_LEGEND}
"""Marks of CV to their explanations."""
