"""`callboard review`: listen to labels and detections in the browser, and judge each with a key."""

import argparse
import hashlib
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callboard.commands.arguments import absolute_path, add_command, whole_number

if TYPE_CHECKING:
    from callboard.analysis.review.session import ReviewSession
    from callboard.reports.review_page.server import ReviewServer


def add(commands: Any) -> None:
    """Add the command to the parser."""
    review = add_command(
        commands,
        "review",
        help="listen to suspects, predictions or a list in the browser, and judge each with a key",
        details="Serves one page on this machine alone, until Ctrl-C or the page ends it. Each verdict is "
        "saved at once, and the same command continues. Verdicts go into the column `verdict` of a table, "
        "those on suspects at the end into corrections.csv too; on predictions into verdicts.csv there.",
        examples={
            "callboard review suspects.csv": "the labels that `callboard suspects` wrote",
            "callboard review predictions/exp0058": "25 windows of each species, all scores and sites",
            "callboard review list.csv --recordings june": "columns recording, start_s, end_s, species",
        },
    )
    review.add_argument(
        "table",
        metavar="TABLE",
        type=absolute_path,
        help="table of suspects, folder of predictions, or CSV with the columns recording, start_s, end_s, "
        "species",
    )
    review.add_argument(
        "--species", action="append", default=[], metavar="NAME", help="only this species; repeatable"
    )
    review.add_argument(
        "--count",
        type=whole_number(1),
        metavar="N",
        help="items to judge; default: all of a table, or what is left of 25 windows for each species",
    )
    review.add_argument(
        "--recordings",
        type=absolute_path,
        metavar="FOLDER",
        help="folder of the recordings of a list, or of predictions if they were moved",
    )
    review.add_argument(
        "--port", type=whole_number(1, 65535), metavar="N", help="port of the server; default: a free one"
    )
    review.add_argument("--no-browser", action="store_true", help="only print the address")
    review.set_defaults(command=serve_review)


def serve_review(args: argparse.Namespace) -> None:
    """Serve the page until the review ends, then do what its end asks for."""
    from callboard.analysis.review.queues import open_queue
    from callboard.analysis.review.session import ReviewSession
    from callboard.reports.review_page.server import ReviewServer

    with _only_reviewer(args.table):
        queue = open_queue(args.table, args.recordings, args.species, args.count)
        session = ReviewSession(queue)
        command = shlex.join(["callboard", *sys.argv[1:]])
        with ReviewServer(session, args.port, command) as server:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the review too
            print(f"review: {len(session.upcoming(most=len(queue.items)))} to judge, {server.address}")
            print("Ctrl-C ends the review", flush=True)
            _open_browser(server.address, wanted=not args.no_browser)
            try:
                server.run()
            except KeyboardInterrupt:
                print()
            _report(session, server)


@contextmanager
def _only_reviewer(table: Path) -> Iterator[None]:
    """Refuse a table that a different process reviews.

    Raises:
        UserError: It does.
    """
    from callboard.core.errors import UserError
    from callboard.core.files import locked
    from callboard.core.workspace import main_workspace

    name = hashlib.sha256(str(table.resolve()).encode()).hexdigest()[:16]
    busy = f"{table}: a different `callboard review` has it open; end that one first"
    with locked(main_workspace() / ".cache" / "review" / f"{name}.lock", UserError, busy):
        yield


def _open_browser(address: str, *, wanted: bool) -> None:
    from callboard.commands.ui import has_display

    if wanted and has_display():
        import webbrowser

        webbrowser.open(address)


def _report(session: "ReviewSession", server: "ReviewServer") -> None:
    from callboard.core.console import counted

    n_left = len(session.queue.items) - len(session.verdicts)
    print(f"review: {counted(session.n_new, 'verdict')} in {session.queue.store.path}, {n_left} left")
    if result := server.finish():  # after that line, since it can refuse
        print(f"review: {result}")
    if session.verdicts:
        for line in session.queue.following:
            print(f"next: {line}")
