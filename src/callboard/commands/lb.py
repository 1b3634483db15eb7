"""`callboard lb`: leaderboard scores, by hand, from Kaggle's list, or through Kaggle's client."""

import argparse
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME


def add(commands: Any) -> None:
    """Add the command and its own commands to the parser."""
    lb = commands.add_parser("lb", help="leaderboard scores: note down, list, import, submit, fetch")
    own = lb.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_add(own)
    _add_list(own)
    import_ = own.add_parser(
        "import", help="scores from a list that `kaggle competitions submissions --csv` printed"
    )
    import_.add_argument("file", type=_absolute, metavar="FILE")
    import_.set_defaults(command=import_list)
    _add_submit(own)
    fetch = own.add_parser("fetch", help="scores of what was submitted, from Kaggle")
    _add_competition(fetch)
    fetch.set_defaults(command=fetch_scores)


def _add_add(commands: Any) -> None:
    parser = commands.add_parser("add", help="note down a score")
    parser.add_argument(
        "what",
        type=_name_or_file,
        metavar="WHAT",
        help=f"{RESULT_NAME}; or a submission's md5 or file",
    )
    parser.add_argument("--public", metavar="SCORE", help="0 … 1")
    parser.add_argument("--private", metavar="SCORE")
    parser.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="default today")
    parser.add_argument("--note", default="")
    parser.add_argument(
        "--file",
        type=_absolute,
        metavar="CSV",
        help="another submission of that run, such as one changed by hand",
    )
    parser.set_defaults(command=add_score)


def _add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="all scores; Markdown when the output is not a terminal")
    parser.add_argument("--all", action="store_true", help="what was corrected too")
    parser.set_defaults(command=list_scores)


def _add_submit(commands: Any) -> None:
    parser = commands.add_parser("submit", help="send a run's submission to Kaggle")
    parser.add_argument("name", type=_name_or_file, metavar="NAME", help="as for `lb add`, but no file")
    _add_competition(parser)
    parser.add_argument(
        "--message", help="words after `callboard <key>` in the description; default the name"
    )
    parser.add_argument("--wait", action="store_true", help="until the score is there, then note it down")
    parser.add_argument("--again", action="store_true", help="also what has a score already")
    parser.set_defaults(command=submit)


def _add_competition(parser: Any) -> None:
    parser.add_argument(
        "--competition", metavar="C", help="the last part of its address; default that of Kaggle's client"
    )


def add_score(args: argparse.Namespace) -> None:
    """Note down one score, as given."""
    from callboard.core.errors import UserError
    from callboard.results.leaderboard import LEDGER, LeaderboardEntry, checked_score
    from callboard.results.scorekeeping import note_down
    from callboard.results.submissions import find_submission, md5_of, refuse_no_submission

    if args.public is None and args.private is None:
        raise UserError("lb add: no score; give --public SCORE, --private SCORE or both")
    public, private = (
        None if text is None else checked_score(text, name)
        for name, text in (("--public", args.public), ("--private", args.private))
    )
    if args.file and not args.file.is_file():
        raise UserError(f"{args.file}: not found")
    for file in (args.file, Path(args.what)):
        if file and file.is_file():
            refuse_no_submission(file)
    found = find_submission(args.what)
    md5 = md5_of(args.file) if args.file else found.md5
    entry = LeaderboardEntry(
        md5, found.key, public, private, args.date or _today(), " ".join(args.note.split())
    )
    scores = ", ".join(f"{name.removeprefix('lb.')} {score}" for name, score in entry.scores.items())
    what = found.name if md5 == found.md5 else f"{found.name}, another file ({md5[:8]})"
    is_new, done = note_down(entry, f"LB of {found.name}: {scores}")
    told = f"added to {LEDGER}" if is_new else f"already there in {LEDGER}"
    print(f"lb: {what}: {scores}: {', '.join(text for text in (told, done) if text)}")
    if not found.key:
        print("lb: no result here has this submission; the score waits for one")


def list_scores(args: argparse.Namespace) -> None:
    """Print the ledger."""
    from rich.console import Console

    from callboard.reports.leaderboard import as_markdown, leaderboard_cells, print_leaderboard
    from callboard.results.leaderboard import LEDGER, current, entries_of
    from callboard.results.submissions import known_submissions

    entries = entries_of(Path.cwd())
    if not entries:
        print(f"lb: {LEDGER} has no scores yet; `callboard lb add NAME --public 0.93` notes down the first")
        return
    rows = leaderboard_cells(entries if args.all else current(entries), known_submissions())
    console = Console()
    if console.is_terminal:
        print_leaderboard(rows, console)
    else:
        print(as_markdown(rows), end="")


def import_list(args: argparse.Namespace) -> None:
    """Take the scores of a list that lies in a file."""
    from callboard.core.errors import UserError
    from callboard.results.leaderboard import utf8_text

    if not args.file.is_file():
        raise UserError(f"{args.file}: not found")
    _take(utf8_text(args.file), args.file.name, args.file.parent)


def fetch_scores(args: argparse.Namespace) -> None:
    """Take the scores of Kaggle's own list."""
    from callboard.results.kaggle.client import list_submissions

    _take(list_submissions(args.competition), "Kaggle's list", None)


def _take(text: str, where: str, folder: Path | None) -> None:
    from callboard.results.leaderboard import LEDGER
    from callboard.results.scorekeeping import take

    taken = take(text, where, folder)
    facts = [f"{taken.n_new} new in {LEDGER}", f"{taken.n_known} already there"]
    if taken.n_older:
        facts.append(f"{taken.n_older} older than what is there and left out")
    print(f"lb: scores: {', '.join([*facts, *([taken.done] if taken.done else [])])}")
    unknown = [str(row) for row in taken.unknown]
    unscored = [f"{row} ({row.status})" for row in taken.unscored]
    for rows, why in ((unknown, "of no result known here"), (unscored, "not scored")):
        if rows:
            print(f"lb: {len(rows)} {why}: {'; '.join(rows)}")


def submit(args: argparse.Namespace) -> None:
    """Send a run's submission; refuse what Kaggle would refuse, and what has a score already."""
    from callboard.core.errors import UserError
    from callboard.results.dvc_cache import cached_file
    from callboard.results.kaggle.client import send
    from callboard.results.kaggle.submissions import message_of
    from callboard.results.leaderboard import ledger_of
    from callboard.results.submissions import find_submission, refuse_incomplete

    try:
        found = find_submission(args.name)
    except UserError as error:
        raise UserError(f"{error}; `callboard run NAME` makes a result") from error
    if not found.key:
        raise UserError(f"{args.name}: no result here has this submission; what is sent must be a run's own")
    if (scores := ledger_of(Path.cwd()).get(found.md5)) and not args.again:
        told = ", ".join(f"{name} {score}" for name, score in scores.items())
        raise UserError(f"{found.name} has its score already: {told}; nothing was sent, --again sends it")
    file = cached_file(found.md5, f"the submission of {found.name}")
    refuse_incomplete(file, found.data_md5, f"the submission of {found.name}")
    print(f"lb: sending the submission of {found.name}, {file.stat().st_size / 1e6:.1f} MB", flush=True)
    message = message_of(found, args.message)
    answer = send(file, message, args.competition)
    print(f"lb: {answer or 'sent'}, as {message!r}", flush=True)
    if not args.wait:
        again = f" --competition {args.competition}" if args.competition else ""
        print(f"lb: its score, once Kaggle has it: callboard lb fetch{again}")
        return
    _wait(found.key, args.competition)


def _wait(key: str, competition: str | None) -> None:
    from callboard.core.errors import UserError
    from callboard.results.kaggle.client import list_submissions, wait_for

    text, sent = wait_for(key, lambda: list_submissions(competition))
    if not sent.is_scored:
        raise UserError(f"Kaggle gave {sent} no score, its status is {sent.status}; Kaggle's page says why")
    _take(text, "Kaggle's list", None)


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _name_or_file(text: str) -> str:
    """A file is named from where the person stands; the command itself runs at the root of the workspace."""
    return str(Path(text).absolute()) if Path(text).is_file() else text


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date, must be like 2020-11-20") from None


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
