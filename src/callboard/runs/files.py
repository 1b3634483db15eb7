"""Where the files of one finished result are: its commit for text, DVC's cache for all else."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from callboard.errors import UserError
from callboard.finished import cached_file, split_reference
from callboard.history import git, text_at
from callboard.results import Files, Result, content_key, files_in, parse_lock, read_result
from callboard.runs.commits import committed_files, named_commits
from callboard.runs.rows import Row
from callboard.workspace import main_workspace

MAX_COMMITS = 200
"""How far back a result is looked for that no branch, tag or experiment names any more."""


@dataclass(frozen=True)
class Source:
    """A result and a way to each of its files; nothing is checked out."""

    name: str
    commit: str
    """That holds it; empty where it is in the work tree only."""
    result: Result
    text: Files
    """Files that git keeps: parameters, metrics, curves."""

    def output(self, path: str) -> Path:
        """A file that DVC keeps, in its cache.

        Raises:
            UserError: this result has no such output, or the cache has lost it.
        """
        if path not in self.result.outs:
            raise UserError(f"{self.name} has no {path}: its dvc.lock names no such output")
        return cached_file(self.result.outs[path], f"{path} of {self.name}")

    @contextmanager
    def folder(self, path: str) -> Iterator[Path]:
        """A folder that DVC keeps, as links to its files in the cache, for as long as it is needed.

        Files that the cache has lost are left out.

        Raises:
            UserError: this result has no such output, or the cache has lost the list of its files.
        """
        entries = json.loads(self.output(path).read_text(encoding="utf-8"))
        with TemporaryDirectory() as temporary:
            for entry in entries:
                link = Path(temporary, entry["relpath"])
                link.parent.mkdir(parents=True, exist_ok=True)
                try:
                    link.symlink_to(cached_file(entry["md5"], entry["relpath"]).resolve())
                except UserError:
                    continue
            yield Path(temporary)


def find_source(reference: str | None, rows: Sequence[Row]) -> Source:
    """The result that a name means.

    Args:
        reference: An experiment, branch or tag, `name@key`, or a run of the board such as workspace-3b9c7f;
            None for the result that HEAD holds.
        rows: The board.

    Raises:
        UserError: nothing has that name, or no result of that name is left in git.
    """
    if reference is None:
        return source_at("HEAD", "HEAD", rows)
    name, key = split_reference(reference)
    named = _named()
    if name not in named:
        row = next((row for row in reversed(rows) if name in (row.name, *row.names)), None)
        if row is None:
            raise UserError(_unknown(name, [*named, *(row.name for row in rows)]))
        return _source_of_key(row, rows)
    keys = _keys(named[name])
    found = [commit for commit in named[name] if keys[commit] and key in ("", keys[commit])]
    if not found:
        what = f"with content key {key}" if key else "that finished"
        raise UserError(f"{reference}: {name} is in git, but no result {what}; is it still running?")
    return source_at(found[0], name, rows)


def source_at(commit: str, name: str, rows: Sequence[Row] = ()) -> Source:
    """The result that a commit holds, under the name that the board knows its content by, if `name` is HEAD.

    Raises:
        UserError: dvc.lock, metrics or a curve is missing there.
    """
    files = partial(text_at, commit, folder=main_workspace())
    result = read_result(files, name)
    known = next((row.name for row in rows if row.key == result.key), name)
    commit = git("rev-parse", commit, folder=main_workspace()).strip()
    return Source(known if name == "HEAD" else name, commit, result, files)


def _source_of_key(row: Row, rows: Sequence[Row]) -> Source:
    """A result that only the board names: in the work tree, or in whatever commit has its content."""
    here = files_in(main_workspace())
    if _key(here) == row.key:
        return Source(row.name, "", read_result(here, row.name), here)
    history = git(
        "log", "--all", f"-n{MAX_COMMITS}", "--format=%H", "--", "dvc.lock", folder=main_workspace()
    )
    commits = [*history.split(), *(commit for found in _named().values() for commit in found)]
    for commit, key in _keys(dict.fromkeys(commits)).items():
        if key == row.key:
            return source_at(commit, row.name, rows)
    raise UserError(
        f"{row.name}: no commit holds this result ({row.key}) any more, only its run in MLflow; "
        f"`dvc exp run` with its parameters makes it again"
    )


def _named() -> dict[str, list[str]]:
    """Name of every experiment, branch and tag to its commits, the newest first."""
    names: dict[str, list[str]] = {}
    for named in sorted(named_commits(main_workspace()), key=lambda named: -named.time_ms):
        names.setdefault(named.name, []).append(named.commit)
    return names


def _keys(commits: Iterable[str]) -> dict[str, str]:
    """Commit to the content key of its result; empty where it holds none."""
    with committed_files(main_workspace()) as committed:
        return {commit: _key(committed.of(commit)) for commit in commits}


def _key(files: Files) -> str:
    """Content key of the result there; empty where there is none."""
    try:
        return content_key(parse_lock(files("dvc.lock"), "dvc.lock"))
    except UserError:
        return ""


def _unknown(name: str, known: Sequence[str]) -> str:
    near = (
        ", ".join(get_close_matches(name, dict.fromkeys(known), n=3)) or "none; `callboard board` lists all"
    )
    return f"no result {name!r}: no experiment, branch, tag or run has this name; the nearest: {near}"
