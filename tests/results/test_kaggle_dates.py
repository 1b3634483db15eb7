from datetime import datetime

import pytest

from callboard.results.kaggle.dates import read_dates

TEN = datetime(2020, 11, 20, 10)


@pytest.mark.parametrize(
    "text",
    [
        "2020-11-20 10:00:00",
        "2020-11-20T10:00:00Z",
        "2020-11-20T12:00:00+02:00",
        "2020-11-20 10:00",
        "11/20/2020 10:00",
        "20/11/2020 10:00:00",
        "20-11-2020 10:00",
        "20.11.2020 10:00",
        "11/20/2020 10:00 AM",
        "2020/11/20 10:00",
        "20-Nov-2020 10:00:00",
        "Nov 20, 2020 10:00:00 am",
        "20 November 2020 10:00 UTC",
    ],
)
def test_what_clients_and_spreadsheets_write_is_understood(text: str) -> None:
    assert read_dates([text]) == [TEN]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-11-20 10:00:00.1234567", datetime(2020, 11, 20, 10, 0, 0, 123456)),
        ("5/5/2020 12:30 AM", datetime(2020, 5, 5, 0, 30)),
        ("5/5/2020 12:30 PM", datetime(2020, 5, 5, 12, 30)),
        ("05.06.2020", datetime(2020, 6, 5)),
    ],
)
def test_times_and_dates_by_hand(text: str, expected: datetime) -> None:
    assert read_dates([text]) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "5/6/2020",
        "05-06-2020 10:00",
        "11/20/20",
        "13/13/2020",
        "31.02.2020",
        "44155.42",
        "20/11/2020 25:00",
        "",
    ],
)
def test_what_has_no_single_meaning_is_not_guessed(text: str) -> None:
    assert read_dates([text]) == [None]


def test_other_dates_of_the_column_tell_the_order() -> None:
    fifth, sixth = datetime(2020, 5, 6), datetime(2020, 6, 5)
    assert read_dates(["5/6/2020", "5/20/2020"])[0] == fifth
    assert read_dates(["5/6/2020", "20/5/2020"])[0] == sixth
    assert read_dates(["5/6/2020", "20/5/2020", "5/20/2020"])[0] is None
    assert read_dates(["5/6/2020", "20.5.2020"])[0] is None  # dots say nothing about slashes
