"""Detection histories for occupancy models: 1, 0 or NA for each species, site and occasion, with the effort.

An occasion is a period of some days. NA means that nothing was recorded there in that period; 0 that the
species was not found in what was recorded.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from callboard.core.console import counted, first_few
from callboard.core.csv_rows import as_written, refuse_rows, row_name
from callboard.core.errors import UserError
from callboard.core.files import refuse_full_folder, replaced_folder
from callboard.data.annotations import read_table, without_formulas
from callboard.data.groups import PATTERN_PARTS, RECORDER_PATTERN, pattern_form
from callboard.params.data import SITE, pattern_problem
from callboard.scoring.detections import StoredPredictions, Thresholds, presence
from callboard.scoring.set_scores import RECORDING_TABLE

FOLDER_PATTERN = f"{SITE}/YYYYMMDD_HHMMSS"
"""Form of names below a folder for each site."""

DATE_PARTS = PATTERN_PARTS | {"YYYYMMDD": r"(?P<date>\d{8})", "YYMMDD": r"(?P<date>\d{6})"}

MAX_OCCASIONS = 4000
"""Most occasions, ten years of days: a recorder whose clock was not set would add decades without effort."""

PLACE_COLUMNS = ["recording", "site", "date"]


def read_places(text: str, recordings: Sequence[str]) -> pd.DataFrame:
    """Return the site and date of recordings.

    Args:
        text: A pattern on their names without suffix, with the parts of PATTERN_PARTS; or the path of a CSV
            with PLACE_COLUMNS; or nothing, for RECORDER_PATTERN in file names, or
            else FOLDER_PATTERN.
        recordings: Names of the recordings.

    Returns:
        site and date (datetime.date), indexed by recording.

    Raises:
        UserError: A name is of a different form, a recording has no row, or a date does not exist.
    """
    if text and (SITE not in text or text.endswith(".csv")):
        return _table_places(Path(text), recordings)
    stems = {name: name.rpartition(".")[0] for name in recordings}
    if text:
        places, others = _pattern_places(text, stems)
    else:
        file_names = {name: stem.rpartition("/")[2] for name, stem in stems.items()}
        places, others = _pattern_places(f"{RECORDER_PATTERN}*", file_names)
        if others:
            places, others = _pattern_places(FOLDER_PATTERN, stems)
            others = [name for name in recordings if name in others or "/" in places["site"][name]]
    if others:
        raise UserError(
            f"no site and date in the names of {counted(len(others), 'recording')}: "
            f"{first_few(sorted(others))}; they must be {text or f'{RECORDER_PATTERN} or {FOLDER_PATTERN}'}; "
            f"--sites takes a pattern such as */{FOLDER_PATTERN}, in which * stands for anything, or a CSV "
            "with the columns recording (as in the predictions, with suffix), site, date (as in 2026-06-30)"
        )
    return places


def _pattern_places(pattern: str, names: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """Return site and date of recordings, and the recordings whose names are of a different form.

    Args:
        pattern: The pattern.
        names: Text that must match, by recording.
    """
    if pattern.count("YYMMDD") != 1:  # which YYYYMMDD contains
        raise UserError(f"--sites {pattern}: must contain YYYYMMDD or YYMMDD, once")
    if problem := pattern_problem(pattern):
        raise UserError(f"--sites {pattern}: {problem}")
    form = pattern_form(pattern, DATE_PARTS)
    places: dict[str, tuple[str, date]] = {}
    others = []
    for recording, name in names.items():
        match = form.fullmatch(name)
        day = _day_of(match["date"]) if match else None
        if match and day:
            places[recording] = match["site"], day
        else:
            others.append(recording)
    return pd.DataFrame(list(places.values()), list(places), ["site", "date"]), others


def _day_of(digits: str) -> date | None:
    try:
        return datetime.strptime(digits, "%Y%m%d" if len(digits) == 8 else "%y%m%d").date()
    except ValueError:
        return None


def _table_places(path: Path, recordings: Sequence[str]) -> pd.DataFrame:
    table = read_table(path, PLACE_COLUMNS).map(as_written)
    table["site"] = table["site"].str.strip()
    problems, days = [], []
    for line, site, day in zip(table.index, table["site"].map(str), table["date"].map(str), strict=True):
        try:
            days.append(datetime.fromisoformat(day).date())
        except ValueError:
            problems.append((line, f"date {day!r} must be as in 2026-06-30"))
        if not site:
            problems.append((line, "site is empty"))
    problems += [
        (line, f"recording {table.at[line, 'recording']!r} is repeated")
        for line in table.index[table["recording"].duplicated()]
    ]
    refuse_rows((row_name(path.name, line), problem) for line, problem in problems)
    places = table.assign(date=days).set_index("recording")[["site", "date"]]
    if missing := sorted(set(recordings) - set(places.index)):
        raise UserError(f"{path}: no row for {counted(len(missing), 'recording')}: {first_few(missing)}")
    return places.loc[list(recordings)]


def write_occupancy(
    predictions: StoredPredictions, thresholds: Thresholds, sites: str, n_days: int, output: Path
) -> tuple[int, int]:
    """Write history.csv, effort.csv and occasions.csv, and return the numbers of files and of histories.

    history.csv: species, site and a column for each occasion, named by its first day: 1 if a recording has a
    score from the threshold on, 0 if none has, NA without a recording. effort.csv: site and the same columns:
    hours of recordings, 0 without one. occasions.csv, for data bases: species, site, first_day, detected,
    recordings, hours, score, for occasions with a recording.

    Args:
        predictions: Predictions of a detector.
        thresholds: From `read_thresholds`.
        sites: Where sites and dates are from; see `read_places`.
        n_days: Length of an occasion.
        output: Folder to write, which must be empty or not exist.

    Raises:
        UserError: `output` has files, a shard is damaged, the site or date of a recording is not known, or
            there are more than MAX_OCCASIONS.
    """
    refuse_full_folder(output)
    occasions = _occasions(predictions, thresholds, sites, n_days)
    species = [name for name in predictions.species if name in thresholds]
    columns = _first_days(occasions["first_day"], n_days)
    occasions["first_day"] = occasions["first_day"].map(date.isoformat)
    history = occasions.pivot(index=["species", "site"], columns="first_day", values="detected")
    history = history.reindex(columns=columns).astype("Int64").loc[species].reset_index()
    effort = occasions[occasions["species"] == species[0]].pivot(
        index="site", columns="first_day", values="hours"
    )
    effort = effort.reindex(columns=columns).fillna(0.0).reset_index()
    with replaced_folder(output) as draft:
        for name, table in (("history", history), ("effort", effort), ("occasions", occasions)):
            without_formulas(table).to_csv(draft / f"{name}.csv", index=False, na_rep="NA")
    return 3, len(history)


def _first_days(found: "pd.Series[Any]", n_days: int) -> list[str]:
    """Return the first days of all occasions from the first to the last of some."""
    days: range = range(found.min().toordinal(), found.max().toordinal() + 1, n_days)
    return [date.fromordinal(day).isoformat() for day in days]


def _occasions(
    predictions: StoredPredictions, thresholds: Thresholds, sites: str, n_days: int
) -> pd.DataFrame:
    """Return species, site, first_day, detected, recordings, hours, score, by species, site and day."""
    places = read_places(sites, list(_recordings(predictions)))
    if places.empty:
        raise UserError(f"{predictions.folder}: no recording could be scored, so there is no effort")
    first, last = min(places["date"]), max(places["date"])
    n_days = min(n_days, (last - first).days + 1)
    if (last - first).days // n_days >= MAX_OCCASIONS:
        earliest, latest = (f"{day} ({places.index[places['date'] == day][0]})" for day in (first, last))
        raise UserError(
            f"from {earliest} to {latest} there are more than {MAX_OCCASIONS} occasions of "
            f"{counted(n_days, 'day')}; was a clock not set? Give the dates in a table (--sites), or longer "
            "occasions (--days)"
        )
    period = np.array([(day - first).days // n_days for day in places["date"]])
    days = np.datetime64(first) + period * np.timedelta64(n_days, "D")
    places["first_day"] = days.astype("datetime64[D]").astype(object)
    keys = ["species", "site", "first_day"]
    how = {"detected": "max", "recordings": "sum", "hours": "sum", "score": "max"}
    parts = []
    for table in presence(predictions, thresholds):
        table = table.join(places, on="recording").rename(columns={"is_present": "detected"})
        table = table.assign(recordings=1, hours=table["length_s"] / 3600)
        parts.append(table.groupby(keys, sort=False).agg(how))
    return pd.concat(parts).groupby(keys).agg(how).reset_index()


def _recordings(predictions: StoredPredictions) -> Iterator[str]:
    for shard in predictions.shards:
        yield from predictions.table(RECORDING_TABLE, shard)["recording"].unique()
