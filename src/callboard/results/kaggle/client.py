"""Kaggle's own command-line client, run as a program; what it refuses becomes a sentence."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from callboard.core.errors import UserError
from callboard.results.kaggle.submissions import KEY_PATTERN, Sent, parse_sent

SEND_TIMEOUT_S = 600.0
LIST_TIMEOUT_S = 120.0

LONGEST_PAGE = 200
"""Rows that one call may list; the newest come first."""

REFUSALS = (
    (
        r"Authentication required|\b401\b|Unauthori[sz]ed",
        "Kaggle knows no valid credentials here; run `kaggle auth login`, or make a token at "
        "https://www.kaggle.com/settings/api and put it into ~/.kaggle/access_token or KAGGLE_API_TOKEN",
    ),
    (
        r"Max retries exceeded|NameResolution|ConnectionError|Connection (refused|reset|aborted)"
        r"|RemoteDisconnected|Network is unreachable|ProxyError|SSLError",
        "Kaggle cannot be reached; look at the network and at HTTPS_PROXY, then repeat the command",
    ),
    (
        r"allowance|daily.{0,20}limit|limit.{0,20}(day|daily)",
        "today's submissions to {competition} are used up; Kaggle counts anew at midnight UTC",
    ),
    (r"\b429\b|Too Many Requests", "Kaggle wants fewer requests; wait some minutes and repeat the command"),
    (
        r"accept.{0,40}rules",
        "the rules of {competition} are not accepted yet; do so at https://www.kaggle.com/c/{competition}/rules",
    ),
    (
        r"deadline|has (ended|closed)|is (over|closed)|no longer accept|not accepting"
        r"|[Ss]ubmissions are (closed|disabled)",
        "{competition} takes no submissions any more",
    ),
    (
        r"\b404\b|NotFound|[Nn]ot [Ff]ound|Could not find competition",
        "Kaggle has no competition {competition}; its name is the last part of its address",
    ),
    (
        r"\b403\b|Forbidden|[Pp]ermission",
        "Kaggle does not let you use {competition}; is the name right, have you joined it and accepted its "
        "rules (https://www.kaggle.com/c/{competition}/rules), and is it still open?",
    ),
    (
        r"No competition specified",
        "which competition? give --competition NAME, or `kaggle config set -n competition -v NAME` once",
    ),
    (r"Could not submit to competition", "the upload to {competition} failed; repeat the command"),
    (r"\b5\d\d Server Error", "Kaggle itself has a fault at the moment; try again later"),
)
"""What the client prints, as a pattern, and what it means; the first that fits counts."""

FAILED_SOFTLY = re.compile(r"Could not (submit to|find) competition")
"""Failures after which the client's exit status is 0."""


def send(file: Path, message: str, competition: str | None) -> str:
    """Submit a file to a competition.

    Args:
        file: A submission, under whatever name; Kaggle is shown submission.csv.
        message: Its description on Kaggle.
        competition: Name in its address; without one that of the client's own settings.

    Returns:
        What Kaggle answered.

    Raises:
        UserError: no client, no credentials, or Kaggle did not take it.
    """
    with tempfile.TemporaryDirectory(prefix="callboard-") as folder:
        named = Path(folder) / "submission.csv"
        shutil.copyfile(file, named)
        arguments = ["submit", "--file", str(named), "--message", message, "--quiet"]
        return _call(arguments, competition, SEND_TIMEOUT_S, "whether it arrived, `callboard lb fetch` tells")


def list_submissions(competition: str | None) -> str:
    """The newest submissions to a competition, as CSV.

    Args:
        competition: As above.

    Raises:
        UserError: as above.
    """
    arguments = ["submissions", "--csv", "--quiet", "--page-size", str(LONGEST_PAGE)]
    return _call(arguments, competition, LIST_TIMEOUT_S, "repeat the command")


def _call(arguments: Sequence[str], competition: str | None, timeout_s: float, afterwards: str) -> str:
    try:
        version("kaggle")
    except PackageNotFoundError:
        raise UserError("Kaggle's client is not installed; pip install -e '.[kaggle]' in the clone") from None
    # -P: a folder `kaggle` in the workspace is not the client
    client = [sys.executable, "-P", "-m", "kaggle", "--no-warn", "competitions"]
    command = [*client, *arguments, *([competition] if competition else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise UserError(f"Kaggle did not answer within {timeout_s:g} s; {afterwards}") from None
    if done.returncode or FAILED_SOFTLY.search(done.stdout):
        raise UserError(_in_words(f"{done.stdout}\n{done.stderr}", competition))
    return done.stdout.strip()


def _in_words(printed: str, competition: str | None) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    said = lines[-1] if lines else "nothing"
    for pattern, meaning in REFUSALS:
        if found := re.search(pattern, printed):
            line = next((line for line in lines if found[0] in line), said)
            return f"{meaning.format(competition=competition or 'the competition')} (Kaggle's client: {line})"
    return f"Kaggle's client failed: {said}"


POLL_S = 15.0
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
        ours = [
            row for row in parse_sent(text, "Kaggle's list") if key in KEY_PATTERN.findall(row.description)
        ]
        if ours and ours[-1].status != PENDING:
            return text, ours[-1]
        if time.monotonic() > end:
            raise UserError("Kaggle has no score yet; `callboard lb fetch` asks again later")
        time.sleep(POLL_S)
