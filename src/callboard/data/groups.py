"""Groups of recordings that stay in one fold, such as those of a site, and the user's table of recordings."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from callboard.core.console import counted, first_few, warn
from callboard.core.csv_rows import refuse_rows, row_name
from callboard.core.errors import UserError, nearest
from callboard.core.files import written_whole
from callboard.data.annotations import read_table
from callboard.data.recording_folders import existing_folder
from callboard.params.data import SITE, DataParams, SplitParams

METADATA = "recordings.csv"
"""The user's table of recordings, in `data.root`: recording_id and any other columns."""

NO_METADATA = pd.DataFrame({"recording_id": pd.Series(dtype=str)})

PATTERN_PARTS = {
    SITE: "(?P<site>.+?)",
    "YYYYMMDD": r"\d{8}",
    "YYMMDD": r"\d{6}",
    "HHMMSS": r"\d{6}",
    "*": ".*?",
}
"""Parts of a pattern on recording ids, and the regular expression of each; all else stands for itself."""

RECORDER_PATTERN = f"{SITE}_YYYYMMDD_HHMMSS"
"""Form of the names that recorders give their files; some shorten the year to YYMMDD."""


def read_metadata(path: Path) -> pd.DataFrame:
    """Read a table of recordings: recording_id and all other columns as text, indexed by line number.

    Raises:
        UserError: The file or recording_id is missing, an id is empty or repeated, or a cell begins or ends
            with a blank, which would make two groups of one.
    """
    table = read_table(path, ["recording_id"], others=True)
    refuse_rows((row_name(path.name, row), problem) for row, problem in _problems(table))
    return table


def _problems(table: pd.DataFrame) -> Iterable[tuple[int, str]]:
    for name in table.columns:
        for row in table.index[table[name].str.strip() != table[name]]:
            yield row, f"{name} {table.at[row, name]!r} has leading or trailing blanks"
    for row in table.index[table["recording_id"] == ""]:
        yield row, "recording_id is empty"
    repeated = table["recording_id"].duplicated() & (table["recording_id"] != "")
    for row in table.index[repeated]:
        yield row, f"recording {table.at[row, 'recording_id']!s} is repeated"


def metadata_of(data: DataParams) -> pd.DataFrame:
    """Read the table of recordings in `data.root`; without one, return a table without rows.

    Raises:
        UserError: The folder does not exist, or the table is not as `read_metadata` requires.
    """
    if data.source != "demo":
        path = existing_folder("data.root", data.root or "") / METADATA
        if path.is_file():
            return read_metadata(path)
    return NO_METADATA


def write_metadata(metadata: pd.DataFrame, known_ids: Collection[str], path: Path) -> None:
    """Write the table of recordings, with a warning about rows of recordings that are not used.

    Args:
        metadata: From `metadata_of`.
        known_ids: All recordings of the source.
        path: The file to write.
    """
    if unknown := sorted(set(metadata["recording_id"]) - set(known_ids)):
        rows = counted(len(unknown), "row")
        warn(f"{METADATA}: {rows} of recordings that are not used: {first_few(unknown)}")
    with written_whole(path) as unfinished:
        metadata.to_csv(unfinished, index=False)


def assign_groups(recording_ids: Iterable[str], split: SplitParams, metadata: pd.DataFrame) -> pd.Series:
    """Return the group of each recording, indexed by the sorted ids; its own id where each is alone.

    Args:
        recording_ids: Recordings, in any order, with repetitions.
        split: The `split` section; `group` says what recordings of a group have in common.
        metadata: From `read_metadata`.

    Raises:
        UserError: `group` is neither a column of the table nor a pattern, a recording has no value in the
            column, an id does not match the pattern, or two groups are spelled alike.
    """
    ids = pd.Index(sorted(set(recording_ids)), dtype=str, name="recording_id")
    if split.is_by_recording:
        return pd.Series(ids, index=ids)
    columns = [name for name in metadata.columns if name != "recording_id"]
    if split.group in columns:
        return _without_twins(column_of(ids, split.group, metadata), split.group)
    if split.pattern:
        return _without_twins(_sites_in(ids, split.pattern), split.group)
    if not columns:
        raise UserError(
            f"split.group {split.group!r}: data.root has no {METADATA} with that column; write one with the "
            f"columns recording_id,{split.group}, or give a pattern on recording ids, which contains {SITE}"
        )
    raise UserError(
        f"split.group {split.group!r} is not a column of {METADATA}{nearest(split.group, columns)}; its "
        f"columns are {', '.join(columns)}; a pattern on recording ids contains {SITE}"
    )


def column_of(ids: pd.Index, name: str, metadata: pd.DataFrame) -> pd.Series:
    """Return a column of the table of recordings for these ids.

    Raises:
        UserError: There is no such column, or a recording has no row or an empty cell.
    """
    if name not in metadata.columns:
        raise UserError(f"split.group {name}: needs a {METADATA} in data.root with the column {name}")
    values = metadata.set_index("recording_id")[name].reindex(ids).fillna("")
    if missing := values.index[values == ""].tolist():
        raise UserError(
            f"{METADATA}: no {name} for {counted(len(missing), 'training recording')}: {first_few(missing)}; "
            f"split.group {name} needs one for each"
        )
    return values


def _without_twins(groups: pd.Series, group: str) -> pd.Series:
    """Return the groups of recordings if no two names look the same.

    Raises:
        UserError: Two names differ only in case, blanks or Unicode form, so that one site could be in two
            folds.
    """
    names = pd.Series(sorted(groups.unique()), dtype=str)
    if len(alike := names[names.map(_plain).duplicated(keep=False)]):
        raise UserError(
            f"split.group {group}: names that differ only in case, blanks or Unicode form: "
            f"{first_few(alike.map(ascii).tolist())}"
        )
    return groups


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def pattern_form(pattern: str, parts: Mapping[str, str]) -> re.Pattern[str]:
    """Return the regular expression of a pattern.

    Args:
        pattern: The pattern.
        parts: Parts that stand for something else, and the regular expression of each; see PATTERN_PARTS.
    """
    found = re.split(f"({'|'.join(map(re.escape, parts))})", pattern)
    return re.compile("".join(parts.get(part, re.escape(part)) for part in found), re.DOTALL)


_RECORDER_FORMS = [
    pattern_form(f"{pattern}*", PATTERN_PARTS)
    for pattern in (RECORDER_PATTERN, RECORDER_PATTERN.replace("YYYY", "YY"))
]


def site_of(recording: str) -> str:
    """Return what a recording's name has before date and time or, without them, its folder; can be empty.

    Args:
        recording: Path below the folder that was scored, with a suffix.
    """
    path = PurePosixPath(recording)
    found = [match["site"] for form in _RECORDER_FORMS if (match := form.fullmatch(path.stem))]
    return found[0] if found else path.parent.name


def _sites_in(ids: pd.Index, pattern: str) -> pd.Series:
    """Return the text in place of SITE in each id.

    Raises:
        UserError: An id does not match the pattern.
    """
    form = pattern_form(pattern, PATTERN_PARTS)
    found = [form.fullmatch(recording_id) for recording_id in ids]
    if others := [recording_id for recording_id, match in zip(ids, found, strict=True) if not match]:
        raise UserError(
            f"split.group {pattern}: {counted(len(others), 'recording id')} of a different form: "
            f"{first_few(others)}"
        )
    return pd.Series([match["site"] for match in found if match], index=ids, dtype=str)


def join_copies(groups: pd.Series, digests: Mapping[str, str]) -> pd.Series:
    """Join groups that have recordings of equal content, under the first of their names.

    Args:
        groups: Group of each recording, by recording_id.
        digests: Content of each recording by id; one without is unlike all others.
    """
    content = groups.index.to_series().map(
        lambda recording_id: digests.get(recording_id, f"of {recording_id}")
    )
    while True:
        first = groups.groupby(content).transform("min")
        names = first.groupby(groups).transform("min")
        if names.equals(groups):
            return groups
        groups = names


def balanced_folds(clips: pd.DataFrame, n_folds: int, seed: int) -> pd.Series:
    """Return the fold of each group, by its name, so that folds are alike in recordings and species.

    Each group goes to the fold that has least of what the group has: recordings, in all and with each species
    confirmed. Large groups come first, and those with only FP rows last. Stratifying by presence would fail
    here, since a large and a small site have much the same species. The seed draws the order of groups of
    equal size, and the numbers of the folds. Every fold has a group with TP rows if there are enough of them.

    Args:
        clips: recording_id, species_id, label_type ("tp" or "fp"), group.
        n_folds: Number of folds.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    tp = clips[clips["label_type"] == "tp"]
    n_recordings = clips.groupby("group")["recording_id"].nunique()
    with_species = tp.groupby(["group", "species_id"])["recording_id"].nunique().unstack(fill_value=0)
    counts = np.column_stack([n_recordings, with_species.reindex(n_recordings.index, fill_value=0)])
    shares = counts / counts.sum(axis=0)  # (groups, 1 + species)
    order = rng.permutation(len(shares))
    is_fp_only = ~n_recordings.index.isin(tp["group"])
    order = order[np.lexsort((-counts[order, 0], is_fp_only[order]))]
    in_fold = np.zeros((n_folds, shares.shape[1]))
    fold = np.empty(len(shares), dtype=np.int64)
    for group in order:
        fold[group] = np.argmin(in_fold @ shares[group])
        in_fold[fold[group]] += shares[group]
    return pd.Series(rng.permutation(n_folds)[fold], index=n_recordings.index)
