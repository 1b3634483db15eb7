"""Kill `callboard run` at random moments in a workspace with edits, and check that these are left alone.

    python benchmarks/kill_run.py --kills 200

In a finished workspace, whose stages have the names of ours and take no time, params.yaml, README.md and the
index have edits, and there is a new file. Each time, one or two rows start in one of several ways, and the
command's whole process group dies by SIGKILL: half of the times within four seconds, the others before the
time that such a command takes, or all, with `--at-end`, while the experiment is being kept. Once no process
is left, all files, `git status`, the stashes, names and HEAD of git must be as before, apart from finished
experiments, and nothing may be locked. The next command starts in what was left. After every 20th kill one
runs to its end, must succeed and leave no copy of the workspace, and `callboard doctor` must say what it said
at the start.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.kills import command_line
from tests.conftest import ROOT, Workspace
from tests.experiments.test_side_by_side import callboard, processes_in, wait_until

WAYS = {
    "one row": ["exp0058", "--jobs", "1"],
    "two rows": ["exp0058", "exp0059", "--jobs", "2"],
    "forced": ["exp0051", "--force", "--jobs", "1"],
    "queued": ["exp0058", "--queue"],
}
"""Ways to run, as arguments of `callboard run`."""

EARLY_S = 4.0
"""End of the time in which half of the kills fall."""

AT_END_S = 2.0
"""Time in which an experiment is kept."""

LATEST_S = 45.0
"""Latest kill, on a machine that is busy."""

EVERY = 20
"""Number of kills after which a command runs to its end."""

DVC_YAML = """
stages:
  check:
    cmd: mkdir -p .check && grep ^seed params.yaml > .check/seed
    deps: [params.yaml]
    outs: [.check/seed]
  prepare: {cmd: mkdir -p data && cp .check/seed data/source, deps: [.check/seed], outs: [data/source]}
  crop: {cmd: cp data/source data/mel, deps: [data/source], outs: [data/mel]}
  split: {cmd: cp data/mel data/folds, deps: [data/mel], outs: [data/folds]}
  train:
    matrix: {fold: [0, 1]}
    cmd: mkdir -p models && sleep 0.5 && cp data/folds models/${item.fold}
    deps: [data/folds]
    params: [seed]
    outs: ["models/${item.fold}"]
  predict: {cmd: mkdir -p scores && cat models/* > scores/windows, deps: [models], outs: [scores/windows]}
  evaluate:
    cmd: mkdir -p metrics && sleep 0.5 && echo {} > metrics/cv.json && cp scores/windows scores/oof
    deps: [scores/windows]
    params: [evaluate.n_bootstrap]
    outs: [scores/oof]
    metrics: [metrics/cv.json: {cache: false}]
  infer:
    cmd: mkdir -p submission && cp scores/windows submission/all
    deps: [scores/windows]
    outs: [submission/all]
  score:
    cmd: echo {} > metrics/lb.json
    deps: [submission/all]
    metrics: [metrics/lb.json: {cache: false}]
  track:
    cmd: cp metrics/cv.json track.json
    deps: [submission/all, metrics]
    outs: [track.json: {cache: false}]
"""
"""Stages with the names of ours."""

DVC_S_OWN = ("refs/exps/exec", "refs/exps/stash", "refs/exps/temp")
"""Beginnings of names that DVC has while it runs an experiment."""

State = dict[str, str]
"""What a kill must leave as it was, by its name."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of ways and moments; default %(default)s")
    parser.add_argument("--at-end", action="store_true", help="kill while the experiment is being kept")
    args = parser.parse_args()
    chance, counts = random.Random(args.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        workspace = edited_workspace(Path(folder, "workspace"))
        told = findings(workspace)
        longest = {way: completed(workspace, way, 0) for way in WAYS}
        print(", ".join(f"{way}: {seconds:.0f} s" for way, seconds in longest.items()), flush=True)
        before = state_of(workspace)
        for number in range(1, args.kills + 1):
            way = chance.choice(list(WAYS))
            latest = max(min(longest[way], LATEST_S), EARLY_S)
            span = (0, EARLY_S) if chance.random() < 0.5 else (EARLY_S, latest)
            moment = chance.uniform(*((0, AT_END_S) if args.at_end else span))
            has_ended = kill_after(workspace, way, number, moment, "jobs.keep" if args.at_end else "")
            wait_until(lambda: not processes_in(workspace.root), "processes left", limit_s=60)
            problems = changes(before, state_of(workspace))
            if number % EVERY == 0:
                completed(workspace, way, number + args.kills)
                problems += changes(before, state_of(workspace))
                problems += [f"copy left: {path}" for path in workspace.root.glob(".dvc/tmp/copies/*")]
                if (found := findings(workspace)) != told:
                    problems.append(f"doctor: {found}")
            counts["had ended" if has_ended else "killed"] += 1
            counts["wrong"] += bool(problems)
            print(f"{number}: {way} after {moment:.1f} s: {'; '.join(problems) or 'as before'}", flush=True)
            before = state_of(workspace)
    print(f"{counts['killed']} killed, {counts['had ended']} had ended, {counts['wrong']} wrong")
    sys.exit(counts["wrong"] > 0)


def edited_workspace(root: Path) -> Workspace:
    """Make a finished workspace with edits, staged and not, and a file that git does not track."""
    (root / ".dvc").mkdir(parents=True)
    workspace = Workspace(root)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore", "experiments.yaml", "README.md"):
        workspace.write(name, (ROOT / name).read_text(encoding="utf-8"))
    workspace.write("params.yaml", (ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
    workspace.write("dvc.yaml", DVC_YAML)
    workspace.git("init", "--quiet")
    workspace.commit()
    workspace.dvc("repro")
    workspace.commit()
    workspace.write("README.md", f"{workspace.read('README.md')}\nstaged\n")
    workspace.git("add", "README.md")
    workspace.write("README.md", f"{workspace.read('README.md')}\nnot staged\n")
    workspace.write("params.yaml", f"{workspace.read('params.yaml')}\n# a note of the user\n")
    workspace.write("notes.txt", "not tracked\n")
    return workspace


def arguments(way: str, number: int) -> list[str]:
    """Return arguments of a command that has not run yet; every second one trains."""
    setting = f"seed={number}" if number % 2 else f"evaluate.n_bootstrap={100 + number}"
    return callboard("run", *WAYS[way], "-S", setting)


def kill_after(workspace: Workspace, way: str, number: int, moment: float, first: str) -> bool:
    """Start a command and kill its process group; return whether it had ended before.

    Args:
        workspace: The workspace.
        way: One of `WAYS`.
        number: Of the kill.
        moment: Seconds after the start, or after a process whose command line has `first` began.
        first: Empty, or part of a command line.
    """
    forget_experiments(workspace)
    running = subprocess.Popen(
        arguments(way, number),
        cwd=workspace.root,
        env=workspace.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while first and running.poll() is None and not any(map(first.__contains__, commands_in(workspace))):
        time.sleep(0.02)
    time.sleep(moment)
    has_ended = running.poll() is not None
    if not has_ended:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return has_ended


def commands_in(workspace: Workspace) -> list[str]:
    """Return the command lines of processes in the workspace or its copies."""
    return [command_line(pid) for pid in processes_in(workspace.root)]


def completed(workspace: Workspace, way: str, number: int) -> float:
    """Run a command to its end; return the seconds."""
    forget_experiments(workspace)
    start = time.monotonic()
    done = workspace.command(*arguments(way, number))
    if done.returncode:
        sys.exit(f"{way}: exit status {done.returncode}\n{done.stdout[-3000:]}")
    return time.monotonic() - start


def forget_experiments(workspace: Workspace) -> None:
    """Remove experiments, whose names the next command needs."""
    for ref in workspace.git("for-each-ref", "--format=%(refname)", "refs/exps").split():
        if not ref.startswith("refs/exps/celery"):
            workspace.git("update-ref", "-d", ref)


def state_of(workspace: Workspace) -> State:
    """Return what a kill must not change, and locks."""
    listed = workspace.git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = {name: workspace.root / name for name in set(listed.split("\0")) if name}
    state = {
        name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for name, path in files.items()
        if path.is_file()
    }
    refs = workspace.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    locks = [*workspace.root.glob(".git/**/*.lock"), *workspace.root.glob(".git/index.*")]
    return state | {
        "git status": workspace.git("--no-optional-locks", "status", "--porcelain=v2", "--branch"),
        "staged": workspace.git("diff", "--cached"),
        "stashes": workspace.git("stash", "list"),
        "names": "\n".join(ref for ref in refs if not ref.startswith("refs/exps/")),
        "names of DVC": "\n".join(ref for ref in refs if ref.startswith(DVC_S_OWN)),
        "locks": " ".join(map(str, locks)),
    }


def changes(before: State, after: State) -> list[str]:
    """Return what differs, in words."""
    names = [name for name in before | after if before.get(name) != after.get(name)]
    return [f"{name} changed" + (f": {after[name]}" if name == "locks" else "") for name in names]


def findings(workspace: Workspace) -> str:
    """Return what doctor finds, without remarks on results that come and go."""
    lines = workspace.command(*callboard("doctor")).stdout.splitlines()
    words = ("result", "run", "queue", "→")
    return "\n".join(line for line in lines if not any(word in line for word in words))


if __name__ == "__main__":
    main()
