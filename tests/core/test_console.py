import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from callboard.core import console as terminal
from callboard.core.errors import UserError


def test_progress_yields_every_item_and_is_silent_when_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(terminal.progress("abc", total=3, label="crop", unit="recordings")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_progress_is_plain_lines_when_not_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate is the mean time per item so far times the items that are left."""
    now = 100.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    for _ in terminal.progress("abcde", total=5, label="crop", unit="recordings"):
        now += 40.0
    assert capsys.readouterr().err.splitlines() == [
        "crop: 1 of 5 recordings, 3 min left",
        "crop: 2 of 5 recordings, 2 min left",
        "crop: 3 of 5 recordings, 80 s left",
        "crop: 4 of 5 recordings, 40 s left",
    ]


def test_progress_shows_what_else_there_is_to_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PLAIN_LINE_EVERY_S", 0.0)
    notes = iter(["", "loss 0.5"])
    list(terminal.progress("abc", total=3, label="train", unit="epochs", note=lambda: next(notes)))
    assert (
        capsys.readouterr().err
        == "train: 1 of 3 epochs, 0 s left\ntrain: 2 of 3 epochs, loss 0.5, 0 s left\n"
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(terminal.progress("ab", total=2, label="train", unit="epochs", note=lambda: "loss 0.25"))
    assert "loss 0.25" in capsys.readouterr().err


def test_progress_is_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(terminal.progress("abc", total=3, label="crop", unit="recordings")) == ["a", "b", "c"]
    assert "crop:   0%" in capsys.readouterr().err


def test_a_stage_has_one_summary_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.summarize("split", "240 recordings", "5 folds")
    line = re.fullmatch(r"split: 240 recordings, 5 folds, peak memory (\d+) MB\n", capsys.readouterr().out)
    assert line
    assert 10 < int(line[1]) < 10_000


def test_the_peak_of_memory_is_that_of_what_was_held() -> None:
    held = b"x" * 700_000_000
    assert terminal.peak_memory_mb() >= len(held) / 1.1e6


def test_a_mistake_of_the_user_is_a_sentence_and_status_one(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("train_tp.csv row 41: t_max 3.2 <= t_min 3.9")

    with pytest.raises(SystemExit) as exit_:
        terminal.run_guarded(main)
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: train_tp.csv row 41: t_max 3.2 <= t_min 3.9\n"


def test_a_file_that_cannot_be_opened_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", ".cache/board.json")

    with pytest.raises(SystemExit) as exit_:
        terminal.run_guarded(main)
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: .cache/board.json: Permission denied\n"


def test_errors_and_warnings_show_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        terminal.warn("https://me:s3cr3t@host is slow")
        raise UserError("http://host/?token=s3cr3t&page=2: not found")

    with pytest.raises(SystemExit):
        terminal.run_guarded(main)
    assert capsys.readouterr().err == (
        "warning: https://host is slow\nerror: http://host/?token=***&page=2: not found\n"
    )


GUARDED = "import sys; from callboard.core.console import run_guarded, say, summarize, warn; "


def guarded(body: str, encoding: str = "utf-8") -> subprocess.Popen[str]:
    """Start a program that runs `body`, an expression, as a command does."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{GUARDED}run_guarded(lambda: {body})"],
        env=os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=encoding,
    )


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "? CV ? ?\n"), ("latin-1", "? CV ± ?\n")])
def test_an_encoding_that_lacks_characters_gets_question_marks(encoding: str, expected: str) -> None:
    done = guarded("(print('Δ CV ± –'), warn('–'))", encoding)
    assert done.communicate() == (expected, "warning: ?\n")
    assert done.returncode == 0


@pytest.mark.parametrize("body", ["print('x' * 10_000_000)", "print('x')", "(print('x'), sys.exit(0))"])
def test_output_that_nobody_reads_ends_a_command_quietly(body: str) -> None:
    done = guarded(body)
    assert done.stdout
    assert done.stderr
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait() == terminal.READER_LEFT


def test_progress_that_nobody_reads_costs_no_work(tmp_path: Path) -> None:
    path = tmp_path / "written"
    done = guarded(f"(warn('x'), summarize('x'), warn('x'), open({str(path)!r}, 'w').close())")
    for stream in (done.stdout, done.stderr):
        assert stream
        stream.close()
    assert done.wait() == 0
    assert path.exists()


@pytest.fixture
def in_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(sys, "argv", ["/bin/callboard", "board", "--cv", "https://me:s3cr3t@host"])
    (tmp_path / "dvc.yaml").touch()
    return tmp_path


def fault() -> None:
    terminal.first_few([3, "https://me:s3cr3t@host"])  # type: ignore[list-item]


FAULT = "error: callboard board: unexpected TypeError: sequence item 0: expected str instance, int found in "


def test_a_fault_of_ours_is_a_sentence_and_its_traceback_is_kept_in_the_workspace(
    in_workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        terminal.run_guarded(fault)
    assert exit_.value.code == 1
    (kept,) = (in_workspace / ".cache/errors").iterdir()
    assert re.fullmatch(r"[\d-]+T\d{6}-callboard-board-\d+\.txt", kept.name)
    error = capsys.readouterr().err
    assert error.startswith(f"{FAULT}core/console.py line ")
    assert error.endswith(f"; the whole traceback is in {kept}; please report it\n")
    text = kept.read_text()
    assert text.startswith("/bin/callboard board --cv https://host\nPython 3.")
    assert "Traceback (most recent call last):" in text
    assert ", in fault\n" in text


def test_only_the_latest_tracebacks_are_kept(in_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_workspace / ".cache/errors"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"2020-01-01T0000{number:02}-train-1.txt").touch()
    with pytest.raises(SystemExit):
        terminal.run_guarded(fault)
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 20
    assert names[0] == "2020-01-01T000011-train-1.txt"
    assert "callboard-board" in names[-1]


def test_outside_a_workspace_or_where_it_cannot_be_written_it_is_among_the_temporary_files(
    in_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_workspace / ".cache").touch()  # no folder can be made in it
    (temporary := in_workspace / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for is_workspace in (True, False):
        if not is_workspace:
            (in_workspace / "dvc.yaml").unlink()
        with pytest.raises(SystemExit):
            terminal.run_guarded(fault)
        (kept,) = temporary.iterdir()
        assert f"the whole traceback is in {kept};" in capsys.readouterr().err
        assert "Traceback" in kept.read_text()
        kept.unlink()


def test_where_nothing_can_be_written_the_traceback_is_printed(
    in_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_workspace / ".cache").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(in_workspace / "nowhere"))
    with pytest.raises(SystemExit):
        terminal.run_guarded(fault)
    error = capsys.readouterr().err
    assert error.startswith(FAULT)
    assert "Traceback (most recent call last):" in error
    assert "s3cr3t" not in error


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(7)])
def test_an_interruption_and_an_exit_stay_as_they_are(in_workspace: Path, signal: BaseException) -> None:
    def main() -> None:
        raise signal

    with pytest.raises(type(signal)) as passed:
        terminal.run_guarded(main)
    assert passed.value is signal
    assert not (in_workspace / ".cache").exists()


def test_a_name_too_long_for_the_disk_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        terminal.run_guarded(lambda: Path("x" * 300).touch())
    assert capsys.readouterr().err == f"error: {'x' * 300}: File name too long\n"


def test_a_stopwatch_counts_seconds_upwards() -> None:
    stopwatch = terminal.Stopwatch()
    first = stopwatch.elapsed_s
    assert 0 <= first <= stopwatch.elapsed_s
