"""Where the files of one finished result are: its commit for text, DVC's cache for all else."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.params.references import blend_parts
from callboard.results.commits import committed_files
from callboard.results.committed import Locks, lock_content
from callboard.results.finished import cached_file
from callboard.results.git import git, git_if_any, text_at
from callboard.results.lookup import names_on_board
from callboard.results.naming import Name, names_in_git, results_named
from callboard.results.result import Files, Result, files_in, read_result
from callboard.results.rows import BoardRow

UNSAID: dict[str, dict[str, Any]] = {
    "features": {"kind": "log_mel", "embedding_hop_s": 0.5},
    "predict": {"weights": "last"},
}
"""By section of params.yaml, what holds for results that are older than these keys."""

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

    def refuse_blend(self) -> None:
        """Refuse a result without networks of its own.

        Raises:
            UserError: it is a blend; its parts are told.
        """
        if parts := blend_parts(self.result.params):
            raise UserError(
                f"{self.name} is a blend, which has neither networks nor windows of its own; name one of its "
                f"parts: {', '.join(parts)}"
            )

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


def read_sections(files: Files, *names: str) -> dict[str, Any]:
    """Sections of a result's params.yaml, with UNSAID where it is older than a key."""
    from ruamel.yaml import YAML

    tree = YAML(typ="safe", pure=True).load(files("params.yaml"))
    return {name: UNSAID.get(name, {}) | tree[name] for name in names}


def find_source(reference: str | None, rows: Sequence[BoardRow]) -> Source:
    """The result that a name means.

    Args:
        reference: See `naming.results_named`; None for the result that HEAD holds.
        rows: The board.

    Raises:
        UserError: nothing has that name, or no result of that name is left in git.
    """
    if reference is None:
        return source_at("HEAD", "HEAD", rows)
    in_git = names_in_git()
    meant = results_named(reference, [*names_on_board(rows), *in_git])[-1]
    holders = [one for one in in_git if one.key == meant.key]
    own = [one for one in holders if one.name == meant.name]
    if holders:
        return source_at((own or holders)[0].commit, meant.name, rows)
    return _unnamed(meant, rows)


def source_at(commit: str, name: str, rows: Sequence[BoardRow] = ()) -> Source:
    """The result that a commit holds, under the name that the board knows its content by, if `name` is HEAD.

    Raises:
        UserError: dvc.lock, metrics or a curve is missing there.
    """
    files = partial(text_at, commit, folder=main_workspace())
    result = read_result(files, name)
    known = next((row.name for row in rows if row.key == result.key), name)
    commit = git("rev-parse", commit, folder=main_workspace()).strip()
    return Source(known if name == "HEAD" else name, commit, result, files)


def _unnamed(meant: Name, rows: Sequence[BoardRow]) -> Source:
    """A result that only the board names: in the work tree, or in an earlier commit that has its content."""
    main = main_workspace()
    here = files_in(main)
    if lock_content(here("dvc.lock")).key == meant.key:
        return Source(meant.name, "", read_result(here, meant.name), here)
    history = git_if_any("log", "--all", f"-n{MAX_COMMITS}", "--format=%H", "--", "dvc.lock", folder=main)
    with committed_files(main) as files:
        locks = Locks(files)
        commit = next((one for one in history.split() if locks.at(one).key == meant.key), "")
        locks.save()
    if commit:
        return source_at(commit, meant.name, rows)
    raise UserError(
        f"{meant.name}: no commit holds this result ({meant.key}) any more, only its run in MLflow; "
        f"`dvc exp run` with its parameters makes it again"
    )
