"""corrections.csv: verdicts of people who reviewed annotations, and the annotations corrected by them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from callboard.core.csv_rows import as_written, refuse_rows, row_name
from callboard.core.errors import UserError
from callboard.core.files import written_whole
from callboard.data.annotations import (
    ANNOTATION_COLUMNS,
    LABEL_TYPES,
    NUMBERS,
    read_annotations,
    read_species,
    read_table,
    without_formulas,
)
from callboard.data.recordings import train_lengths_s

CORRECTIONS = Path("corrections.csv")

CORRECTION_KINDS = (*LABEL_TYPES, "missing")
"""Objects of a review: a TP row, an FP row, or a time span without an annotation of the species."""

VERDICTS = ("present", "absent", "unsure")
"""Whether the species calls in the box."""

CORRECTION_COLUMNS = ["kind", *ANNOTATION_COLUMNS, "verdict", "model", "note"]
"""Columns: an existing or missing annotation, the reviewer's verdict, and the model that raised the doubt."""

LABEL_OF_VERDICT = {"present": "tp", "absent": "fp", "unsure": ""}
"""Label type of a reviewed box; "" removes its row."""

SAME_S = 1e-3
"""Times closer than this count as equal, because spreadsheets round."""


@dataclass(frozen=True)
class Correction:
    """A row of corrections.csv, times in seconds, frequencies in Hz."""

    place: str
    """File and row, for error messages."""
    kind: str
    recording_id: str
    species_id: str
    songtype_id: str
    t_min: float
    f_min: float
    t_max: float
    f_max: float
    verdict: str

    def __str__(self) -> str:
        return f"species {self.species_id} in {self.recording_id} at {self.t_min:g}–{self.t_max:g} s"

    def touches(self, other: "Correction") -> bool:
        """Return whether the two time spans overlap."""
        return self.t_min < other.t_max and other.t_min < self.t_max

    def is_same(self, other: "Correction") -> bool:
        """Return whether both are about the same annotation or, for kind "missing", overlap in time."""
        if self.kind != other.kind or self.kind == "missing":
            return self.kind == other.kind and self.touches(other)
        is_near = abs(self.t_min - other.t_min) < SAME_S and abs(self.t_max - other.t_max) < SAME_S
        return is_near and self.songtype_id == other.songtype_id


def read_labels(source: Path, corrections: Path | None = None) -> pd.DataFrame:
    """Read the tp and fp annotations of a prepared folder, tp first, with `corrections` applied if given.

    Raises:
        UserError: A table is missing or wrong, or `corrected` refuses a row.
    """
    species = read_species(source / "species.csv")
    tables = [read_annotations(source / f"train_{kind}.csv", kind, species) for kind in LABEL_TYPES]
    labels = pd.concat(tables, ignore_index=True)
    if corrections is None:
        return labels
    return corrected(labels, read_corrections(corrections), species, train_lengths_s(source))


def read_corrections(path: Path) -> pd.DataFrame:
    """Read CORRECTION_COLUMNS of corrections.csv as text; the index names file and row.

    Raises:
        UserError: The file or a column is missing, a row is broken, or there is a further column, which the
            next review would drop.
    """
    hint = "git restores it; its header alone is enough"
    if unknown := sorted({*read_table(path, [], others=True, hint=hint)} - {*CORRECTION_COLUMNS}):
        raise UserError(
            f"{path.name}: unknown column(s) {', '.join(unknown)}; must be {', '.join(CORRECTION_COLUMNS)}"
        )
    return read_placed(path, hint)


def write_corrections(table: pd.DataFrame, path: Path) -> None:
    """Write CORRECTION_COLUMNS of a table of text, if they are read again as they are.

    Raises:
        UserError: They are not, or the file cannot be written.
    """
    rows = table[CORRECTION_COLUMNS]
    with written_whole(path) as unfinished:
        without_formulas(rows).to_csv(unfinished, index=False)
        if read_corrections(unfinished).to_numpy().tolist() != rows.to_numpy().tolist():
            raise UserError(f"{path}: would not be read again as written; nothing was written")


def read_placed(path: Path, hint: str = "") -> pd.DataFrame:
    """Read CORRECTION_COLUMNS of a table for people as text; the index names file and row.

    Args:
        path: The table, which can have other columns too.
        hint: Advice for the error message if the file does not exist.

    Raises:
        UserError: The file or a column is missing.
    """
    table = read_table(path, CORRECTION_COLUMNS, hint=hint).map(as_written)
    return table.set_axis([row_name(path.name, line) for line in table.index])


def corrected(
    labels: pd.DataFrame, table: pd.DataFrame, species: Sequence[str], lengths_s: Mapping[str, float]
) -> pd.DataFrame:
    """Apply corrections to annotations and return them tp first, otherwise in the given order.

    A reviewed box becomes a tp row if the species is present and an fp row if it is absent; if the reviewer
    was unsure, its row is removed. A tp or fp correction must have the times of its annotation; a box added
    for a missing annotation is cut off at the end of its recording.

    Args:
        labels: Annotations as delivered, see read_labels.
        table: Corrections from read_corrections.
        species: Known ids.
        lengths_s: Length of every usable training recording.

    Raises:
        UserError: A correction is malformed, matches no annotation, or repeats or contradicts another one.
    """
    corrections = _parsed(table, species, lengths_s.keys() | set(labels["recording_id"]))
    refuse_rows(_second_verdicts(corrections))
    targets = [_targets(labels, correction) for correction in corrections]
    refuse_rows(_misplaced(labels, corrections, targets, lengths_s))
    label_type = labels["label_type"].to_numpy(dtype=object, copy=True)
    for correction, is_target in zip(corrections, targets, strict=True):
        label_type[is_target] = LABEL_OF_VERDICT[correction.verdict]
    added = [_added(one, lengths_s) for one in corrections if one.kind == "missing"]
    found = pd.DataFrame(added, columns=[*ANNOTATION_COLUMNS, "label_type"]).astype(labels.dtypes.to_dict())
    result = pd.concat([labels.assign(label_type=label_type.astype(str)), found])
    result = result[result["label_type"] != ""].drop_duplicates()
    return result.sort_values("label_type", ascending=False, kind="stable", ignore_index=True)


def _parsed(table: pd.DataFrame, species: Sequence[str], recordings: set[str]) -> list[Correction]:
    rows: list[dict[str, str]] = [
        {str(name): str(cell) for name, cell in row.items()} for row in table.to_dict("records")
    ]
    places = [str(place) for place in table.index]
    refuse_rows(
        (place, problem)
        for place, row in zip(places, rows, strict=True)
        for problem in _bad_cells(row, species, recordings)
    )
    return [_correction(place, row) for place, row in zip(places, rows, strict=True)]


def _correction(place: str, row: Mapping[str, str]) -> Correction:
    t_min, f_min, t_max, f_max = (float(row[name]) for name in NUMBERS)
    ids = row["recording_id"], row["species_id"], row["songtype_id"]
    return Correction(place, row["kind"], *ids, t_min, f_min, t_max, f_max, row["verdict"])


def _bad_cells(row: dict[str, str], species: Sequence[str], recordings: set[str]) -> Iterator[str]:
    for name, known in (("kind", CORRECTION_KINDS), ("verdict", VERDICTS)):
        if row[name] not in known:
            yield f"{name} must be one of {', '.join(known)}, found {row[name]!r}"
    if row["recording_id"] not in recordings:
        yield f"{row['recording_id']!r} is not a training recording"
    if row["species_id"] not in species:
        yield f"unknown species {row['species_id']!r}"
    if not row["songtype_id"].strip():
        yield "songtype_id is empty"
    numbers = {name: _number(row[name]) for name in NUMBERS}
    for name, number in numbers.items():
        if not 0 <= number < np.inf:
            yield f"{name} {row[name]!r} must be a number >= 0"
    for low, high in (("t_min", "t_max"), ("f_min", "f_max")):
        if numbers[high] <= numbers[low]:
            yield f"{high} {row[high]} <= {low} {row[low]}"


def _number(text: str) -> float:
    """Convert to float, or NaN if `text` is not a number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _second_verdicts(corrections: list[Correction]) -> Iterator[tuple[str, str]]:
    of_cell: dict[tuple[str, str], list[Correction]] = defaultdict(list)
    for one in corrections:
        earlier = of_cell[one.recording_id, one.species_id]
        for other in earlier:
            if one.is_same(other):
                says = "repeats" if one.verdict == other.verdict else f"contradicts {other.verdict!r} in"
                yield one.place, f"{says} {other.place}"
        earlier.append(one)


def _targets(labels: pd.DataFrame, correction: Correction) -> NDArray[np.bool_]:
    """Return (annotations,) whether the correction is about each one.

    For kind "missing" these are the annotations of the species that overlap its span.
    """
    same = labels["recording_id"] == correction.recording_id
    same &= labels["species_id"] == correction.species_id
    if correction.kind == "missing":
        same &= (labels["t_min"] < correction.t_max) & (labels["t_max"] > correction.t_min)
    else:
        same &= (labels["label_type"] == correction.kind) & (labels["songtype_id"] == correction.songtype_id)
        same &= (labels["t_min"] - correction.t_min).abs() < SAME_S
        same &= (labels["t_max"] - correction.t_max).abs() < SAME_S
    return same.to_numpy(dtype=bool)


def _misplaced(
    labels: pd.DataFrame,
    corrections: list[Correction],
    targets: list[NDArray[np.bool_]],
    lengths_s: Mapping[str, float],
) -> Iterator[tuple[str, str]]:
    for one, is_target in zip(corrections, targets, strict=True):
        is_missing = one.kind == "missing"
        length_s = lengths_s.get(one.recording_id, np.inf)
        if not is_missing and not is_target.any():
            yield one.place, f"{one} has no {one.kind} annotation"
        elif is_missing and is_target.any():
            kind = labels["label_type"].to_numpy()[is_target][0]
            yield one.place, f"kind is 'missing', but {one} has a {kind} annotation"
        elif is_missing and one.t_min >= length_s:
            yield one.place, f"t_min {one.t_min:g} is beyond the recording's end at {length_s:g} s"


def _added(correction: Correction, lengths_s: Mapping[str, float]) -> list[str | float]:
    end_s = min(correction.t_max, lengths_s.get(correction.recording_id, np.inf))
    box = [end_s if name == "t_max" else getattr(correction, name) for name in ANNOTATION_COLUMNS]
    return [*box, LABEL_OF_VERDICT[correction.verdict]]
