"""Submissions, and the results that they came from."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from callboard.errors import UserError
from callboard.finished import NAMED, Finished, find_finished, split_reference
from callboard.history import git, text_at
from callboard.ledger.entries import entries_of
from callboard.memory import Memory
from callboard.results import SUBMISSION, all_outs, content_key, files_in, parse_lock
from callboard.runs.stored_runs import stored_runs
from callboard.tracker.tracking import tracking_uri
from callboard.workspace import main_workspace

HASH = re.compile(r"[0-9a-f]{6,32}")
"""A content key, an md5, or the beginning of one."""

MD5_LENGTH = 32

DATA = "data/source"

VERSION = "1"
"""Of what is remembered of a commit."""


@dataclass(frozen=True)
class Submitted:
    """A submission and the result that it belongs to."""

    md5: str
    key: str = ""
    """Content key of the result; empty where no result has the submission."""
    names: tuple[str, ...] = ()
    """Of the result; none where no result has the submission."""
    data_md5: str = ""
    """Of the recordings and annotations behind it."""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.names[0] if self.names else f"submission {self.md5[:8]}"


def find_submitted(what: str) -> Submitted:
    """The submission that `what` means.

    Args:
        what: A submission file, an experiment, branch or tag, `name@key`, a run's name on the board, or the
            beginning of a content key or of a submission's md5.

    Raises:
        UserError: nothing has that name, or several do.
    """
    if Path(what).is_file():
        md5 = md5_of(Path(what))
        return next((known for known in known_submissions() if known.md5 == md5), Submitted(md5))
    try:
        return _of(find_finished(what))
    except UserError as error:
        known = known_submissions()
        name, key = split_reference(what)
        named = [one for one in known if name in one.names and key in ("", one.key)]
        if found := named[-1:] or _by_hash(what, known):
            return found[0]
        raise UserError(f"{error}; nor is it a file, a run on the board, or a content key or md5") from error


def known_submissions() -> list[Submitted]:
    """Of finished experiments in git, of the workspace's own result, and of the board, its newest last."""
    board = _on_board()
    keys = {one.key for one in board}
    others = {one.key: one for one in (*_in_workspace(), *_in_git()) if one.key not in keys}
    return [*others.values(), *board]


def md5_of(path: Path) -> str:
    """As DVC calls a file by."""
    return hashlib.md5(path.read_bytes()).hexdigest()


def _by_hash(what: str, known: Iterable[Submitted]) -> list[Submitted]:
    if not HASH.fullmatch(what):
        return []
    in_ledger = [Submitted(entry.submission_md5, entry.key) for entry in entries_of(Path.cwd())]
    found: dict[str, Submitted] = {}
    for one in (*known, *in_ledger):
        if one.key.startswith(what) or one.md5.startswith(what):
            found.setdefault(one.md5, one)
    own = {md5: one for md5, one in found.items() if one.names}
    if len(found := own or found) > 1:
        several = ", ".join(f"{one.name} ({one.key}, {one.md5[:8]})" for one in found.values())
        raise UserError(f"{what} begins the key or md5 of several submissions: {several}; give more digits")
    return list(found.values()) or ([Submitted(what)] if len(what) == MD5_LENGTH else [])


def _of(finished: Finished) -> Submitted:
    outs = finished.outs
    return Submitted(outs[SUBMISSION], finished.key, (finished.name,), outs.get(DATA, ""))


def _on_board() -> list[Submitted]:
    try:
        runs = stored_runs(tracking_uri())
    except UserError:  # no database yet, or its server is down: git knows most of it
        return []
    return [
        Submitted(
            run.tags.get("callboard.submission_md5", ""),
            run.tags.get("callboard.key", ""),
            tuple(dict.fromkeys([run.name, *run.tags.get("dvc.exp_name", run.name).split(",")])),
            run.tags.get("callboard.data_md5", ""),
        )
        for run in runs
    ]


def _in_workspace() -> list[Submitted]:
    one = _in_lock(files_in(main_workspace())("dvc.lock"))
    return [replace(one, names=(f"workspace-{one.key[:6]}",))] if one else []


def _in_git() -> list[Submitted]:
    """Of every experiment, branch and tag; what their commits hold is remembered."""
    memory = Memory("submissions")
    form = "--format=%(refname) %(objectname) %(*objectname)"
    found: dict[str, Submitted] = {}
    for line in git("for-each-ref", "--sort=creatordate", form, folder=main_workspace()).splitlines():
        ref, *objects = line.split()
        place = f"{objects[-1]} {VERSION}"
        if not (match := NAMED.fullmatch(ref)):
            continue
        if place not in memory:
            one = _in_lock(text_at(objects[-1], "dvc.lock", main_workspace()))
            memory[place] = [one.md5, one.key, one.data_md5] if one else None
        if memory[place]:
            md5, key, data_md5 = memory[place]
            names = found[key].names if key in found else ()
            found[key] = Submitted(md5, key, (*names, match["name"]), data_md5)
    memory.save()
    return list(found.values())


def _in_lock(text: str) -> Submitted | None:
    try:
        lock = parse_lock(text, "dvc.lock")
    except UserError:
        return None
    outs = all_outs(lock)
    return (
        Submitted(outs[SUBMISSION], content_key(lock), (), outs.get(DATA, "")) if SUBMISSION in outs else None
    )
