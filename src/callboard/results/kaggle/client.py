"""Kaggle's own command-line client, run as a program; its errors become sentences."""

import os
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
"""Maximum number of rows that one call can list; the newest come first."""

REFUSALS = (
    (
        r"Authentication required|\b401\b|Unauthori[sz]ed",
        "Kaggle's client has no valid credentials; run `kaggle auth login`, or create a token at "
        "https://www.kaggle.com/settings/api and put it into ~/.kaggle/access_token or KAGGLE_API_TOKEN",
    ),
    (
        r"Max retries exceeded|NameResolution|ConnectionError|Connection (refused|reset|aborted)"
        r"|RemoteDisconnected|Network is unreachable|ProxyError|SSLError",
        "Kaggle cannot be reached; check the network and HTTPS_PROXY, then repeat the command",
    ),
    (
        r"allowance|daily.{0,20}limit|limit.{0,20}(day|daily)",
        "today's submissions to {competition} are used up; Kaggle resets the count at midnight UTC",
    ),
    (r"\b429\b|Too Many Requests", "too many requests to Kaggle; wait some minutes and repeat the command"),
    (
        r"accept.{0,40}rules",
        "the rules of {competition} are not accepted yet; do so at https://www.kaggle.com/c/{competition}/rules",
    ),
    (
        r"deadline|has (ended|closed)|is (over|closed)|no longer accept|not accepting"
        r"|[Ss]ubmissions are (closed|disabled)",
        "{competition} no longer accepts submissions",
    ),
    (
        r"\b404\b|NotFound|[Nn]ot [Ff]ound|Could not find competition",
        "Kaggle has no competition {competition}; a name is the last part of a competition's address",
    ),
    (
        r"\b403\b|Forbidden|[Pp]ermission",
        "Kaggle denies access to {competition}; is the name right, have you joined it and accepted its "
        "rules (https://www.kaggle.com/c/{competition}/rules), and is it still open?",
    ),
    (
        r"No competition specified",
        "no competition given; pass --competition NAME, or once `kaggle config set -n competition -v NAME`",
    ),
    (r"Could not submit to competition", "the upload to {competition} failed; repeat the command"),
    (r"\b5\d\d Server Error", "Kaggle's server reports an internal error; try again later"),
)
"""Pattern of the client's output, and its meaning; the first that matches counts."""

FAILED_SOFTLY = re.compile(r"Could not (submit to|find) competition")
"""Failures after which the client's exit status is 0."""


def send(file: Path, message: str, competition: str | None) -> str:
    """Submit a file to a competition.

    Args:
        file: A submission with any file name; Kaggle gets it as submission.csv.
        message: Its description on Kaggle.
        competition: Name in its address; None for the one in the client's own settings.

    Returns:
        Kaggle's answer.

    Raises:
        UserError: no client, no credentials, or Kaggle did not accept the file.
    """
    with tempfile.TemporaryDirectory(prefix="callboard-") as folder:
        named = Path(folder) / "submission.csv"
        shutil.copyfile(file, named)
        arguments = ["submit", "--file", str(named), "--message", message, "--quiet"]
        return _call(arguments, competition, SEND_TIMEOUT_S, "`callboard lb fetch` shows whether it arrived")


def list_submissions(competition: str | None) -> str:
    """Return the newest submissions to a competition, as CSV.

    Args:
        competition: As in `send`.

    Raises:
        UserError: no client, no credentials, or Kaggle refused the request.
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
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout_s,
        )
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
    """Poll until the newest submission with this key is no longer pending.

    Args:
        key: Content key in its description.
        ask: Function that returns the list of submissions, as CSV.

    Returns:
        The list, and the submission's row.

    Raises:
        UserError: the submission is still pending after half an hour.
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
