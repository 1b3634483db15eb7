"""Waiting for Kaggle to score a submission."""

import time
from collections.abc import Callable

from callboard.errors import UserError
from callboard.ledger.kaggle_submissions import KEY, Sent, parse_sent

PAUSE_S = 15.0
LONGEST_S = 1800.0
PENDING = "pending"


def wait_for(key: str, ask: Callable[[], str]) -> tuple[str, Sent]:
    """Ask again and again until the newest submission with this key is no longer pending.

    Args:
        key: Content key in its description.
        ask: For the list of submissions, as CSV.

    Returns:
        The list, and the submission's row.

    Raises:
        UserError: still pending after half an hour.
    """
    end = time.monotonic() + LONGEST_S
    while True:
        text = ask()
        ours = [row for row in parse_sent(text, "Kaggle's list") if key in KEY.findall(row.description)]
        if ours and ours[-1].status != PENDING:
            return text, ours[-1]
        if time.monotonic() > end:
            raise UserError("Kaggle has no score yet; `callboard lb fetch` asks again later")
        time.sleep(PAUSE_S)
