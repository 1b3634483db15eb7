"""Finished experiments: found by name in git, their tables in DVC's cache, without checking anything out."""

import re
from configparser import ConfigParser
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace
from callboard.results.git import git_if_any, text_at
from callboard.results.result import OUT_OF_FOLD, SUBMISSION, Lock, all_outs, content_key, parse_lock

NAMED = re.compile(r"refs/(?:exps/[0-9a-f]{2}/[0-9a-f]{38}|heads|tags)/(?P<name>.+)")
"""Experiments hang below the commit that they started from; DVC's own notes, as refs/exps/exec, do not."""

FOLDER_SUFFIX = ".dir"
"""How the md5 of a folder ends in dvc.lock; in the cache it is a list of files."""

MAKE_FOLDERS = "dvc repro, then commit dvc.lock, metrics and plots"
"""Ends the trouble of `folders_not_cached`."""

RESULT_REFERENCE = re.compile(r"(?P<name>.+)@(?P<key>[0-9a-f]{16})")


@dataclass(frozen=True)
class Finished:
    """A result of the pipeline that git knows under a name."""

    name: str
    key: str
    """Content key, see results.content_key."""
    outs: dict[str, str]
    """Path to md5, of every output that its dvc.lock tells."""
    commit: str = field(compare=False)
    lock: Lock = field(repr=False, compare=False)

    @property
    def models(self) -> str:
        """The folder of the networks that it predicts by, of its last round; empty where it has none."""
        deps = self.lock.get("predict", {}).get("deps", [])
        return next((dep["path"] for dep in deps if dep["path"].startswith("models/")), "")

    @property
    def reference(self) -> str:
        """`name@key`, which means this result and no later one of the same name."""
        return f"{self.name}@{self.key}"

    def file(self, path: str) -> Path:
        """An output, such as `submission/submission.csv`, where it lies in DVC's cache.

        Raises:
            UserError: it is not there.
        """
        return cached_file(self.outs[path], f"{path} of {self.reference}")


def find_finished(reference: str) -> Finished:
    """The newest result of an experiment, branch or tag; given as `name@key`, the one with that content key.

    An experiment run again from a later commit keeps its name; then the newest counts.

    Raises:
        UserError: nothing has that name, what has it never finished, or it has another key by now.
    """
    name, key = split_reference(reference)
    commits = _commits_by_name()
    if name not in commits:
        near = ", ".join(get_close_matches(name, commits, n=3)) or "none"
        raise UserError(f"no experiment, branch or tag {name!r} in git; similar names: {near}")
    results = _results(name, commits[name])
    if not results:
        raise UserError(f"{name}: not finished, its commit {commits[name][0][:7]} has no complete dvc.lock")
    wanted = [result for result in results if key in ("", result.key)]
    if not wanted:
        raise UserError(f"{reference}: no such result any more; {name} is now {results[0].reference}")
    return wanted[0]


def find_exactly(reference: str, setting: str) -> Finished:
    """The result that a parameter means.

    Args:
        reference: `name@key`.
        setting: The parameter, for the error.

    Raises:
        UserError: it has no key, or there is no such result.
    """
    finished = find_finished(reference)
    if not split_reference(reference)[1]:
        raise UserError(f"{setting}: {reference!r} must say which result: {finished.reference}")
    return finished


def results_named(name: str) -> list[Finished]:
    """Every result of an experiment, branch or tag, the newest first."""
    return _results(name, _commits_by_name().get(name, []))


def _results(name: str, commits: list[str]) -> list[Finished]:
    return [result for commit in commits if (result := _finished(name, commit))]


def split_reference(reference: str) -> tuple[str, str]:
    """Name and content key; an empty key where there is none."""
    match = RESULT_REFERENCE.fullmatch(reference)
    return (match["name"], match["key"]) if match else (reference, "")


def cached_file(md5: str, what: str) -> Path:
    """A file in DVC's cache.

    Args:
        md5: As dvc.lock tells it.
        what: The file in words, for the error.

    Raises:
        UserError: it is not there.
    """
    path = _cache_folder() / "files/md5" / md5[:2] / md5[2:]
    if not path.is_file():
        raise UserError(f"{what} is not in DVC's cache ({path}); `dvc pull` it or run the experiment again")
    return path


def is_cached(md5: str) -> bool:
    """Whether a file is in DVC's cache."""
    try:
        return bool(cached_file(md5, "file"))
    except UserError:
        return False


def folders_not_cached() -> list[str]:
    """Folders that the main workspace's dvc.lock names and DVC's cache lacks; none without a whole dvc.lock.

    It was committed without `dvc repro`, or comes from another machine. An experiment in a copy of the
    workspace then breaks off behind a stage that DVC need not run and that reads a file of such a folder:
    it looks the file up in the folder of before.
    """
    path = main_workspace() / "dvc.lock"
    try:
        lock = parse_lock(path.read_text(encoding="utf-8") if path.is_file() else "", str(path))
    except (UserError, yaml.YAMLError):
        return []
    return [
        name for name, md5 in all_outs(lock).items() if md5.endswith(FOLDER_SUFFIX) and not is_cached(md5)
    ]


def _commits_by_name() -> dict[str, list[str]]:
    """Commits of every experiment, branch and tag, the newest of a name first."""
    # %(*objectname) is the commit behind an annotated tag, and empty otherwise
    form = "--format=%(refname) %(objectname) %(*objectname)"
    refs = git_if_any("for-each-ref", "--sort=-creatordate", form, folder=main_workspace())
    commits: dict[str, list[str]] = {}
    for line in refs.splitlines():
        ref, *objects = line.split()
        if match := NAMED.fullmatch(ref):
            commits.setdefault(match["name"], []).append(objects[-1])
    return commits


def _finished(name: str, commit: str) -> Finished | None:
    text = text_at(commit, "dvc.lock", main_workspace())
    try:
        lock = parse_lock(text, name)
    except UserError:
        return None
    outs = all_outs(lock)
    if SUBMISSION not in outs or OUT_OF_FOLD not in outs:
        return None
    return Finished(name, content_key(lock), outs, commit, lock)


def _cache_folder() -> Path:
    """`cache.dir` of the main workspace, else DVC's default; relative paths count from .dvc, as in DVC."""
    folder = main_workspace() / ".dvc"
    config = ConfigParser(strict=False, interpolation=None)
    config.read([folder / "config", folder / "config.local"], encoding="utf-8")
    return folder / config.get("cache", "dir", fallback="cache").strip("\"'")
