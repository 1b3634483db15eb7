"""The folder that `prepare` writes: the same tables for every source of recordings."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from callboard.data.annotations import ANNOTATION_COLUMNS, write_species
from callboard.data.audio import SKIPPED_COLUMNS
from callboard.data.known_truth import TEST_LABELS
from callboard.data.recordings import RECORDING_COLUMNS
from callboard.data.score_tables import score_table

SAMPLE_SCORE = 0.5
HIDDEN_NOTE = (
    "The truth about this source is not known here; a leaderboard score goes into leaderboard.csv.\n"
)


@dataclass(frozen=True)
class SourceTables:
    """Recordings, species and annotations of one source; every id is text."""

    species: list[str]
    """In class order."""
    recordings: pd.DataFrame
    """RECORDING_COLUMNS, sorted by subset and id."""
    train_tp: pd.DataFrame
    train_fp: pd.DataFrame
    """Both tables have ANNOTATION_COLUMNS."""
    test_ids: list[str]
    """Test recordings in the order of the submission."""
    skipped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SKIPPED_COLUMNS))
    truth: pd.DataFrame | None = None
    """Species in the test recordings, as a score table with usage; None if they are not known, or already
    written."""

    def facts(self) -> list[str]:
        """Return the counts and lengths for the one-line summary."""
        n_train = int((self.recordings["subset"] == "train").sum())
        lengths_s = sorted(set((self.recordings["n_samples"] / self.recordings["sample_rate"]).round(1)))
        length = f"{lengths_s[0]:g}" if len(lengths_s) == 1 else f"{lengths_s[0]:g}–{lengths_s[-1]:g}"
        facts = [
            f"{len(self.species)} species",
            f"{n_train} train and {len(self.test_ids)} test recordings of {length} s",
            f"{len(self.train_tp)} TP and {len(self.train_fp)} FP rows",
        ]
        if n_external := int((self.recordings["subset"] == "external").sum()):
            facts.append(f"{n_external} external recordings")
        if self.truth is not None:
            facts.append(f"{TEST_LABELS} gives an LB")
        if n_copies := int(self.recordings["digest"].duplicated().sum()):
            facts.append(f"{n_copies} of equal content as another")
        return [*facts, f"{len(self.skipped)} recordings skipped"] if len(self.skipped) else facts


def write_source_tables(tables: SourceTables, folder: Path) -> None:
    """Write the tables, a sample submission and hidden/, which only has a note if the truth is not known."""
    write_species(tables.species, folder / "species.csv")
    tables.recordings[RECORDING_COLUMNS].to_csv(folder / "recordings.csv", index=False)
    tables.train_tp[ANNOTATION_COLUMNS].to_csv(folder / "train_tp.csv", index=False)
    tables.train_fp[ANNOTATION_COLUMNS].to_csv(folder / "train_fp.csv", index=False)
    scores = np.full((len(tables.test_ids), len(tables.species)), SAMPLE_SCORE)
    sample = score_table(tables.test_ids, tables.species, scores)
    sample.to_csv(folder / "sample_submission.csv", index=False)
    tables.skipped[SKIPPED_COLUMNS].to_csv(folder / "skipped.csv", index=False)
    (folder / "hidden").mkdir(exist_ok=True)
    if tables.truth is not None:
        tables.truth.to_csv(folder / "hidden" / TEST_LABELS, index=False)
    if not (folder / "hidden" / TEST_LABELS).exists():
        (folder / "hidden" / ".keep").write_text(HIDDEN_NOTE, encoding="utf-8")
