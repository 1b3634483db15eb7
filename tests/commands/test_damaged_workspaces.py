"""Whole commands, run in a workspace of which one file is damaged: they work, or end in a sentence."""

import shutil
from pathlib import Path
from random import Random

import pytest

from callboard.cli import dispatch
from callboard.core.errors import UserError
from callboard.results.dvc_lock import all_outs, parse_lock
from callboard.results.result import CLIPS, OUT_OF_FOLD, SUBMISSION
from tests.analysis.test_doctor import in_order, stand_in, two_experiments
from tests.damage import DAMAGES
from tests.results.test_sync import ref_of
from tests.toy_git import ToyRepository

__all__ = ["in_order", "two_experiments"]

COMMANDS = {
    "board": ["board"],
    "show": ["show", "second"],
    "diff": ["diff", "first", "second"],
    "doctor": ["doctor"],
    "sync": ["sync"],
    "lb": ["lb", "add", "second", "--public", "0.5"],
}

FILES = (
    "params.yaml",
    "dvc.lock",
    "leaderboard.csv",
    "mlflow.db",
    ".dvc/config",
    CLIPS,
    OUT_OF_FOLD,
    SUBMISSION,
)

N_DAMAGES = 6
"""Times that each file is damaged."""


def place_of(name: str, toy: ToyRepository) -> Path:
    """The file itself, or the one in DVC's cache of an output of the second result."""
    outs = all_outs(parse_lock(toy.git("show", f"{ref_of(toy, 'second')}:dvc.lock"), "second"))
    md5 = outs.get(name, "")
    return toy.root / (f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}" if md5 else name)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_a_damaged_workspace_works_or_ends_in_a_sentence(
    command: str, in_order: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = []
    for name in FILES:
        toy = in_order.copied(tmp_path / name.replace("/", "-"))
        with monkeypatch.context() as patch:
            stand_in(toy, patch)
            path = place_of(name, toy)
            sound = path.read_bytes() if path.exists() else b"submission_md5,public,private,date,note\n"
            for number in range(N_DAMAGES):
                rng = Random(f"{command} {name} {number}")
                kind = rng.choice(list(DAMAGES))
                path.write_bytes(DAMAGES[kind](sound, rng))
                try:
                    dispatch(COMMANDS[command])
                except (UserError, SystemExit):
                    continue
                except Exception as error:
                    broken.append(f"{name}, {kind} {number}: {error!r}")
        shutil.rmtree(toy.root)
    assert broken == []
