"""Look-up of a result by name: the one rule for every command and stage that takes a result.

NAME is an experiment, a branch, a tag or a run; NAME@KEY is the one whose content key starts with KEY; a key
alone, or its first digits, is a name too. Of results with the same name the newest counts.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial

from callboard.core.errors import UnknownResultError, UserError, nearest
from callboard.core.workspace import main_workspace
from callboard.results.committed import Locks, lock_content
from callboard.results.dvc_lock import parse_lock
from callboard.results.git import committed_files, files_in, git_if_any, text_at
from callboard.results.git_errors import GitError
from callboard.results.refs import refs_in_git
from callboard.results.result import Result, ResultRef

MIN_DIGITS = 4
"""Minimum number of digits by which a key can be abbreviated."""

KEY_START = re.compile(rf"[0-9a-f]{{{MIN_DIGITS},16}}")

EXACT = re.compile(r".+@[0-9a-f]{16}")
"""A reference to exactly one result, not a later one of the same name."""

MAX_COMMITS = 200
"""Number of commits that are searched for a result that no branch, tag or experiment names any more."""


def find(text: str | None, board: Iterable[ResultRef] = ()) -> ResultRef:
    """Return the result that a name refers to: the newest of `find_all`.

    Args:
        text: The name as typed; None for the result of HEAD, or else of the work tree, as after a first
            `dvc repro`, under its name on the board.
        board: References to the results on the board, see `rows.board_refs`.

    Raises:
        UserError: as `find_all`.
    """
    if text is not None:
        return find_all(text, board)[-1]
    found = next((ref for ref in refs_in_git() if ref.kind == "HEAD"), ResultRef("HEAD", ""))
    if not found.key:
        found = ResultRef("workspace", lock_content(files_in(main_workspace())("dvc.lock")).key)
    if not found.key:
        raise _unfinished("HEAD")
    known = next((ref.name for ref in board if ref.key == found.key), found.name)
    return found._replace(name=known)


def find_all(text: str, board: Iterable[ResultRef] = (), others: Iterable[str] = ()) -> list[ResultRef]:
    """Return every result of a name.

    Args:
        text: The name as typed.
        board: References to the results on the board, see `rows.board_refs`.
        others: Further names that could be typed here, for the hint.

    Returns:
        One or more results, each once, the newest last; with the commit if git has a name for it.

    Raises:
        UserError: nothing has that name, it is not finished, or several keys start with its digits.
    """
    return choose(text, [*board, *refs_in_git()], others)


def choose(text: str, refs: Sequence[ResultRef], others: Iterable[str] = ()) -> list[ResultRef]:
    """Return the results among `refs` that a text refers to, each under the first of its names.

    Arguments, result and errors as in `find_all`.
    """
    if own := [ref for ref in refs if ref.name == text]:
        if found := _each_once(own, refs):
            return found
        if own[0].kind in ("branch", "tag", "HEAD"):
            raise _unfinished(text)
        raise UserError(f"{text} is in git, but its commit holds no finished result; is it still running?")
    name, at, digits = text.rpartition("@")
    found = _each_once(
        (ref for ref in refs if (ref.name == name or not at) and _starts(ref.key, digits)), refs
    )
    if len(found) > 1:
        several = ", ".join(ref.reference for ref in found)
        raise UserError(f"{text}: {len(found)} keys start with it: {several}; give more digits")
    if not found:
        raise _unknown(text, name or text, refs, others)
    return found


def _starts(key: str, digits: str) -> bool:
    return bool(KEY_START.fullmatch(digits)) and key.startswith(digits)


def _each_once(meant: Iterable[ResultRef], known: Sequence[ResultRef]) -> list[ResultRef]:
    """Return one reference per content key, in order of time; of several times of a result the latest counts.

    A reference without a commit gets that of one with the same key and name, else that of one with the key.
    """
    found: dict[str, ResultRef] = {}
    latest: dict[str, int] = {}
    for ref in meant:
        if ref.key:
            found.setdefault(ref.key, ref)
            latest[ref.key] = max(ref.time_ms, latest.get(ref.key, 0))
    return [_with_commit(ref, known) for ref in sorted(found.values(), key=lambda ref: latest[ref.key])]


def _with_commit(ref: ResultRef, known: Sequence[ResultRef]) -> ResultRef:
    if ref.commit:
        return ref
    holders = [other for other in known if other.key == ref.key and other.commit]
    own = [other for other in holders if other.name == ref.name]
    return ref._replace(commit=next((other.commit for other in (*own, *holders)), ""))


def _unfinished(revision: str) -> UserError:
    return UserError(f"{revision} holds no finished result; name one, or commit dvc.lock after `dvc repro`")


def _unknown(text: str, name: str, refs: Sequence[ResultRef], others: Iterable[str]) -> UnknownResultError:
    finished = [ref for ref in refs if ref.key]
    same = list(dict.fromkeys(ref.reference for ref in finished if ref.name == name))
    known = list(dict.fromkeys([*others, *(ref.name for ref in finished)]))
    if not known:
        return UnknownResultError(
            text, f"no result is called {text!r}; there are no results yet: `dvc repro` makes the first"
        )
    hint = f"; the nearest are {', '.join(same)}" if same else nearest(name, known)
    return UnknownResultError(text, f"no result is called {text!r}{hint or '; `callboard board` lists all'}")


def find_result(text: str | None, board: Iterable[ResultRef] = ()) -> Result:
    """Return the complete result that a name refers to; arguments as in `find`.

    Raises:
        UserError: as `find` and `open_result`, or a text file is missing.
    """
    result = open_result(find(text, board))
    result.refuse_incomplete()
    return result


def find_exactly(reference: str, setting: str) -> Result:
    """Return the result that a parameter refers to.

    Args:
        reference: `name@key`.
        setting: The parameter, for the error.

    Raises:
        UserError: the key is missing or incomplete, or git does not have the result.
    """
    ref = find(reference)
    if not EXACT.fullmatch(reference):
        raise UserError(f"{setting}: {reference!r} must be an exact reference: {ref.reference}")
    return open_result(ref)


def held_result(ref: ResultRef) -> Result | None:
    """Return the complete result; None if neither a commit nor the work tree holds it any more.

    Raises:
        GitError: git fails.
    """
    try:
        return find_result(ref.reference, [ref])
    except GitError:
        raise
    except UserError:
        return None


def open_result(ref: ResultRef) -> Result:
    """Return the result that a commit or the work tree holds.

    Args:
        ref: Reference to the result, with the commit if git has a name for it.

    Raises:
        UserError: neither the work tree nor an earlier commit holds it.
    """
    main = main_workspace()
    if not ref.commit:
        here = files_in(main)
        if lock_content(here("dvc.lock")).key == ref.key:
            return Result(ref, parse_lock(here("dvc.lock"), ref.name), here)
        ref = ref._replace(commit=_earlier_commit(ref))
    files = partial(text_at, ref.commit, folder=main)
    return Result(ref, parse_lock(files("dvc.lock"), f"{ref.name}: dvc.lock"), files)


def _earlier_commit(ref: ResultRef) -> str:
    """Return a commit without a name of its own whose dvc.lock has the content key of a result."""
    main = main_workspace()
    history = git_if_any("log", "--all", f"-n{MAX_COMMITS}", "--format=%H", "--", "dvc.lock", folder=main)
    with committed_files(main) as files:
        locks = Locks(files)
        commit = next((one for one in history.split() if locks.at(one).key == ref.key), "")
        locks.save()
    if not commit:
        raise UserError(
            f"{ref.name}: no commit holds this result ({ref.key}) any more, only its run in MLflow; "
            f"`dvc exp run` with its parameters reproduces it"
        )
    return commit
