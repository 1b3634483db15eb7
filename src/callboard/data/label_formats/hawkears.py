"""Detections of HawkEars and BriteKit: `recording,name,start_time,end_time,score`, or HawkEars' Raven tables.

Detections are open: a score is not a verdict.
"""

from pathlib import Path

from callboard.data.label_formats import plain_csv, raven
from callboard.data.label_formats.form import LabelTable, ReadOptions, first_line, species_column

COLUMNS_OF_SCORES = {"recording", "name", "start_time", "end_time", "score"}


def is_hawkears(header: set[str]) -> bool:
    """Return whether a header is that of HawkEars' CSV or Raven table."""
    return header == COLUMNS_OF_SCORES or (raven.is_raven(header) and "eBird Code" in header)


def read_hawkears(path: Path, options: ReadOptions) -> LabelTable:
    """Read a table of detections; the species is its code unless the options name another column.

    Raises:
        UserError: The table or a row is wrong.
    """
    if "\t" not in first_line(path):
        return plain_csv.read_plain_csv(path, options)
    table = raven.read_selections(path)
    species = species_column(path, table, options, ("species",))
    return raven.labels_of_selections(path, table, options, species, has_bands=False)
