"""Checks of `callboard doctor` that compare content: results, runs, scores, tables and teachers."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from callboard.analysis.doctor.findings import SYNC, Finding, State
from callboard.core.console import counted, first_few
from callboard.core.errors import UserError
from callboard.core.json_cache import JsonCache
from callboard.params.base import parse_tree
from callboard.params.defaults import with_defaults
from callboard.pseudo.provenance import first_of, read_lineage
from callboard.results.committed import params_of
from callboard.results.dvc_cache import MAKE_FOLDERS, cached_file, folders_not_cached, is_cached
from callboard.results.dvc_lock import Lock, all_outs, content_key
from callboard.results.git import text_at
from callboard.results.git_errors import GitError
from callboard.results.leaderboard import LEDGER, read_ledger
from callboard.results.mlflow.record import SUBMISSION_MD5
from callboard.results.mlflow.sync import read_committed
from callboard.results.refs import experiment_ref
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION, ResultRef


def unreadable_commits(state: State) -> Iterator[Finding]:
    """Find a dvc.lock that is not YAML, such as one with the marks of a merge."""
    _ = state.results
    for text in state.unreadable:
        yield Finding(
            text, "mend dvc.lock there (a merge left in the middle?) and commit it", loses_results=True
        )


def results_without_run(state: State) -> Iterator[Finding]:
    """Find finished results that the board lacks, and those that it cannot have."""
    missing = []
    for key, refs in state.results.items():
        if key in state.known() and state.known()[key].is_finished:
            continue
        try:
            read_committed(refs, state.files)
            missing.append(refs[0].reference)
        except GitError:
            raise
        except UserError as error:
            todo = "`dvc exp remove {name}`" if refs[0].kind == "experiment" else "mend and commit that file"
            yield Finding(
                str(error), f"{todo.format(name=refs[0].name)}, and run it again", loses_results=True
            )
    if missing and isinstance(state.runs, dict):
        what = (
            f"{counted(len(missing), 'result')} in git without a finished run in MLflow: {first_few(missing)}"
        )
        yield Finding(what, SYNC, loses_results=True)


def runs_without_result(state: State) -> Iterator[Finding]:
    """Find runs of experiments that were removed, or of a `dvc repro` that was not committed."""
    gone = [run.name for key, run in state.known().items() if key not in state.results]
    if gone:
        what = f"{counted(len(gone), 'run')} in MLflow whose result has no name in git: {first_few(gone)}"
        yield Finding(
            what,
            "commit dvc.lock, metrics and plots to keep a result of `dvc repro`; other runs can stay",
        )


def poisoned_results(state: State) -> Iterator[Finding]:
    """Find results whose dvc.lock contradicts the parameters or metrics in the same commit.

    `dvc exp save` or `dvc commit -f` after an edit of params.yaml leave such a result, and DVC's run-cache
    then gives the wrong outputs to every later run with those parameters.
    """
    memory = JsonCache("poisoned", __name__)
    for ref, *_ in state.results.values():
        blob, params = (state.files.blob(ref.commit, name) for name in ("dvc.lock", "params.yaml"))
        if not blob or not params:
            continue
        key, lock = f"{blob.sha} {params.sha}", state.lock_of(ref)
        if key not in memory:
            memory[key] = _wrong_params(lock, params.text)
        wrong = memory[key] or _wrong_metrics(state, ref.commit, lock)
        if wrong:
            todo = "dvc exp run --force with these parameters, then remove this one: the run-cache has it too"
            yield Finding(f"{ref}: poisoned, {wrong}", todo, loses_results=True)
    memory.save()


def ledger_rows(state: State) -> Iterator[Finding]:
    """Find rows that only this clone has, and rows that belong to no run."""
    path = state.folder / LEDGER
    try:
        ledger = read_ledger(path)
    except UserError as error:
        todo = f"`git checkout HEAD -- {LEDGER}` (known scores come back with the next one), or mend the row"
        yield Finding(str(error), todo, loses_results=True)
        return
    committed = set(text_at("HEAD", LEDGER, state.folder).splitlines())
    fresh = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line not in committed]
    if fresh:
        what = f"{LEDGER}: {counted(len(fresh), 'row')} not committed, so no other clone has it"
        yield Finding(what, f"`git commit {LEDGER} -m 'Leaderboard scores'`")
    here = {run.tags.get(SUBMISSION_MD5) for run in state.known().values()}
    if isinstance(state.runs, dict) and (strange := [md5 for md5 in ledger if md5 not in here]):
        what = f"{LEDGER}: {counted(len(strange), 'submission')} that no run has: {first_few(strange)}"
        yield Finding(what, f"{SYNC}, or fetch the experiments (`dvc exp pull`); else the row's md5 is wrong")


def doubled_names(state: State) -> Iterator[Finding]:
    """Find one name for several results: commands that take a name then use the newest."""
    named: dict[str, list[ResultRef]] = defaultdict(list)
    for ref in (ref for refs in state.results.values() for ref in refs if ref.kind == "experiment"):
        named[ref.name].append(ref)
    if doubled := sorted(name for name, refs in named.items() if len({ref.key for ref in refs}) > 1):
        what = f"{counted(len(doubled), 'experiment name')} with several results: {first_few(doubled)}"
        oldest = min(named[doubled[0]], key=lambda ref: ref.time_ms)
        old = experiment_ref(oldest.baseline, oldest.name)  # DVC asks which one
        rename = f"`git update-ref {old}-older {old} && git update-ref -d {old}` renames the oldest"
        yield Finding(what, f"use name@key for an older one; {rename}")


def missing_tables(state: State) -> Iterator[Finding]:
    """Find missing tables that intervals and differences need, which DVC's cache no longer has."""
    lost = []
    for ref, *_ in state.results.values():
        outs = all_outs(state.lock_of(ref))
        if not all(is_cached(outs.get(path, "")) for path in (CLIPS, OUT_OF_FOLD, SUBMISSION)):
            lost.append(ref.name)
    if lost:
        results = counted(len(lost), "result")
        what = f"{results} with tables that DVC's cache lacks, hence no intervals: {first_few(lost)}"
        yield Finding(what, "`dvc pull` or `dvc exp pull`, or run them again", loses_results=True)


def folders_of_elsewhere(state: State) -> Iterator[Finding]:
    """Find a dvc.lock with folders that DVC's cache never had or has lost: experiments fail on them."""
    del state
    if folders := folders_not_cached():
        what = (
            f"dvc.lock names {counted(len(folders), 'folder')} that DVC's cache lacks: {first_few(folders)}; "
            "`dvc exp run --temp` may stop with 'failed to load directory'"
        )
        yield Finding(what, MAKE_FOLDERS)


def _wrong_params(lock: Lock, params: str) -> str:
    """Describe the first parameter in which dvc.lock and params.yaml differ; empty if none does.

    A parameter that either leaves out has its default.
    """
    try:
        tree = with_defaults(parse_tree(params, "params.yaml"))
    except UserError as error:
        return str(error)
    for name, stage in lock.items():
        for key, used in (stage.get("params", {}).get("params.yaml") or {}).items():
            then = _look_up(with_defaults(_nested(key, used)), key)
            if (found := _look_up(tree, key)) != then and _counts(lock, name):
                return f"{name} ran with {key} {used!r} and params.yaml has {found!r}"
    return ""


def _wrong_metrics(state: State, commit: str, lock: Lock) -> str:
    for name, stage in lock.items():
        for out in stage.get("outs", []):
            path = out["path"]
            if path.startswith(("metrics/", "plots/")) and (blob := state.files.blob(commit, path)):
                md5 = hashlib.md5(blob.text.encode(), usedforsecurity=False).hexdigest()
                if md5 != out["md5"] and _counts(lock, name):
                    return f"{path} is not what {name} wrote"
    return ""


def _counts(lock: Lock, stage: str) -> bool:
    """Return whether the result depends on a stage; old stages of a changed matrix stay in dvc.lock."""
    other = {**lock[stage], "params": {"other": "parameters"}}
    return content_key({**lock, stage: other}) != content_key(lock)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Nest a dotted key in sections that contain nothing else."""
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def leaking_teachers(state: State) -> Iterator[Finding]:
    """Find results whose pseudo-labels break what `pseudo.isolation` promises.

    Those with files that DVC's cache lacks are skipped.
    """
    memory = JsonCache("lineage", __name__)
    for ref, *_ in state.results.values():
        outs = all_outs(state.lock_of(ref))
        if not any(path.startswith("pseudo/") for path in outs):
            continue
        key = f"{ref.key} {ref.commit}"
        if key not in memory:
            try:
                memory[key] = _violations(ref, outs)
            except UserError:
                continue
        if violations := memory[key]:
            yield Finding(
                f"{ref}: its CV leaks, {first_of(violations)}",
                f"`callboard audit {ref.name}` lists all; then `dvc exp run --force` with its parameters",
            )
    memory.save()


def _violations(ref: ResultRef, outs: dict[str, str]) -> list[str]:
    params = params_of(ref.commit)

    def open_output(path: str) -> Path:
        if path not in outs:
            raise UserError(f"{path}: is not an output of the result")
        return cached_file(outs[path], path)

    return [violation for one in read_lineage(open_output, outs, params) for violation in one.violations]
