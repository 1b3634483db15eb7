from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from callboard.analysis.choice import Choice, chosen
from callboard.core.errors import UserError
from callboard.results.rows import BoardRow

START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
FIRST = BoardRow(
    "exp0001",
    {"optim.lr": "0.001", "loss.neg_mask": "none"},
    {"cv.lwlrap": 0.7, "lb.public": 0.5},
    START,
    "",
    {},
)
SECOND = replace(
    FIRST,
    name="exp0058",
    names=("exp0058", "again"),
    params={"optim.lr": "0.0005", "loss.neg_mask": "seq"},
    metrics={"cv.lwlrap": 0.8},
    start=START + timedelta(days=2),
)
THIRD = replace(
    FIRST, name="other", metrics={"cv.lwlrap": 0.75, "lb.public": 0.6}, start=START + timedelta(days=4)
)
ROWS = [FIRST, SECOND, THIRD]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [FIRST, SECOND, THIRD]),
        (Choice(names=("exp00*",)), [FIRST, SECOND]),
        (Choice(names=("ag?in", "other")), [SECOND, THIRD]),
        (Choice(names=("!ag*",)), [FIRST, THIRD]),
        (Choice(names=("exp00*", "!ag*")), [FIRST]),
        (Choice(where=("loss.neg_mask=seq",)), [SECOND]),
        (Choice(where=("loss.neg_mask!=seq",)), [FIRST, THIRD]),
        (Choice(where=("optim.lr=1e-3", "loss.neg_mask=none")), [FIRST, THIRD]),
        (Choice(since="2020-11-21"), [SECOND, THIRD]),
        (Choice(best=2), [SECOND, THIRD]),
        (Choice(best=1, sort="lb.public"), [THIRD]),
        (Choice(sort="lb.public"), [THIRD, FIRST, SECOND]),
        (Choice(sort="optim.lr"), [SECOND, FIRST, THIRD]),
        (Choice(sort="name"), [FIRST, SECOND, THIRD]),
    ],
)
def test_what_is_asked_for_is_shown_in_its_order(choice: Choice, expected: list[BoardRow]) -> None:
    assert chosen(ROWS, choice) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            Choice(where=("los.neg_mask=seq",)),
            r"--where los\.neg_mask: no result has it; the nearest are loss\.neg_mask",
        ),
        (Choice(sort="lb.pub"), r"--sort lb\.pub: .*lb\.public"),
        (Choice(where=("loss.neg_mask",)), "should be KEY=VALUE"),
        (Choice(where=("loss.neg_mask=sec",)), r"none of 3 results; loss\.neg_mask is none, seq"),
        (Choice(names=("exp58",)), r"--name exp58: none of 3 results; the nearest are exp0058"),
        (Choice(names=("zzz",)), r"--name zzz: none of 3 results; examples of names: exp0001, exp0058"),
        (Choice(since="tomorrow"), "--since tomorrow: should be YYYY-MM-DD or YYYY-MM-DDTHH:MM$"),
        (Choice(since="2099-01-01"), r"none of 3 results; the newest is from 2020-11-2"),
    ],
)
def test_what_leaves_nothing_or_is_mistyped_is_told_with_what_there_is(choice: Choice, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(ROWS, choice)


def test_an_empty_board_refuses_nothing() -> None:
    assert chosen([], Choice(names=("x",), where=("a=b",), sort="c", best=3)) == []
