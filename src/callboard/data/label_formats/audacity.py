r"""Label tracks of Audacity: `start⇥end⇥label` without a header; the band, if any, below it as `\⇥low⇥high`.

BirdNET adds a fourth cell, the score; HawkEars writes `CODE;0.88`. An empty file: nothing was found.
"""

import re
from pathlib import Path

import pandas as pd

from callboard.core.csv_rows import refuse_rows, row_name, utf8_text
from callboard.core.errors import UserError
from callboard.data.label_formats.form import (
    DEFAULT_SONGTYPE,
    LabelTable,
    ReadOptions,
    checked_labels,
    recording_of_table,
    verdict_without_column,
)

BAND_LINE = "\\"
UNDEFINED_HZ = re.compile(r"\s*-1(\.0+)?\s*")

LABEL = re.compile(
    r"(?P<species>.*?)(?:;(?P<score>[01]?\.\d+|[01]))?"
    r"(?: \[song type (?P<songtype>.+?)\])?(?P<verdict> \[absent\])?"
)
"""Text of a label: the species, HawkEars' score, and what `write` adds to a song type or a rejected box."""

CELLS = ["t_min", "t_max", "species", "score"]


def is_audacity(line: str) -> bool:
    """Return whether a first line is a label: two numbers and a text, between tabs."""
    return re.match(r"\d+[.,]?\d*\t\d+[.,]?\d*(\t|$)", line) is not None


def read_audacity(path: Path, options: ReadOptions) -> LabelTable:
    """Read a label track; its name gives the recording.

    Labels are open if any of them has a score. A label without an extent in time is left out.

    Raises:
        UserError: The file cannot be read, or a line is wrong.
    """
    table = _read_lines(path)
    parts = table["species"].str.strip().str.extract(rf"^{LABEL.pattern}$").fillna("")
    has_scores = bool(((table["score"].str.strip() != "") | (parts["score"] != "")).any())
    given = verdict_without_column(options, has_scores)
    recording = recording_of_table(path)
    cells = table.assign(
        recording=recording,
        species=parts["species"],
        songtype=parts["songtype"],
        verdict=parts["verdict"].map(lambda text: "absent" if text else given),
    )
    is_point = table["t_min"].str.strip() == table["t_max"].str.strip()
    is_blank = ~is_point & (parts["species"].str.strip() == "")
    left_out = {"labels of a point in time": int(is_point.sum())}
    left_out["labels that name no species"] = int(is_blank.sum())
    return LabelTable(checked_labels(path, cells[~is_point & ~is_blank]), [recording], left_out)


def _read_lines(path: Path) -> pd.DataFrame:
    """Return CELLS, f_min and f_max as text, indexed by line."""
    lines = utf8_text(path).split("\n")
    rows: dict[int, list[str]] = {}
    problems = []
    last = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        first, *others = line.split("\t")
        if first == BAND_LINE:
            if last == 0 or rows[last][4:] or len(others) != 2:
                problems.append((row_name(path.name, number), "a band must be two numbers after a label"))
                continue
            rows[last] += ["", ""] if any(map(UNDEFINED_HZ.fullmatch, others)) else others
        elif 1 <= len(others) <= 3:
            last = number
            rows[last] = [first, *others, *[""] * (3 - len(others))]
        else:
            problems.append(
                (row_name(path.name, number), f"{len(others) + 1} cells, expected start, end, label")
            )
    refuse_rows(problems)
    filled = [[*row, "", ""][:6] for row in rows.values()]
    return pd.DataFrame(filled, columns=[*CELLS, "f_min", "f_max"], index=list(rows), dtype="str")


def write_audacity(labels: pd.DataFrame, name: str, path: Path) -> None:
    """Write the labels of one recording; times have Audacity's six decimals.

    Args:
        labels: LABEL_COLUMNS.
        name: File name of the recording, which the format has no place for.
        path: The label track.

    Raises:
        UserError: A species or song type has a tab, a line break, or an end that means something else.
    """
    lines = []
    for row in labels.itertuples():
        text = str(row.species)
        if row.songtype != DEFAULT_SONGTYPE:
            text += f" [song type {row.songtype}]"
        if row.verdict == "absent":
            text += " [absent]"
        _refuse_other_species(text, str(row.species), name)
        lines.append(f"{row.t_min:.6f}\t{row.t_max:.6f}\t{text}\n")
        lines.append(f"{BAND_LINE}\t{row.f_min:.6f}\t{row.f_max:.6f}\n")
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def write_detected_track(detections: pd.DataFrame, name: str, path: Path) -> None:
    """Write the detections of one recording, with their scores as HawkEars writes them.

    Args:
        detections: species, t_min, t_max, score.
        name: File name of the recording, which the format has no place for.
        path: The label track.

    Raises:
        UserError: A species has a tab, a line break, or an end that means something else.
    """
    lines = []
    for row in detections.itertuples():
        text = f"{row.species};{row.score:.4f}"
        _refuse_other_species(text, str(row.species), name)
        lines.append(f"{row.t_min:.6f}\t{row.t_max:.6f}\t{text}\n")
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _refuse_other_species(text: str, species: str, name: str) -> None:
    """Refuse the text of a label that would not be read as one of its species."""
    parts = LABEL.fullmatch(text)
    if "\t" in text or parts is None or parts["species"] != species:
        raise UserError(f"{name}: label {text!r} would be read as a different one; rename its species")
