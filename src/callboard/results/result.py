"""A finished result of the pipeline: references to it, its content, and the path of each of its files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from callboard.core.compute import COMPUTE_COLUMNS, Compute, Computes, from_cells
from callboard.core.csv_rows import table_rows
from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.params.base import parse_tree
from callboard.params.defaults import flatten, result_params, with_defaults
from callboard.params.references import blend_parts
from callboard.results.dvc_cache import NotCachedError, cached_file, linked_folder
from callboard.results.dvc_lock import Lock, all_outs, content_key, parse_lock
from callboard.results.git import Files

SUBMISSION = "submission/submission.csv"
SUBMISSIONS_WITHOUT = "submission/without"
"""Folder of submissions that each leave out a step."""

PREVALENCE = "submission/prevalence.csv"
"""Factors of the odds of `infer.prevalence`."""

OUT_OF_FOLD = "scores/oof.csv"
WINDOW_SCORES = "scores/windows"
CLIPS = "data/clips.csv"
FOLDS = "data/folds.csv"
SOURCE = "data/source"
"""Folder of the recordings and annotations that everything else is made from."""

MANY_ROUNDS = 100
"""More rounds of pseudo-labels than any version of this project takes."""

MAX_EPOCH = 10**9
"""Numbers of epochs are below this; MLflow stores them in 8 bytes."""

METRIC_DIGITS = 5
"""Decimal places of metrics; LWLRAP changes in the fourth when one annotation changes rank."""

RefKind = Literal["experiment", "branch", "tag", "HEAD", "commit", "run"]


class ResultRef(NamedTuple):
    """A name and the result that it refers to."""

    name: str
    """Name of an experiment, branch, tag or run; for a commit without one, the beginning of its hash."""
    key: str
    """Content key: equal for equal parameters and equal outputs of every stage that led to the result; empty
    if the pipeline has not finished."""
    commit: str = ""
    """Commit that holds the result; empty if unknown, as for a run, or if only the work tree holds it."""
    time_ms: int = 0
    """Time at which it was committed or recorded, in milliseconds since 1970."""
    kind: RefKind = "run"
    """Kind of the name."""
    baseline: str = ""
    """Commit that an experiment started from; empty for other kinds."""

    @property
    def reference(self) -> str:
        """`name@key`: exactly this result, not a later one of the same name."""
        return f"{self.name}@{self.key}"

    def __str__(self) -> str:
        return self.name if self.kind in ("HEAD", "run") else f"{self.kind} {self.name}"


@dataclass(frozen=True, eq=False)
class Result:
    """The content of one result and access to its files, which are read on demand; nothing is checked out.

    Every property that needs a text file raises a UserError if it is missing, see `refuse_incomplete`.
    """

    ref: ResultRef
    lock: Lock = field(repr=False)
    text: Files = field(repr=False)
    """Reader of the files that git keeps: parameters, metrics, curves."""
    reported: dict[str, float] = field(default_factory=dict)
    """`lb.public`, `lb.private`, if the ledger has them."""

    @property
    def name(self) -> str:
        """Name by which it was found."""
        return self.ref.name

    @property
    def key(self) -> str:
        """Content key."""
        return self.ref.key

    @cached_property
    def outs(self) -> dict[str, str]:
        """Path to md5 of every output in dvc.lock."""
        return all_outs(self.lock)

    @property
    def submission_md5(self) -> str:
        """md5 of its submission, which identifies it in leaderboard.csv."""
        return self.md5(SUBMISSION)

    @property
    def data_md5(self) -> str:
        """md5 of the recordings and annotations that it was made from."""
        return self.md5(SOURCE)

    def md5(self, path: str) -> str:
        """Return the md5 of an output.

        Raises:
            NotCachedError: this result does not have the output.
        """
        if path not in self.outs:
            raise NotCachedError(f"{self.name} has no {path}: its dvc.lock does not list that output")
        return self.outs[path]

    @property
    def models(self) -> str:
        """Folder of the networks of its last round, which predict; empty for a blend."""
        deps = self.lock.get("predict", {}).get("deps", [])
        return next((dep["path"] for dep in deps if dep["path"].startswith("models/")), "")

    @property
    def weights(self) -> dict[int, str]:
        """Fold to the path of its network of the last round; a blend has no such files."""
        folder = f"models/r{self.params['pseudo.rounds']}"
        return {fold: f"{folder}/fold{fold}.pt" for fold in json.loads(self.params["split.folds"])}

    @property
    def window_scores(self) -> str:
        """Path of the folder of window scores; older results have it named by their last round."""
        return WINDOW_SCORES if WINDOW_SCORES in self.outs else f"scores/r{self.params['pseudo.rounds']}"

    @cached_property
    def _tree(self) -> dict[str, Any]:
        """Nested sections of params.yaml, with the defaults of omitted keys."""
        place = f"{self.name}: params.yaml"
        tree = with_defaults(parse_tree(self._found("params.yaml"), place))
        with reading(place, "parameters of a result"):
            _refuse_odd(tree)
        return tree

    @cached_property
    def params(self) -> dict[str, str]:
        """Dotted key to text of all of params.yaml, with the defaults of omitted keys."""
        return result_params(self._tree)

    def sections(self, *names: str) -> dict[str, Any]:
        """Return sections of params.yaml by name, with the defaults of omitted keys."""
        return {name: self._tree[name] for name in names}

    @property
    def data_source(self) -> str:
        """Value of `data.source`."""
        return self.params["data.source"]

    @cached_property
    def cv(self) -> dict[str, float]:
        """`cv.lwlrap` and the other metrics of CV."""
        return self._metrics("metrics/cv.json")

    @cached_property
    def lb(self) -> dict[str, float]:
        """`lb.public`, `lb.private`: scores on known labels of the test set, overridden by reported ones."""
        return self._metrics("metrics/lb.json") | self.reported

    def _metrics(self, name: str) -> dict[str, float]:
        with reading(f"{self.name}: {name}", "metrics"):
            return _metrics(self._found(name))

    @cached_property
    def _curve_rows(self) -> dict[str, list[dict[str, str]]]:
        """Name of a fold to the rows of its learning curve."""
        return {name: self._table(_curve_path(name)) for name in _fold_names(self._tree)}

    def _table(self, path: str) -> list[dict[str, str]]:
        """Return the rows of a learning curve."""
        header, rows = table_rows(self._found(path), f"{self.name}: {path}")
        return [dict(zip(header, cells, strict=True)) for cells in rows.values()]

    @cached_property
    def curves(self) -> dict[str, list[dict[str, float]]]:
        """Name of a fold (`r0-fold3`) to its epochs, each with the columns that have a number."""
        curves = {}
        for name, rows in self._curve_rows.items():
            with reading(f"{self.name}: {_curve_path(name)}", "a learning curve"):
                curves[name] = [_numbers(row) for row in rows]
        return curves

    @property
    def computed_by(self) -> Computes:
        """Records of the trainings of all its folds, rounds and nested networks.

        Empty for a blend, and as far as older results did not record them.
        """
        if blend_parts(self.params):  # its folds are those of the workspace, which it does not use
            return frozenset()
        tables = {_curve_path(name): rows for name, rows in self._curve_rows.items()}
        tables |= {path: self._table(path) for path in _network_curves(self._tree) if self.text(path)}
        found: set[Compute] = set()
        for path, rows in tables.items():
            with reading(f"{self.name}: {path}", "a learning curve"):
                found.update(compute for row in rows if (compute := from_cells(row)))
        return frozenset(found)

    def refuse_incomplete(self) -> None:
        """Read every text file now, so that a missing one is found.

        Raises:
            UserError: params.yaml, the metrics or a curve is missing or damaged.
        """
        _ = self.params, self.cv, self.lb, self.curves

    def refuse_blend(self) -> None:
        """Refuse a result without networks of its own.

        Raises:
            UserError: it is a blend; the message lists its parts.
        """
        if parts := blend_parts(self.params):
            raise UserError(
                f"{self.name} is a blend, which has neither networks nor windows of its own; name one of its "
                f"parts: {', '.join(parts)}"
            )

    def output(self, path: str) -> Path:
        """Return the path in DVC's cache of an output such as `submission/submission.csv`.

        Raises:
            UserError: this result does not have the output, or the cache has lost it.
        """
        return cached_file(self.md5(path), f"{path} of {self.ref.reference}")

    @contextmanager
    def folder(self, path: str, only: str = "") -> Iterator[Path]:
        """Yield a temporary folder of links to the cached files of an output folder.

        Files that the cache has lost are left out.

        Args:
            path: Path of the folder.
            only: Beginning of the paths in it that are wanted.

        Raises:
            UserError: this result does not have the output, the cache has lost the list of its files, or one
                of the files is damaged.
        """
        with linked_folder(self.output(path), only) as folder:
            yield folder

    def _found(self, name: str) -> str:
        return _found(self.text, name, self.name)


def read_result(files: Files, where: str) -> Result:
    """Return the complete result that a workspace holds after its last stage before track.

    Args:
        files: Reader of the files of the workspace, or of a commit.
        where: Name of the result in errors.

    Raises:
        UserError: dvc.lock, metrics or a curve is missing or damaged, or dvc.lock lacks a stage or output.
    """
    lock = parse_lock(_found(files, "dvc.lock", where), f"{where}: dvc.lock")
    result = Result(ResultRef(where, content_key(lock)), lock, files)
    for path in (SUBMISSION, OUT_OF_FOLD, CLIPS, SOURCE):
        result.md5(path)
    result.refuse_incomplete()
    return result


def _found(files: Files, name: str, where: str) -> str:
    if not (text := files(name)):
        raise UserError(f"{where}: {name}: not found; `dvc repro` writes it, `dvc checkout` restores it")
    return text


def changes(base: dict[str, str], params: dict[str, str]) -> list[str]:
    """Return `key: old → new` for every difference between two flat sets of parameters."""
    keys = [*params, *(key for key in base if key not in params)]
    return [
        f"{key}: {base.get(key, 'absent')} → {params.get(key, 'absent')}"
        for key in keys
        if base.get(key) != params.get(key)
    ]


def _metrics(text: str) -> dict[str, float]:
    flat = flatten(json.loads(text))
    return {
        key: round(float(value), METRIC_DIGITS) for key, value in flat.items() if value not in ("null", "{}")
    }


def _refuse_odd(tree: dict[str, Any]) -> None:
    """Refuse values on which it depends which files a result has.

    Raises:
        ValueError: one is of a kind that no version of this project has had.
    """
    folds, rounds, parts = tree["split"]["folds"], tree["pseudo"]["rounds"], tree["infer"]["blend"]
    if not isinstance(source := tree["data"]["source"], str):
        raise ValueError(f"data.source {source!r}: must be text")
    if not all(type(fold) is int for fold in folds):
        raise ValueError(f"split.folds {folds!r}: must be a list of numbers")
    if rounds not in range(MANY_ROUNDS):
        raise ValueError(f"pseudo.rounds {rounds!r}: must be a small number")
    if not all(isinstance(part, str) for part in parts):
        raise ValueError(f"infer.blend {parts!r}: must be a list of texts")
    _network_curves(tree)


def _curve_path(name: str) -> str:
    return f"plots/train/{name}.csv"


def _fold_names(tree: dict[str, Any]) -> list[str]:
    rounds = range(tree["pseudo"]["rounds"] + 1)
    return [f"r{number}-fold{fold}" for number in rounds for fold in tree["split"]["folds"]]


def _network_curves(tree: dict[str, Any]) -> list[str]:
    """Return the paths of the learning curves of nested networks; dvc.yaml has a stage for each."""
    pseudo = tree["pseudo"]
    if pseudo["isolation"] != "nested":
        return []
    return [
        f"plots/networks/r{number}/{size}/{folds}.csv"
        for number in range(pseudo["rounds"])
        for size, name in enumerate(("pairs", "triples", "quadruples"), start=2)
        if number + size <= pseudo["rounds"] + 1
        for folds in pseudo["held_out"][name]
    ]


def _numbers(row: dict[str, str]) -> dict[str, float]:
    found = {name: float(value) for name, value in row.items() if value and name not in COMPUTE_COLUMNS}
    if not 0 <= found["epoch"] < MAX_EPOCH or found["epoch"] % 1:
        raise ValueError(f"epoch {row['epoch']!r} is not a number of an epoch")
    return found
