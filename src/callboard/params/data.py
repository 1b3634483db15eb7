"""The sections `data` and `split`: the source of recordings and annotations, and how they become folds."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params, Seed
from callboard.params.bounds import Within

N_RECORDINGS = "each is synthesised, at some 20 a second, and 100,000 take more than an hour"
"""Reason for the upper bound of recordings."""


class DemoParams(Params):
    """The built-in soundscapes, with the competition's layout and difficulties and known truth."""

    seed: Seed = 2020
    """Seed of everything that is drawn: call models, backgrounds, prevalence, annotations."""
    n_species: Annotated[int, Within(2, 1000, "each has a call of its own, and a ranking needs two")] = 12
    n_tp_recordings: Annotated[int, Within(10, 100_000, N_RECORDINGS)] = 240
    """Training recordings with at least one confirmed annotation."""
    n_fp_recordings: Annotated[int, Within(0, 100_000, N_RECORDINGS)] = 120
    """Further training recordings, with rejected annotations only."""
    n_test_recordings: Annotated[int, Within(2, 100_000, N_RECORDINGS)] = 160
    n_external_recordings: Annotated[int, Within(0, 100_000, N_RECORDINGS)] = 0
    """Further recordings without annotations, like those of the test set; for `pseudo.source` external."""
    crowding: Literal["sparse", "dense"] = "sparse"
    """Number of species that call in a training recording: 1.5 on average if sparse, 3.6 if dense."""
    recording_length_s: Annotated[
        float, Within(5, 3600, "a recording has room for calls, and is made in memory as a whole")
    ] = 20.0
    calls: str | None = None
    """CSV manifest of real calls, one species per label; null = synthetic calls."""
    backgrounds: str | None = None
    """CSV manifest of real backgrounds; null = coloured noise."""


class DataParams(Params):
    """The `data` section."""

    source: Literal["demo", "rfcx", "own"] = "demo"
    """demo: built-in soundscapes. rfcx: the competition's folder. own: any folder with the same tables."""
    root: str | None = None
    """Folder with train/, test/, train_tp.csv, train_fp.csv (rfcx, own); relative to the main workspace."""
    on_bad_recording: Literal["error", "skip"] = "error"
    """skip: a missing, unreadable, silent or NaN recording is counted, listed and left out of everything."""
    external: str | None = None
    """Folder of recordings without annotations (rfcx, own), for `pseudo.source` external; relative to the
    main workspace. Every recording in it is used. null = none."""
    corrections: bool = False
    """Whether a person's corrections in corrections.csv are applied to the annotations."""
    demo: DemoParams

    @model_validator(mode="after")
    def _root_where_needed(self) -> Self:
        if self.source != "demo" and not self.root:
            raise ValueError(f"source {self.source} needs root, the folder of train/ and train_tp.csv")
        if self.source == "demo" and self.root:
            raise ValueError(f"root {self.root!r} is set, but source demo makes its own recordings")
        if self.source == "demo" and self.external:
            raise ValueError(
                f"external {self.external!r} is set, but source demo makes its own recordings; "
                "set demo.n_external_recordings to how many"
            )
        return self

    @property
    def has_external(self) -> bool:
        """Whether there are external recordings, which have no annotations."""
        return bool(self.external if self.source != "demo" else self.demo.n_external_recordings)


OWN_FOLDS = "fold"
"""Value of `split.group` that takes the folds from the user's table of recordings."""

UNGROUPED = ("recording", OWN_FOLDS)
"""Values of `split.group` with which recordings that are not copies of each other are independent."""

SITE = "SITE"
"""Part of a pattern on recording ids that matches the name of a group."""


def pattern_problem(pattern: str) -> str:
    """Return what is wrong about SITE in a pattern, as the end of a sentence; empty if nothing is."""
    if pattern.count(SITE) > 1:
        return f"must contain {SITE} once"
    if f"{SITE}*" in pattern or f"*{SITE}" in pattern:
        return f"does not say where {SITE} ends; write what is between it and *, such as {SITE}_*"
    return ""


class SplitParams(Params):
    """The `split` section."""

    folds: Annotated[list[int], Within(0, 99, "a network is trained for each fold")] = Field(
        [0, 1, 2, 3, 4], min_length=2
    )
    """Fold numbers 0 … n-1, listed because dvc.yaml runs one train stage per entry."""
    seed: Seed = 0
    stratify: Literal["presence"] = "presence"
    """presence: folds are balanced by the species that have a TP annotation in a recording."""
    rare_species: Literal["error", "allow"] = "error"
    """allow: a species with fewer TP recordings, or groups, than folds may be absent from some folds."""
    group: str = "recording"
    """Recordings that stay in one fold, and count as one when CV gets its interval. recording: each alone.
    A column of recordings.csv in data.root, such as site: those of equal value. A pattern on recording ids,
    such as SITE_YYYYMMDD_HHMMSS (also YYMMDD, and * for any text): those with the same SITE. fold: each
    alone, in the folds of the column fold of recordings.csv. Recordings of equal content are always together.
    """

    @model_validator(mode="after")
    def _group_is_named(self) -> Self:
        if not self.group.strip():
            raise ValueError(
                "group is empty; it must be recording, fold, a column of recordings.csv or a pattern"
            )
        if problem := pattern_problem(self.group):
            raise ValueError(f"group {self.group!r} {problem}")
        return self

    @property
    def is_by_recording(self) -> bool:
        """Whether recordings that are not copies of each other are independent."""
        return self.group in UNGROUPED

    @property
    def pattern(self) -> str:
        """The pattern on recording ids, unless it is a column; empty if `group` is none."""
        return self.group if SITE in self.group else ""

    @model_validator(mode="after")
    def _folds_count_up(self) -> Self:
        if self.folds != list(range(len(self.folds))):
            raise ValueError(f"folds must be {list(range(len(self.folds)))}, found {self.folds}")
        return self
