"""`callboard lb`: leaderboard scores, entered by hand, from Kaggle's list, or by Kaggle's client."""

import argparse
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from callboard.commands.arguments import RESULT_NAME, absolute_path, add_command


def add(commands: Any) -> None:
    """Add the command and its subcommands to the parser."""
    lb = add_command(
        commands,
        "lb",
        help="record, list, import, submit and fetch leaderboard scores",
        details="Scores are rows of leaderboard.csv, each committed at once, and metrics of the MLflow run.",
        examples={
            "callboard lb add exp0058 --public 0.951": "record a score that you read on the website",
            "callboard lb list": "all scores",
            "callboard lb add --help": "the arguments of one of these commands",
        },
    )
    own = lb.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_add(own)
    _add_list(own)
    import_ = add_command(
        own,
        "import",
        help="record the scores of a list that `kaggle competitions submissions --csv` printed",
        examples={"callboard lb import submissions.csv": "how many scores are new, and what is unknown"},
    )
    import_.add_argument("file", type=absolute_path, metavar="FILE", help="the list as a CSV file")
    import_.set_defaults(command=import_list)
    _add_submit(own)
    fetch = add_command(
        own,
        "fetch",
        help="record the scores of earlier submissions, as Kaggle lists them",
        details="Needs Kaggle's client, `pip install -e '.[kaggle]'`, and its credentials.",
        examples={"callboard lb fetch --competition rfcx-species-audio-detection": "how many scores are new"},
    )
    _add_competition(fetch)
    fetch.set_defaults(command=fetch_scores)


def _add_add(commands: Any) -> None:
    parser = add_command(
        commands,
        "add",
        help="record a score",
        details="Recording another score of the same submission corrects the first.",
        examples={
            "callboard lb add exp0058 --public 0.951 --private 0.94": "both scores of a result",
            "callboard lb add exp0058 --public 0.93 --file tuned.csv": "of a submission edited by hand",
        },
    )
    parser.add_argument(
        "what",
        type=_name_or_file,
        metavar="WHAT",
        help=f"{RESULT_NAME}; or the md5 or file of a submission",
    )
    parser.add_argument("--public", metavar="SCORE", help="public score, 0 … 1; one of the two is needed")
    parser.add_argument("--private", metavar="SCORE", help="private score, 0 … 1")
    parser.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="day of the score; default: today")
    parser.add_argument("--note", default="", help="words to keep with the score; default: none")
    parser.add_argument(
        "--file",
        type=absolute_path,
        metavar="CSV",
        help="the file submitted, if it is not the result's own, such as one edited by hand",
    )
    parser.set_defaults(command=add_score)


def _add_list(commands: Any) -> None:
    parser = add_command(
        commands,
        "list",
        help="list all scores, as Markdown where output is a pipe or file",
        examples={"callboard lb list": "date, result and scores of each submission"},
    )
    parser.add_argument(
        "--all", action="store_true", help="also list scores that were corrected; default: the last of each"
    )
    parser.set_defaults(command=list_scores)


def _add_submit(commands: Any) -> None:
    parser = add_command(
        commands,
        "submit",
        help="send the submission of a result to Kaggle",
        details="Needs Kaggle's client, `pip install -e '.[kaggle]'`, and its credentials. Refuses an "
        "incomplete submission.",
        examples={
            "callboard lb submit exp0058 --competition rfcx-species-audio-detection --wait": "send, get score"
        },
    )
    parser.add_argument(
        "name", type=_name_or_file, metavar="NAME", help=f"{RESULT_NAME}; or the md5 of a submission"
    )
    _add_competition(parser)
    parser.add_argument(
        "--message",
        metavar="TEXT",
        help="text after `callboard KEY` in the submission's description; default: the name",
    )
    parser.add_argument("--wait", action="store_true", help="wait for the score and record it")
    parser.add_argument("--again", action="store_true", help="send even if the submission has a score")
    parser.set_defaults(command=submit)


def _add_competition(parser: Any) -> None:
    parser.add_argument(
        "--competition",
        metavar="C",
        help="the last part of the competition's address; default: that of Kaggle's configuration",
    )


def add_score(args: argparse.Namespace) -> None:
    """Record one score in leaderboard.csv and MLflow."""
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
    is_new, kept = note_down(entry, f"LB of {found.name}: {scores}")
    added = f"added to {LEDGER}" if is_new else f"already in {LEDGER}"
    print(f"lb: {what}: {scores}: {', '.join(text for text in (added, kept.done) if text)}")
    if not found.key:
        print("lb: no known result has this submission yet; the score will be linked once one does")
    if kept.failure:
        raise kept.failure


def list_scores(args: argparse.Namespace) -> None:
    """Print the rows of leaderboard.csv."""
    from rich.console import Console

    from callboard.reports.leaderboard import as_markdown, leaderboard_cells, print_leaderboard
    from callboard.results.leaderboard import LEDGER, current, entries_of
    from callboard.results.submissions import known_submissions

    entries = entries_of(Path.cwd())
    if not entries:
        print(f"lb: {LEDGER} has no scores yet; `callboard lb add NAME --public 0.93` records the first")
        return
    rows = leaderboard_cells(entries if args.all else current(entries), known_submissions())
    console = Console()
    if console.is_terminal:
        print_leaderboard(rows, console)
    else:
        print(as_markdown(rows), end="")


def import_list(args: argparse.Namespace) -> None:
    """Record the scores of a list in a file."""
    from callboard.core.csv_rows import utf8_text
    from callboard.core.errors import UserError

    if not args.file.is_file():
        raise UserError(f"{args.file}: not found")
    _take(utf8_text(args.file), args.file.name, args.file.parent)


def fetch_scores(args: argparse.Namespace) -> None:
    """Record the scores of the list that Kaggle returns."""
    from callboard.results.kaggle.client import list_submissions

    _take(list_submissions(args.competition), "Kaggle's list", None)


def _take(text: str, where: str, folder: Path | None) -> None:
    from callboard.results.leaderboard import LEDGER
    from callboard.results.scorekeeping import take

    taken = take(text, where, folder)
    facts = [f"{taken.n_new} new in {LEDGER}", f"{taken.n_known} already in it"]
    if taken.n_older:
        facts.append(f"{taken.n_older} skipped, older than the recorded ones")
    print(f"lb: scores: {', '.join([*facts, *([taken.kept.done] if taken.kept.done else [])])}")
    unknown = [str(row) for row in taken.unknown]
    unscored = [f"{row} ({row.status})" for row in taken.unscored]
    for rows, why in ((unknown, "of unknown results"), (unscored, "not scored")):
        if rows:
            print(f"lb: {len(rows)} {why}: {'; '.join(rows)}")
    if taken.kept.failure:
        raise taken.kept.failure


def submit(args: argparse.Namespace) -> None:
    """Send a result's submission; refuse an incomplete one, and one with a score without --again."""
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
        raise UserError(f"{args.name}: no known result has this submission; only a result's own can be sent")
    if (scores := ledger_of(Path.cwd()).get(found.md5)) and not args.again:
        known = ", ".join(f"{name} {score}" for name, score in scores.items())
        raise UserError(f"{found.name} already has a score: {known}; nothing was sent, --again sends it")
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
        raise UserError(
            f"Kaggle did not score {sent}: its status is {sent.status}; see Kaggle's page for why"
        )
    _take(text, "Kaggle's list", None)


def _name_or_file(text: str) -> str:
    return str(absolute_path(text)) if Path(text).is_file() else text


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; must be YYYY-MM-DD") from None


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
