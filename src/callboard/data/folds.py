"""Assignment of recordings to folds: each group, with all its recordings, is in exactly one fold."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.console import first_few
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import read_table, typed
from callboard.data.groups import (
    METADATA,
    NO_METADATA,
    assign_groups,
    balanced_folds,
    column_of,
    join_copies,
)
from callboard.data.presence import species_presence
from callboard.params.data import OWN_FOLDS, SplitParams

FOLD_COLUMNS = ["recording_id", "fold"]

GROUP = "group"
"""Additional column of folds by group: recordings of a group are in one fold and not independent."""


def assign_folds(
    clips: pd.DataFrame,
    params: SplitParams,
    digests: Mapping[str, str] = {},
    metadata: pd.DataFrame = NO_METADATA,
) -> pd.DataFrame:
    """Assign a fold to every recording that has an annotation, the same to all recordings of a group.

    Recordings with TP rows are spread so that each species' recordings divide evenly over the folds; those
    with only FP rows are spread the same way in a second pass, by the species rejected in them, so that they
    cannot unbalance the first. Copies count as one recording. Larger groups are spread by `balanced_folds`.
    The order of the rows does not matter.

    Args:
        clips: recording_id, species_id, label_type ("tp" or "fp").
        params: The `split` section.
        digests: Content of each recording by id; recordings of equal content are copies.
        metadata: The user's table of recordings, with the column that `params.group` names.

    Returns:
        Columns recording_id and fold, sorted by recording_id; and group, unless every recording is its own.

    Raises:
        UserError: There are fewer groups with TP rows than folds, or fewer of some species and `rare_species`
            is "error"; or groups or folds cannot be found, see `assign_groups` and `_own_folds`.
    """
    group = join_copies(assign_groups(clips["recording_id"], params, metadata), digests)
    clips = clips.assign(group=clips["recording_id"].map(group))
    tp = clips[clips["label_type"] == "tp"]
    _refuse_too_few(tp, params)
    if params.group == OWN_FOLDS:
        fold = _own_folds(group.index, tp["recording_id"], params, metadata)
    elif params.is_by_recording:
        fp_only = clips[(clips["label_type"] == "fp") & ~clips["group"].isin(tp["group"])]
        fold = group.map(pd.concat([_spread(tp, params), _spread(fp_only, params)]))
    else:
        fold = group.map(balanced_folds(clips, len(params.folds), params.seed))
    table = pd.DataFrame({"recording_id": group.index, "fold": fold.to_numpy()})
    is_each_alone = params.is_by_recording and group.is_unique
    return table if is_each_alone else table.assign(group=group.to_numpy())


def _own_folds(ids: pd.Index, tp_ids: pd.Series, params: SplitParams, metadata: pd.DataFrame) -> pd.Series:
    """Return the user's fold of each recording.

    Raises:
        UserError: A recording has no fold, the folds are not those of `split.folds`, or one has no TP
            recording.
    """
    fold = column_of(ids, OWN_FOLDS, metadata)
    wanted = [str(number) for number in params.folds]
    if sorted(fold.unique()) != sorted(wanted):
        raise UserError(
            f"{METADATA}: column {OWN_FOLDS} must have the folds of split.folds, {', '.join(wanted)}; "
            f"found {first_few(sorted(fold.unique()))}"
        )
    if empty := sorted(set(wanted) - set(fold.loc[tp_ids])):
        raise UserError(
            f"{METADATA}: no TP recording in fold {', '.join(empty)}: nothing to validate on there"
        )
    return fold.astype(np.int64)


def _refuse_too_few(tp: pd.DataFrame, params: SplitParams) -> None:
    n_folds, n_groups = len(params.folds), tp["group"].nunique()
    is_grouped = not params.is_by_recording
    by = f" by split.group {params.group}" * is_grouped
    if n_groups < n_folds:
        what = f"groups{by} with TP rows" if is_grouped else "TP recordings"
        fewer = f"; split.folds={list(range(n_groups))} has as many folds" if n_groups > 1 else ""
        raise UserError(
            f"split.folds: {n_folds} folds need at least {n_folds} {what}, found {n_groups}{fewer}"
        )
    groups_per_species = tp.groupby("species_id")["group"].nunique()
    rare = groups_per_species[groups_per_species < n_folds]
    if params.rare_species == "error" and len(rare):
        counts = ", ".join(f"{species_id} ({count})" for species_id, count in rare.items())
        raise UserError(
            f"species with TP rows in fewer {f'groups{by}' if is_grouped else 'recordings'} than the "
            f"{n_folds} folds: {counts}; "
            "use fewer folds, or set split.rare_species=allow to leave them out of some folds"
        )


def _spread(annotations: pd.DataFrame, params: SplitParams) -> pd.Series:
    """Return the fold of each recording, by the name of its group, which is of copies alone."""
    recording_ids = sorted(annotations["group"].unique())
    species = sorted(annotations["species_id"].unique())
    is_present = species_presence(
        annotations.assign(recording_id=annotations["group"]), recording_ids, species
    )
    fold = _stratify(is_present, len(params.folds), params.seed)
    return pd.Series(fold, index=recording_ids, dtype=np.int64)


def _stratify(is_present: NDArray[np.bool_], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return (recordings,) fold numbers; no fold is empty if there are enough recordings."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # brings scikit-learn: a second

    n_recordings = len(is_present)
    if n_recordings >= n_folds:
        # Prepend an absent species: iterstrat takes a single column for a binary target and refuses it.
        labels = np.pad(is_present, ((0, 0), (1, 0)))
        splitter = MultilabelStratifiedKFold(n_folds, shuffle=True, random_state=seed)
        fold = np.empty(n_recordings, dtype=np.int64)
        for number, (_, members) in enumerate(splitter.split(labels, labels)):
            fold[members] = number
        if len(np.unique(fold)) == n_folds:
            return fold
    # With hardly more recordings than folds, stratifying can leave a fold with nothing to validate on:
    # deal out the shuffled recordings instead.
    fold = np.arange(n_recordings, dtype=np.int64) % n_folds
    return np.random.default_rng(seed).permutation(fold)


def needs_fold(annotations: pd.DataFrame, unfolded_ids: Collection[str]) -> pd.Series:
    """Return (annotations,) whether the recording needs a fold: all but pseudo-labels of unfolded recordings.

    Test and external recordings validate nothing, so every fold can train on them.

    Args:
        annotations: recording_id, label_type.
        unfolded_ids: Test and external recordings.
    """
    return ~((annotations["label_type"] == "pseudo") & annotations["recording_id"].isin(list(unfolded_ids)))


def audit_copies(folds: pd.DataFrame, digests: Mapping[str, str]) -> list[str]:
    """Return the groups of recordings of equal content, as `a = b`.

    Args:
        folds: recording_id, fold.
        digests: Content of each recording by id.

    Raises:
        UserError: Recordings of equal content are in different folds.
    """
    content = folds["recording_id"].map(digests)
    groups = [rows for _, rows in folds[content.duplicated(keep=False)].groupby(content)]
    names = [" = ".join(rows["recording_id"]) for rows in groups]
    apart = [name for name, rows in zip(names, groups, strict=True) if rows["fold"].nunique() > 1]
    if apart:
        raise UserError(f"leak: recordings of equal content in different folds: {first_few(apart)}")
    return names


def audit_folds(folds: pd.DataFrame, annotations: pd.DataFrame, unfolded_ids: Collection[str] = ()) -> None:
    """Refuse folds that would leak, or that do not cover exactly the annotated recordings.

    Args:
        folds: recording_id, fold; and group, if recordings are grouped.
        annotations: recording_id and label_type of every TP, FP and pseudo row that training can see.
        unfolded_ids: Test and external recordings, whose pseudo-labels need no fold.

    Raises:
        UserError: A recording is listed twice, a group is in two folds, or a recording is annotated but has
            no fold, or has a fold but no annotation.
    """
    folds_of = folds.groupby("recording_id")["fold"].agg(list)
    listed_twice = folds_of[folds_of.map(len) > 1]
    if len(listed_twice):
        types_of = annotations.groupby("recording_id")["label_type"].agg(
            lambda types: "+".join(sorted(set(types)))
        )
        cases = [
            f"{recording_id} ({types_of.get(recording_id, 'no')} rows) in folds {sorted(numbers)}"
            for recording_id, numbers in listed_twice.items()
        ]
        raise UserError(f"leak: recordings listed more than once in the folds table: {first_few(cases)}")
    if apart := groups_apart(folds):
        raise UserError(f"leak: groups in several folds: {first_few(apart)}")
    annotations = annotations[needs_fold(annotations, unfolded_ids)]
    annotated, assigned = set(annotations["recording_id"]), set(folds["recording_id"])
    if missing := sorted(annotated - assigned):
        raise UserError(f"annotated recordings without a fold: {first_few(missing)}")
    if unknown := sorted(assigned - annotated):
        raise UserError(f"recordings in the folds table without any annotation: {first_few(unknown)}")


def groups_apart(folds: pd.DataFrame) -> list[str]:
    """Describe the groups that are in more than one fold; none in a table without groups.

    Args:
        folds: recording_id, fold; and group, if recordings are grouped.
    """
    if GROUP not in folds:
        return []
    return [
        f"{name} in {sorted(rows['fold'].unique().tolist())}, such as {' and '.join(_one_of_each_fold(rows))}"
        for name, rows in folds.groupby(GROUP)
        if rows["fold"].nunique() > 1
    ]


def _one_of_each_fold(rows: pd.DataFrame) -> list[str]:
    return rows.drop_duplicates("fold").head(2)["recording_id"].tolist()


def write_folds(folds: pd.DataFrame, path: Path) -> None:
    """Write the folds table; if interrupted, no partial file remains."""
    with written_whole(path) as unfinished:
        folds.to_csv(unfinished, index=False, columns=fold_columns(folds))


def fold_columns(folds: pd.DataFrame) -> list[str]:
    """Return the columns of a folds table that are kept."""
    return [*FOLD_COLUMNS, *([GROUP] if GROUP in folds else [])]


def group_of(folds: pd.DataFrame) -> NDArray[np.str_] | None:
    """Return (recordings,) the group of each recording; None in a table without groups."""
    return folds[GROUP].to_numpy(dtype=str) if GROUP in folds else None


def read_folds(path: Path) -> pd.DataFrame:
    """Read the folds table: recording_id (text, each once), fold (int) and, if it has one, group (text).

    Raises:
        UserError: The file or a column is missing, a fold is not a number, a recording is listed twice, or
            one has no group in a table with groups.
    """
    table = read_table(path, FOLD_COLUMNS, others=True, hint="the split stage writes it")
    table = table[fold_columns(table)]
    if len(bad := table[~table["fold"].str.fullmatch(r"\d+")]):
        raise UserError(f"{path} row {bad.index[0]}: fold must be a number, found {bad['fold'].iloc[0]!r}")
    if len(repeated := table[table["recording_id"].duplicated()]):
        raise UserError(
            f"{path}: leak: recording {repeated['recording_id'].iloc[0]} is listed more than once"
        )
    if GROUP in table and len(bare := table[table[GROUP] == ""]):
        raise UserError(f"{path} row {bare.index[0]}: recording {bare['recording_id'].iloc[0]} has no group")
    return typed(table, dict.fromkeys(table.columns, "str") | {"fold": "int64"}, path)
