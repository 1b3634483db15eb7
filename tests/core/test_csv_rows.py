"""Broken tables by hand, and cells against the rule that spreadsheets follow."""

import csv
import io

import pytest

from callboard.core.csv_rows import as_written, csv_rows, table_rows, without_formula
from callboard.core.errors import UserError

HEADER = "a,b,note\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('1,2,"open\n3,4,\n5,6,\n', "row 2: a quote .* is not closed, or is followed by text"),
        ('1,2,"open\n3,4,\n5,6,closed"\n', "row 2: a quote .* is not closed, and would swallow the rows"),
        ('1,2,\n3,4,"open\n5,6,"x"\n', r"row 3: a quote .* is not closed, or is followed by text"),
        ('1,2,"x" y\n', r"row 2: a quote .* is not closed, or is followed by text"),
        ("1,2,x\0\n", "row 2: contains a NUL character"),
        (f"1,2,{'x' * 200_000}\n", "row 2: a cell is longer than 131072 characters"),
        ("1,2\n", "^t row 2: 2 cells, but the header has 3$"),
        (
            "1,2,3,4\n\n1\n",
            "^t row 2: 4 cells, but the header has 3\nt row 4: 1 cells, but the header has 3$",
        ),
    ],
)
def test_a_broken_row_is_refused_by_the_line_where_it_begins(rows: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table_rows(HEADER + rows, "t")


def test_rows_below_a_broken_one_are_still_read() -> None:
    rows = list(csv_rows(f'{HEADER}1,2,"open\n3,4,\n5,6,x\n'))
    assert [(row.line, row.cells, bool(row.problem)) for row in rows] == [
        (1, ["a", "b", "note"], False),
        (2, [], True),
        (3, ["3", "4", ""], False),
        (4, ["5", "6", "x"], False),
    ]


def test_a_cell_can_have_line_ends_commas_and_quotes() -> None:
    header, rows = table_rows(f'{HEADER}1,2,"first, ""so""\nsecond, third"\n\n3,4,5" long\n', "t")
    assert header == ["a", "b", "note"]
    assert rows == {2: ["1", "2", 'first, "so"\nsecond, third'], 5: ["3", "4", '5" long']}


def test_sound_tables_are_read_as_the_csv_module_reads_them() -> None:
    cells = [["a", "b"], ['"', ","], ["'", "line\nend"], ["", "tab\t"], ["é", "x" * 1000]]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(cells)
    assert [row.cells for row in csv_rows(file.getvalue())] == cells


@pytest.mark.parametrize("cell", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "-1+cmd"])
def test_a_cell_that_a_spreadsheet_would_run_is_marked_and_read_back(cell: str) -> None:
    assert without_formula(cell) == f"'{cell}"
    assert as_written(without_formula(cell)) == cell


@pytest.mark.parametrize("cell", ["", "a=1", "-0.5", "+1e3", "-inf", "'quoted'", "'", "– dash", "1-2"])
def test_other_cells_stay_as_they_are(cell: str) -> None:
    assert without_formula(cell) == cell
    assert as_written(cell) == cell
