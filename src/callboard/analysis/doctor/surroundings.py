"""Checks of the environment: variables, DVC's set-up, databases, the device."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from callboard.analysis.doctor.findings import SYNC, Finding, State
from callboard.core.console import counted, first_few
from callboard.core.errors import UserError, one_line
from callboard.core.threads import VARIABLE, n_workers
from callboard.results.dvc_cache import dvc_config
from callboard.results.git import git
from callboard.results.mlflow.connection import (
    DELETED,
    NEWER,
    SQLITE,
    DeletedExperimentError,
    NewerDatabaseError,
    TrackingError,
    without_credentials,
)
from callboard.results.mlflow.record import RESULT
from callboard.results.stored_runs import read_by_client

UNWANTED_VARIABLES: dict[str, tuple[str, str]] = {
    "MLFLOW_RUN_ID": ("MLflow's own commands would write into that run", "`unset MLFLOW_RUN_ID`"),
    "DVC_ROOT": (
        "DVC sets it for its stages; set by hand, results go to that folder",
        "`unset DVC_ROOT`",
    ),
    "PYTHONDONTWRITEBYTECODE": (
        "every stage compiles all of its imports again, about a second each time",
        "`unset PYTHONDONTWRITEBYTECODE`",
    ),
}
"""Variables that should not be set: why, and what to do."""


def variables(state: State) -> Iterator[Finding]:
    """Find environment variables that change where results go, or slow everything down."""
    for name, (why, todo) in UNWANTED_VARIABLES.items():
        if value := state.environment.get(name):
            yield Finding(f"{name} is set ({value}): {why}", todo)


def machine(state: State) -> Iterator[Finding]:
    """Find a CALLBOARD_DEVICE or CALLBOARD_WORKERS that every stage would refuse."""
    from callboard.model.device import pick_device

    del state
    for name, ask in (("CALLBOARD_DEVICE", pick_device), (VARIABLE, n_workers)):
        try:
            ask()
        except UserError as error:
            yield Finding(str(error), f"`unset {name}`, or export a valid value")


def tracking_address(state: State) -> Iterator[Finding]:
    """Find an MLFLOW_TRACKING_URI relative to the current folder, or of a store that MLflow abandoned."""
    uri = state.environment.get("MLFLOW_TRACKING_URI", "")
    shown = without_credentials(uri, uri)
    todo = (
        f"`unset MLFLOW_TRACKING_URI`, or `export MLFLOW_TRACKING_URI={SQLITE}{state.folder / 'mlflow.db'}`"
    )
    if uri.startswith(SQLITE) and not uri.removeprefix(SQLITE).startswith("/"):
        what = f"MLFLOW_TRACKING_URI {shown} is relative: `mlflow` itself takes it from the current folder"
        yield Finding(what, todo)
    elif uri.startswith("file:") or (uri and "://" not in uri):
        what = f"MLFLOW_TRACKING_URI {shown} is a folder of files, which MLflow refuses since 3.13"
        yield Finding(what, todo, loses_results=True)


def stray_databases(state: State) -> Iterator[Finding]:
    """Find databases created in other folders: MLflow's default is relative to the current one."""
    places = (
        f"{pattern}/{name}" for pattern in ("*", ".dvc/tmp/exps/**") for name in ("mlflow.db", "mlruns")
    )
    own = state.database
    found = [path for place in places for path in state.folder.glob(place) if path != own]
    if found:
        names = [str(path.relative_to(state.folder)) for path in found]
        what = f"MLflow data that no command here reads: {first_few(names)}"
        yield Finding(what, f"look at it, then `rm -r {shlex.join(names)}`")


def untracked_code(state: State) -> Iterator[Finding]:
    """Find code files that an experiment in a temporary copy of the workspace will lack."""
    found = git("ls-files", "--others", "--exclude-standard", "--", "src", "stages", folder=state.folder)
    if code := [name for name in found.splitlines() if name.endswith(".py")]:
        what = f"{counted(len(code), 'file')} of code that git does not track: {first_few(code)}"
        todo = f"`git add {shlex.join(code)}`, or queued and --temp experiments run without them"
        yield Finding(what, todo)


def dvc_set_up(state: State) -> Iterator[Finding]:
    """Find settings of DVC that rewrite params.yaml or double the disk space of a result."""
    config = dvc_config(state.folder)
    if config.get("hydra", "enabled", fallback="").strip().lower() == "true":
        what = "DVC's hydra.enabled: every `dvc exp run` rewrites params.yaml without its comments"
        yield Finding(what, "`dvc config hydra.enabled false`", loses_results=True)
    types = config.get("cache", "type", fallback="reflink,copy").strip("\"' ")
    if not {"hardlink", "symlink"} & set(types.replace(" ", "").split(",")):
        what = f"DVC's cache.type is {types}: without reflinks every file is on the disk twice"
        yield Finding(what, "`dvc config cache.type reflink,hardlink,symlink,copy`")


def device_in_use() -> str:
    """Describe the device that training would use, and its number of threads."""
    import torch

    from callboard.model.device import describe_device, pick_device

    try:
        device = describe_device(pick_device())
    except UserError:
        return "none, see above"
    return f"{device}, {counted(torch.get_num_threads(), 'thread')}"


def database(state: State) -> Iterator[Finding]:
    """Check that MLflow's SQLite file exists and the installed MLflow can use it, or its server answers.

    Before the first result there is no file.
    """
    path = state.database
    if isinstance(state.runs, DeletedExperimentError):
        yield Finding(f"{DELETED}, so the board is empty", f"{SYNC} (restores it with its runs)", True)
        return
    if path is None:
        if isinstance(state.runs, TrackingError):
            yield Finding(f"MLflow's server does not answer: {state.runs}", f"start it, then {SYNC}", True)
        return
    if not path.is_file() and not state.results and not (state.folder / "dvc.lock").exists():
        yield Finding("nothing has run yet", "`dvc repro` (makes the first result)")
        return
    if not path.is_file():
        yield Finding(f"{path}: no MLflow database", f"{SYNC} (writes it from git)", loses_results=True)
        return
    if refusal := _refusal_of_mlflow(path):
        is_newer = isinstance(refusal, NewerDatabaseError)
        first = "install that version" if is_newer else "do as MLflow says"
        todo = f"{first}, or `mv {path} {path}.old`, then {SYNC} (what was typed into MLflow's pages is lost)"
        yield Finding(f"{path}: MLflow cannot use it: {NEWER if is_newer else refusal}", todo, True)


def _refusal_of_mlflow(database: Path) -> TrackingError | None:
    """Return why MLflow cannot use a database, tried on a copy, whose tables it may migrate."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        uri = f"{SQLITE}{folder}/mlflow.db"
        try:
            shutil.copy(database, Path(folder) / "mlflow.db")
            read_by_client(uri, RESULT)
        except NewerDatabaseError as error:
            return error
        except (OSError, TrackingError) as error:
            return TrackingError(one_line(error).removeprefix(f"{uri}: "))
    return None
