import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from callboard import cli
from callboard.core.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that the commands look at, as the current folder."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(["--help"])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "dvc exp run" in printed
    listed = re.findall(r"^  ([a-z]+)  +[a-zM]", printed, re.MULTILINE)
    files = {path.stem for path in (ROOT / "src/callboard/commands").glob("[a-z]*.py")}
    assert sorted(listed) == sorted(files - {"arguments", "author"} | {"import"})


def test_help_has_each_heading_above_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.dispatch(["--help"])
    printed = capsys.readouterr().out
    places = [
        printed.index(text)
        for text in ("\nlook at results:\n", "\n  board ", "\nleaderboard scores:\n", "\n  lb ")
    ]
    assert places == sorted(places)


def test_help_of_a_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.dispatch(["doctor", "--help"])
    assert "what is missing" in capsys.readouterr().out


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every parser below a parser, also those of `callboard lb`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one
                yield from subcommands(one)


def examples_of(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Words of the command lines in an `examples:` paragraph of a help text, without their meaning."""
    _, _, lines = (parser.epilog or "").partition("examples:\n")
    examples = [line.strip() for line in lines.partition("\n\n")[0].splitlines()]
    assert all(re.search(r"\S  +# \S", line) for line in examples), f"{parser.prog}: what does it show?"
    return [shlex.split(line, comments=True) for line in examples]


@pytest.mark.parametrize("parser", list(subcommands(cli.build_parser())), ids=lambda parser: parser.prog)
def test_help_of_each_command_ends_in_examples_that_it_accepts(parser: argparse.ArgumentParser) -> None:
    assert 1 <= len(examples_of(parser)) <= 3
    for words in examples_of(parser):
        assert " ".join(words).startswith(parser.prog), words
        if "--help" not in words:
            command = cli.build_parser().parse_args(words[1:]).command
            assert isinstance(command, FunctionType)
            assert command in {one.get_default("command") for one in (parser, *subcommands(parser))}


def test_help_of_each_argument_says_what_it_is() -> None:
    for parser in subcommands(cli.build_parser()):
        arguments = [one for one in parser._actions if not isinstance(one, argparse._SubParsersAction)]
        assert all(one.help for one in arguments), parser.prog


def test_examples_of_the_whole_are_of_dvc_and_of_commands() -> None:
    for words in examples_of(cli.build_parser()):
        assert words[0] in ("dvc", "callboard")
        if words[0] == "callboard":
            cli.build_parser().parse_args(words[1:])


@pytest.mark.parametrize("argv", [[], ["bord"], ["board", "--csv"]])
def test_a_command_that_does_not_exist_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(argv)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        ("board --best 0", "of at least 1"),
        ("report --worst 0", "of at least 1"),
        ("suspects --top -3", "of at least 1"),
        ("noise exp0051 --seeds 1", "from 2 to 100"),
        ("noise exp0051 --seeds 101", "from 2 to 100"),
        ("run exp0051 --seed -1", "from 0 to 4294967295"),
        ("run exp0051 --seed 4294967296", "from 0 to 4294967295"),
        ("adversarial --folds 1", "of at least 2"),
        ("adversarial --repeats 0", "of at least 1"),
        ("adversarial --seed 1.5", "from 0 to 4294967295"),
        ("ui --port 70000", "from 1 to 65535"),
    ],
)
def test_a_number_out_of_range_is_refused_by_the_parser(
    words: str, limits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.dispatch(words.split())
    assert exit_.value.code == 2
    *_, option, value = words.split()
    assert f"argument {option}: '{value}' must be a whole number {limits}" in capsys.readouterr().err


def test_outside_a_workspace_one_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no dvc\.yaml in .* or above; run callboard inside a workspace"):
        cli.dispatch(["board"])


def test_a_board_before_the_first_result_says_how_to_make_one(project: Path) -> None:
    with pytest.raises(
        UserError, match=r"no results yet: .*mlflow\.db does not exist; `dvc repro` makes the first"
    ):
        cli.dispatch(["board"])
    assert not (project / "mlflow.db").exists()


def test_commands_work_from_a_folder_inside_the_workspace(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project / "src/callboard")
    with pytest.raises(UserError, match="no results yet"):
        cli.dispatch(["board"])


def test_a_mistake_ends_with_status_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["callboard", "board"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: no dvc.yaml")


def test_ctrl_c_ends_a_command_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dispatch", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, callboard.cli; print({'mlflow', 'pandas', 'torch'} & set(sys.modules))"
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT / "src")}
    assert (
        subprocess.run(command, env=environment, capture_output=True, check=True).stdout.strip() == b"set()"
    )
