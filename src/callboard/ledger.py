"""leaderboard.csv: scores that people or a leaderboard reported, by the md5 of the submission."""

import csv
from dataclasses import replace
from pathlib import Path

from callboard.errors import UserError
from callboard.results import N_DIGITS, Result


def read_ledger(path: Path) -> dict[str, dict[str, float]]:
    """`lb.public` and `lb.private` by the submission's md5; the last word on each counts.

    Raises:
        UserError: no such file, a row without md5, or a score that is no number.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; restore it with `git checkout {path.name}`")
    scores: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if not (md5 := row.get("submission_md5")):
                raise UserError(f"{path.name} row {number}: submission_md5 is empty")
            for column in ("public", "private"):
                if text := row.get(column):
                    scores.setdefault(md5, {})[f"lb.{column}"] = _score(
                        text, f"{path.name} row {number}: {column}"
                    )
    return scores


def with_reported(result: Result, ledger: dict[str, dict[str, float]]) -> Result:
    """The result with what the ledger says of its submission; that counts more than what it said itself."""
    return replace(result, lb=result.lb | ledger.get(result.submission_md5, {}))


def _score(text: str, where: str) -> float:
    try:
        return round(float(text), N_DIGITS)
    except ValueError:
        raise UserError(f"{where} {text!r} is not a number") from None
