"""Dates of Kaggle's list, as Kaggle's client or a spreadsheet writes them."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, time

TIME = re.compile(
    r"[T ]+(?P<h>\d{1,2}):(?P<m>\d{2})(:(?P<s>\d{2})([.,]\d+)?)?\s*(?P<half>[AP]M)?\s*(Z|UTC)?$",
    re.IGNORECASE,
)
BY_NUMBERS = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})")
"""A date that ends with the year; only dots tell that the day comes first."""

DATE_FORMS = ("%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y")
"""Forms that have only one meaning, besides ISO 8601."""


def read_dates(texts: Sequence[str]) -> list[datetime | None]:
    """Return the times of a column of dates, in UTC without time zone; None for those with no single meaning.

    `5/6/2020` has two meanings, unless all other dates of the column, such as `20/5/2020`, put the day first,
    or all put the month first.
    """
    days_first = {first for text in texts for first in [_is_day_first(text)] if first is not None}
    return [_read(text, days_first) for text in texts]


def _is_day_first(text: str) -> bool | None:
    """Return the order that a date proves; None if it has both, neither, or another form."""
    if not (found := BY_NUMBERS.match(text.strip())) or found[2] == ".":
        return None
    first, second = int(found[1]), int(found[3])
    return first > second if max(first, second) > 12 >= min(first, second) else None


def _read(text: str, days_first: set[bool]) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.strip())
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except ValueError:
        pass
    end = TIME.search(text := text.strip())
    words = (text[: end.start()] if end else text).replace(",", " ").split()
    try:
        day = _day(" ".join(words), days_first)
        return datetime.combine(day, _time(end)) if day and end else day
    except ValueError:
        return None


def _day(text: str, days_first: set[bool]) -> datetime | None:
    if found := BY_NUMBERS.fullmatch(text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        orders = {True} if found[2] == "." else days_first or {True, False}
        pairs = {(second, first) if is_day_first else (first, second) for is_day_first in orders}
        meanings = [(month, day) for month, day in pairs if month <= 12]
        return datetime(year, *meanings[0]) if len(meanings) == 1 else None
    for form in DATE_FORMS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _time(found: re.Match[str]) -> time:
    hour, half = int(found["h"]), (found["half"] or "").upper()
    if half and not 1 <= hour <= 12:
        raise ValueError(found[0])
    hour = hour % 12 + 12 * (half == "PM") if half else hour
    return time(hour, int(found["m"]), int(found["s"] or 0))
