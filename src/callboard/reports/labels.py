"""Text that `callboard labels import` prints."""

from callboard.core.console import counted
from callboard.data.label_formats.form import LABEL_VERDICTS
from callboard.data.label_import import LabelImport
from callboard.reports.text import markdown_table


def import_text(done: LabelImport) -> str:
    """Return the labels of the files by species and verdict, then what was left out, changed and written."""
    lines = [[str(cell) for cell in row] for row in done.counts.itertuples()]
    total = ["all", *map(str, done.counts.sum())]
    table = markdown_table(["species", *LABEL_VERDICTS], [*lines, total], [False, True, True, True])
    formats = ", ".join(f"{n} {name}" for name, n in done.formats.items())
    facts = [
        f"read: {counted(done.formats.total(), 'file')} ({formats}), "
        f"{counted(done.n_recordings, 'recording')}, {done.n_empty} without a label",
        *(f"not a label: {n} {reason}" for reason, n in done.skipped.items()),
        *(f"left out: {counted(n, 'label')} {reason}" for reason, n in done.left_out.items()),
        *(f"changed: {note}" for note in done.notes),
        f"written: {counted(done.n_tp, 'TP row')} and {counted(done.n_fp, 'FP row')} to {done.folder}",
    ]
    if done.n_absences:
        facts.append(f"written: {counted(done.n_absences, 'FP row')} over a whole recording, by --complete")
    return table + "\n" + "\n".join(facts)
