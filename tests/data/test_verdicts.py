from pathlib import Path

import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.verdicts import VERDICT_COLUMNS, read_window_verdicts, write_window_verdicts

HEADER = ",".join(VERDICT_COLUMNS)


def test_verdicts_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = pd.DataFrame(
        [
            ["=site/a.wav", 108000.123456789, 108005.2, "007", 0.1, "present"],
            ["b.wav", 0.0, 5.0, "1", 0.9, "unsure"],
        ],
        columns=VERDICT_COLUMNS,
    )

    write_window_verdicts(table, tmp_path / "verdicts.csv")

    pd.testing.assert_frame_equal(
        read_window_verdicts(tmp_path / "verdicts.csv"), table, check_dtype=False, rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,5,5,1,0.5,present", "row 2: start_s and end_s must be seconds"),
        ("a,0,nan,1,0.5,present", "row 2: start_s and end_s must be seconds"),
        ("a,0,5,1,1.5,present", "row 2: score must be from 0 to 1, found '1.5'"),
        ("a,0,5,1,0.5,yes", "row 2: verdict must be one of present, absent, unsure, found 'yes'"),
        ("a,0,5,1,0.5,absent\na,0,5,1,0.5,present", "row 3: has a verdict in an earlier row"),
    ],
)
def test_wrong_verdicts_are_refused(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "verdicts.csv").write_text(f"{HEADER}\n{row}\n", encoding="utf-8")

    with pytest.raises(UserError, match=message):
        read_window_verdicts(tmp_path / "verdicts.csv")
