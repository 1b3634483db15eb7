"""Assignment of recordings to folds: each recording, with all its annotations, is in exactly one fold."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.console import first_few
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import read_table, typed
from callboard.data.presence import species_presence
from callboard.params.data import SplitParams

FOLD_COLUMNS = ["recording_id", "fold"]


def assign_folds(clips: pd.DataFrame, params: SplitParams, digests: Mapping[str, str] = {}) -> pd.DataFrame:
    """Assign a fold to every recording that has an annotation, the same to all copies of one.

    Recordings with TP rows are spread so that each species' recordings divide evenly over the folds; those
    with only FP rows are spread the same way in a second pass, by the species rejected in them, so that
    they cannot unbalance the first. Copies count as one recording. The order of the rows does not matter.

    Args:
        clips: recording_id, species_id, label_type ("tp" or "fp").
        params: The `split` section.
        digests: Content of each recording by id; recordings of equal content are copies.

    Returns:
        Columns recording_id and fold, sorted by recording_id.

    Raises:
        UserError: There are fewer TP recordings than folds, or fewer of some species and `rare_species` is
            "error".
    """
    original = _originals(clips["recording_id"], digests)
    clips = clips.assign(recording_id=clips["recording_id"].map(original))
    tp = clips[clips["label_type"] == "tp"]
    fp_only = clips[(clips["label_type"] == "fp") & ~clips["recording_id"].isin(tp["recording_id"])]
    _refuse_too_few(tp, params)
    folds = pd.concat([_spread(tp, params), _spread(fp_only, params)]).set_index("recording_id")["fold"]
    return pd.DataFrame({"recording_id": original.index, "fold": folds.loc[original].to_numpy()})


def _originals(recording_ids: pd.Series, digests: Mapping[str, str]) -> pd.Series:
    """Map each id, sorted, to the first id of the same content."""
    ids = pd.Series(sorted(set(recording_ids)), dtype=str)
    content = ids.map(lambda recording_id: digests.get(recording_id, f"of {recording_id}"))
    return ids.groupby(content).transform("first").set_axis(pd.Index(ids, name="recording_id"))


def _refuse_too_few(tp: pd.DataFrame, params: SplitParams) -> None:
    n_folds, n_recordings = len(params.folds), tp["recording_id"].nunique()
    if n_recordings < n_folds:
        raise UserError(
            f"split.folds: {n_folds} folds need at least {n_folds} TP recordings, found {n_recordings}"
        )
    recordings_per_species = tp.groupby("species_id")["recording_id"].nunique()
    rare = recordings_per_species[recordings_per_species < n_folds]
    if params.rare_species == "error" and len(rare):
        counts = ", ".join(f"{species_id} ({count})" for species_id, count in rare.items())
        raise UserError(
            f"species with TP rows in fewer recordings than the {n_folds} folds: {counts}; "
            "use fewer folds, or set split.rare_species=allow to leave them out of some folds"
        )


def _spread(annotations: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    recording_ids = sorted(annotations["recording_id"].unique())
    species = sorted(annotations["species_id"].unique())
    is_present = species_presence(annotations, recording_ids, species)
    fold = _stratify(is_present, len(params.folds), params.seed)
    return pd.DataFrame({"recording_id": pd.Series(recording_ids, dtype=str), "fold": fold})


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
        folds: recording_id, fold.
        annotations: recording_id and label_type of every TP, FP and pseudo row that training can see.
        unfolded_ids: Test and external recordings, whose pseudo-labels need no fold.

    Raises:
        UserError: A recording is listed twice, is annotated but has no fold, or has a fold but no annotation.
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
    annotations = annotations[needs_fold(annotations, unfolded_ids)]
    annotated, assigned = set(annotations["recording_id"]), set(folds["recording_id"])
    if missing := sorted(annotated - assigned):
        raise UserError(f"annotated recordings without a fold: {first_few(missing)}")
    if unknown := sorted(assigned - annotated):
        raise UserError(f"recordings in the folds table without any annotation: {first_few(unknown)}")


def write_folds(folds: pd.DataFrame, path: Path) -> None:
    """Write the folds table; if interrupted, no partial file remains."""
    with written_whole(path) as unfinished:
        folds.to_csv(unfinished, index=False, columns=FOLD_COLUMNS)


def read_folds(path: Path) -> pd.DataFrame:
    """Read the folds table: recording_id (text) and fold (int), each recording once.

    Raises:
        UserError: The file or a column is missing, a fold is not a number, or a recording is listed twice.
    """
    table = read_table(path, FOLD_COLUMNS, hint="the split stage writes it")
    if len(bad := table[~table["fold"].str.fullmatch(r"\d+")]):
        raise UserError(f"{path} row {bad.index[0]}: fold must be a number, found {bad['fold'].iloc[0]!r}")
    if len(repeated := table[table["recording_id"].duplicated()]):
        raise UserError(
            f"{path}: leak: recording {repeated['recording_id'].iloc[0]} is listed more than once"
        )
    return typed(table, {"recording_id": "str", "fold": "int64"}, path)
