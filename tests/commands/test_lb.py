import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.results.leaderboard import LeaderboardEntry, current
from callboard.results.mlflow.track import record
from callboard.results.result import SUBMISSION
from callboard.results.submissions import find_submission
from tests.toy_git import ToyRepository
from tests.toy_results import result_in, runs, workspace  # noqa: F401

HEADER = "submission_md5,key,public,private,date,note\n"
MD5 = "ab" * 16
OTHER_MD5 = "cd" * 16
SCORES = b"recording_id,s0\nr1,0.1\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    repository = ToyRepository(tmp_path / "main")
    (repository.root / "dvc.yaml").write_text("stages: {}\n")
    (repository.root / "leaderboard.csv").write_text(HEADER)
    (repository.root / ".gitignore").write_text("/.dvc\n/.cache\n")
    repository.baseline = repository.commit()
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "toy")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "toy@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.chdir(repository.root)
    return repository


def lb(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.dispatch(["lb", *arguments])
    return capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines of the table, without the blanks that align it."""
    return [re.sub(" +", " ", line) for line in lb(capsys, "list", *arguments).splitlines()]


def rows(repository: ToyRepository) -> list[str]:
    return (repository.root / "leaderboard.csv").read_text().splitlines()[1:]


def test_a_score_is_added_and_only_its_file_is_committed(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("exp0021", {SUBMISSION: MD5})
    key = find_submission("exp0021").key
    (repository.root / "staged").write_text("x")
    repository.git("add", "staged")
    (repository.root / "params.yaml").write_text("seed: 3\n")
    printed = lb(capsys, "add", "exp0021", "--public", "0.951", "--date", "2020-11-20", "--note", "by\nhand")
    assert printed == "lb: exp0021: public 0.951: added to leaderboard.csv, committed leaderboard.csv\n"
    assert rows(repository) == [f"{MD5},{key},0.951,,2020-11-20,by hand"]
    assert (
        repository.git("show", "--name-only", "--format=%s")
        == "LB of exp0021: public 0.951\n\nleaderboard.csv"
    )
    assert repository.git("status", "--porcelain").split("\n") == ["M params.yaml", "A  staged"]


def test_the_very_same_score_is_already_there(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    lb(capsys, "add", MD5, "--public", "0.951", "--private", "0.9")
    before = repository.git("rev-parse", "HEAD"), rows(repository)
    assert "already in leaderboard.csv" in lb(capsys, "add", MD5, "--public", "0.9510")
    assert (repository.git("rev-parse", "HEAD"), rows(repository)) == before
    lb(capsys, "add", MD5, "--public", "0.95")
    lb(capsys, "add", MD5, "--public", "0.951")  # the correction was wrong
    assert [row.split(",")[2] for row in rows(repository)] == ["0.951", "0.95", "0.951"]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("83.1", r"--public 83\.1 must be between 0 and 1; 83\.1 % is 0\.831"),
        ("-0.1", r"--public -0\.1 must be between 0 and 1"),
        ("high", "--public 'high' is not a number"),
    ],
)
def test_a_score_that_is_none_is_refused(repository: ToyRepository, score: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cli.dispatch(["lb", "add", MD5, f"--public={score}"])
    assert rows(repository) == []


@pytest.mark.parametrize("arguments", [["params.yaml"], [MD5, "--file", "params.yaml"]])
def test_a_file_that_is_no_submission_is_refused(repository: ToyRepository, arguments: list[str]) -> None:
    message = r"params\.yaml: not a submission, the first column is 'loss:', must be recording_id"
    with pytest.raises(UserError, match=message):
        cli.dispatch(["lb", "add", *arguments, "--public", "0.5"])
    assert rows(repository) == []


def test_a_result_without_a_submission_gets_no_row(repository: ToyRepository) -> None:
    repository.experiment("exp0021", {SUBMISSION: ""})
    with pytest.raises(UserError, match=r"leaderboard\.csv: result \w{16} has no submission"):
        cli.dispatch(["lb", "add", "exp0021", "--public", "0.5"])
    assert rows(repository) == []


@pytest.mark.slow
def test_processes_that_add_at_once_lose_no_row(repository: ToyRepository) -> None:
    start = [sys.executable, "-c", "from callboard.cli import main; main()", "lb", "add"]
    md5s = [f"{number:032x}" for number in range(5)]
    processes = [
        subprocess.Popen(
            [*start, md5, "--public", "0.5"],
            env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for md5 in md5s
    ]
    printed = [process.communicate()[0].decode() for process in processes]
    assert all("committed leaderboard.csv" in text and "warning" not in text for text in printed), printed
    assert sorted(row.split(",")[0] for row in rows(repository)) == md5s
    assert repository.git("rev-list", "--count", f"{repository.baseline}..HEAD") == "5"


def test_a_score_that_no_branch_has_is_told_how_to_be_kept(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.git("checkout", "--quiet", "--detach")
    cli.dispatch(["lb", "add", MD5, "--public", "0.5"])
    told = re.search(r"HEAD is detached, .*, run git (cherry-pick \w+)", capsys.readouterr().err)
    assert told
    repository.git("checkout", "--quiet", "main")
    assert rows(repository) == []
    repository.git(*told[1].split())
    assert len(rows(repository)) == 1
    cli.dispatch(["lb", "add", MD5, "--public", "0.6"])
    assert "no branch" not in capsys.readouterr().err


def test_without_a_score_there_is_nothing_to_add(repository: ToyRepository) -> None:
    with pytest.raises(UserError, match="no score; give --public SCORE"):
        cli.dispatch(["lb", "add", MD5])


def test_a_submission_has_many_names(repository: ToyRepository, capsys: pytest.CaptureFixture[str]) -> None:
    md5 = repository.cache(SCORES)
    repository.experiment("exp0021", {SUBMISSION: md5})
    key = find_submission("exp0021").key
    (repository.root / "folder").mkdir()
    (repository.root / "folder/sub.csv").write_bytes(SCORES)
    for what in (
        "exp0021",
        f"exp0021@{key}",
        f"exp0021@{key[:4]}",
        key,
        key[:4],
        md5,
        md5[:4],
        "folder/sub.csv",
    ):
        assert find_submission(what).md5 == md5, what
        assert find_submission(what).key == key, what
        assert find_submission(what).name == "exp0021", what


def test_a_file_is_named_from_where_one_stands(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.root / "folder").mkdir()
    (repository.root / "folder/sub.csv").write_bytes(SCORES)
    monkeypatch.chdir(repository.root / "folder")
    printed = lb(capsys, "add", "sub.csv", "--public", "0.5")
    assert "no known result has this submission yet; the score will be linked once one does" in printed
    assert "| no known result | 0.5 | – |" in listed(capsys)[-1]


def test_what_begins_two_hashes_is_refused_and_what_begins_none_too(repository: ToyRepository) -> None:
    repository.experiment("a", {SUBMISSION: MD5})
    repository.experiment("b", {SUBMISSION: "abababab" + "0" * 24})
    with pytest.raises(UserError, match=r"several keys or md5s start with ababab: . \(.*, . \("):
        find_submission("ababab")
    assert find_submission("abababab0").names == ("b",)
    with pytest.raises(
        UserError, match=r"no result is called 'fedcba'; .*; nor is it a file or a submission's md5"
    ):
        find_submission("fedcba")


def test_another_file_of_a_run_has_a_row_of_its_own(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("exp0021", {SUBMISSION: MD5})
    (repository.root / "better.csv").write_text("recording_id,s0\nr1,0.5\n")
    lb(capsys, "add", "exp0021", "--public", "0.9")
    printed = lb(capsys, "add", "exp0021", "--file", "better.csv", "--public", "0.92")
    assert "lb: exp0021, another file (" in printed
    own, other = listed(capsys)[2:]
    assert "| abababab | exp0021 | 0.9 |" in own
    assert "| exp0021, another file | 0.92 |" in other


def test_the_list_shows_the_last_word_and_all_on_request(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no scores yet; `callboard lb add" in lb(capsys, "list")
    lb(capsys, "add", MD5, "--public", "0.8", "--private", "0.7", "--note", "a|b")
    lb(capsys, "add", OTHER_MD5, "--public", "0.6")
    lb(capsys, "add", MD5, "--public", "0.79")
    shown = [line.split(" | ")[1:] for line in listed(capsys)[2:]]
    assert shown == [
        ["cdcdcdcd", "no known result", "0.6", "–", "|"],
        ["abababab", "no known result", "0.79", "0.7", "a\\|b |"],
    ]
    assert len(lb(capsys, "list", "--all").splitlines()) == 2 + 3


def test_current_keeps_what_a_later_row_does_not_say() -> None:
    first = LeaderboardEntry("aa", "k", 0.8, 0.7, "2020-01-01", "note")
    assert current(
        [first, LeaderboardEntry("bb", public=0.1), LeaderboardEntry("aa", public=0.9, date="2020-01-02")]
    ) == [
        LeaderboardEntry("bb", public=0.1),
        LeaderboardEntry("aa", "k", 0.9, 0.7, "2020-01-02", "note"),
    ]


def test_a_hook_that_refuses_leaves_the_row_and_says_so(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = repository.root / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'error: no commits on Sundays' >&2\nexit 1\n")
    hook.chmod(0o755)
    told = rf"leaderboard\.csv is written but not committed: git commit in {repository.root}: "
    with pytest.raises(
        UserError, match=f"{told}error: no commits on Sundays; once that is fixed, run git com"
    ):
        cli.dispatch(["lb", "add", MD5, "--public", "0.5"])
    assert "committed" not in capsys.readouterr().out
    assert len(rows(repository)) == 1
    hook.unlink()
    assert "already in leaderboard.csv, committed leaderboard.csv" in lb(
        capsys, "add", MD5, "--public", "0.5"
    )
    assert repository.git("status", "--porcelain") == ""


def test_outside_git_the_row_stays_and_the_danger_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    cli.dispatch(["lb", "add", MD5, "--public", "0.5"])
    assert "is not in a git repository" in capsys.readouterr().err
    assert (tmp_path / "leaderboard.csv").read_text().startswith(f"{HEADER}{MD5},,0.5,")


def test_a_ledger_that_git_never_saw_is_committed_too(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.git("rm", "--quiet", "leaderboard.csv")
    repository.commit()
    assert "committed leaderboard.csv" in lb(capsys, "add", MD5, "--public", "0.5")
    assert repository.git("status", "--porcelain") == ""


def test_two_branches_that_both_note_down_scores_merge_without_a_conflict(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    attributes = Path(__file__).parents[2] / ".gitattributes"
    (repository.root / ".gitattributes").write_text(attributes.read_text())
    repository.commit()
    repository.git("branch", "side")
    lb(capsys, "add", MD5, "--public", "0.5")
    repository.git("checkout", "--quiet", "side")
    lb(capsys, "add", OTHER_MD5, "--public", "0.6")
    repository.git("merge", "--quiet", "--no-edit", "main")
    assert sorted(row[:4] for row in rows(repository)) == ["abab", "cdcd"]


def test_a_score_reaches_the_runs_that_have_the_submission(
    workspace: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from callboard.results.mlflow.track import origin_of_this_process

    main = workspace.parent
    (main / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(main)
    record(result_in(workspace), origin_of_this_process())
    name = runs(main)[0].info.run_name
    for score in ("0.831", "0.792"):
        assert "set in 1 MLflow run" in lb(capsys, "add", name, "--public", score)
    assert "MLflow" not in lb(capsys, "add", name, "--public", "0.792")
    (run,) = runs(main)
    assert run.data.metrics["lb.public"] == 0.792
    assert f"| {name} | 0.792 | – |" in listed(capsys)[-1]


def test_a_server_that_is_down_costs_a_warning(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    repository.experiment("exp0021", {SUBMISSION: MD5})
    cli.dispatch(["lb", "add", "exp0021", "--public", "0.5"])
    printed = capsys.readouterr()
    assert re.search(r"warning: not in MLflow yet: .*once it answers, run callboard sync", printed.err)
    assert "MLflow" not in printed.out
    assert len(rows(repository)) == 1


LIST = """\
ref,fileName,date,description,status,publicScore,privateScore
9,a.csv,2021-02-17 10:00:00.123000,callboard {key} words,SubmissionStatus.COMPLETE,0.95012,
8,b.csv,2021-02-16 10:00:00,md5 {md5},complete,0.9,0.8
7,beside.csv,2021-02-15 10:00:00,,complete,0.7,
6,stranger.csv,2021-02-14 10:00:00,my words,complete,0.6,
5,late.csv,2021-02-13 10:00:00,callboard {key},pending,,
4,bad.csv,2021-02-12 10:00:00,callboard {key},error,,
3,a.csv,2021-02-11 10:00:00,callboard {key},complete,0.94,
"""


def test_kaggles_list_is_imported_once(
    repository: ToyRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("exp0021", {SUBMISSION: repository.cache(b"own")})
    repository.experiment("exp0022", {SUBMISSION: repository.cache(b"beside")}, {"seed": 2})
    found = find_submission("exp0021")
    (tmp_path / "beside.csv").write_bytes(b"beside")
    (tmp_path / "list.csv").write_text(LIST.format(key=found.key, md5=MD5))
    printed = lb(capsys, "import", str(tmp_path / "list.csv")).splitlines()
    assert printed == [
        "lb: scores: 4 new in leaderboard.csv, 0 already in it, committed leaderboard.csv",
        "lb: 1 of unknown results: stranger.csv of 2021-02-14, 'my words'",
        f"lb: 2 not scored: bad.csv of 2021-02-12, 'callboard {found.key}' (error); "
        f"late.csv of 2021-02-13, 'callboard {found.key}' (pending)",
    ]
    assert [row.split(",")[2:5] for row in rows(repository)] == [
        ["0.94", "", "2021-02-11"],
        ["0.7", "", "2021-02-15"],
        ["0.9", "0.8", "2021-02-16"],
        ["0.95012", "", "2021-02-17"],
    ]
    lb(capsys, "add", "exp0021", "--public", "0.951")  # a person knows better
    before = rows(repository)
    assert "0 new in leaderboard.csv, 4 already in it\n" in lb(capsys, "import", str(tmp_path / "list.csv"))
    assert rows(repository) == before
    with_private = LIST.format(key=found.key, md5=MD5).replace("0.95012,", "0.95012,0.93")
    (tmp_path / "list.csv").write_text(with_private)
    assert "1 new in leaderboard.csv, 3 already in it" in lb(capsys, "import", str(tmp_path / "list.csv"))
    assert rows(repository)[-1].split(",")[2:5] == ["", "0.93", "2021-02-17"]  # the public one is corrected


def test_an_import_does_not_override_a_later_correction(
    repository: ToyRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lb(capsys, "add", MD5, "--public", "0.5", "--date", "2021-03-01")
    (tmp_path / "list.csv").write_text(LIST.format(key="", md5=MD5).replace("0.9,0.8", "0.44,"))
    printed = lb(capsys, "import", str(tmp_path / "list.csv"))
    assert "0 new in leaderboard.csv, 0 already in it, 1 skipped, older than the recorded ones" in printed
    assert [row.split(",")[2] for row in rows(repository)] == ["0.5"]
    (tmp_path / "list.csv").write_text(LIST.format(key="", md5=MD5).replace("2021-02-16", "2021-03-02"))
    assert "1 new in" in lb(capsys, "import", str(tmp_path / "list.csv"))
    assert [row.split(",")[2] for row in rows(repository)] == ["0.5", "0.9"]


def test_what_kaggle_says_on_the_same_day_or_again_later_is_the_last_word(
    repository: ToyRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def imported(date: str, scores: str) -> str:
        text = LIST.format(key="", md5=MD5).replace("2021-02-16", date).replace("0.9,0.8", scores)
        (tmp_path / "list.csv").write_text(text)
        return lb(capsys, "import", str(tmp_path / "list.csv"))

    lb(capsys, "add", MD5, "--public", "0.5", "--date", "2021-02-16")
    assert "1 new in" in imported("2021-02-16", "0.44,")
    lb(capsys, "add", MD5, "--public", "0.5", "--date", "2021-02-20")
    assert "1 new in" in imported("2021-03-02", "0.44,")
    assert [row.split(",")[2] for row in rows(repository)] == ["0.5", "0.44", "0.5", "0.44"]


def test_a_list_that_a_spreadsheet_saved_gives_the_same_rows(
    repository: ToyRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = re.sub(r"2021-02-(\d\d) (\d\d:\d\d):00(\.\d+)?", r"2/\1/2021 \2", LIST.format(key="", md5=MD5))
    (tmp_path / "list.csv").write_text("\ufeff" + saved.replace("\n", "\r\n"))
    assert "1 new in" in lb(capsys, "import", str(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text(LIST.format(key="", md5=MD5))
    assert "0 new in leaderboard.csv, 1 already in it" in lb(capsys, "import", str(tmp_path / "list.csv"))
    assert [row.split(",")[4] for row in rows(repository)] == ["2021-02-16"]


def test_a_list_that_is_no_utf_8_is_refused(repository: ToyRepository, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(LIST.encode("utf-16"))
    with pytest.raises(UserError, match=r"list\.csv: not UTF-8, byte 0 is 0xff"):
        cli.dispatch(["lb", "import", str(tmp_path / "list.csv")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,score\n1,2\n",
            r"list\.csv: no header with the columns fileName, date, description, status, publicScore, "
            "privateScore",
        ),
        ("", "no header with the columns fileName"),
        (
            LIST.replace("2021-02-16", "2/3/2021"),
            r"list\.csv row 3: date '2/3/2021 10:00:00' has no single meaning",
        ),
        (LIST.replace("md5 {md5}", '"md5 {md5}'), r"list\.csv row 3: a quote .* is not closed"),
        (LIST.replace(",complete,0.7,", ""), r"list\.csv row 4: 4 cells, but the header has 7"),
        (LIST.replace("0.9,0.8", "90,80"), r"b\.csv of 2021-02-16.*publicScore 90 must be between 0 and 1"),
    ],
)
def test_what_is_no_list_of_kaggles_is_refused(
    repository: ToyRepository, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "list.csv").write_text(text.replace("{md5}", MD5))
    with pytest.raises(UserError, match=message):
        cli.dispatch(["lb", "import", str(tmp_path / "list.csv")])
    assert rows(repository) == []


def test_a_date_that_is_none_is_refused_before_anything_is_done(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.dispatch(["lb", "add", MD5, "--public", "0.5", "--date", "20.11."])
    assert "'20.11.' is not a date; must be YYYY-MM-DD" in capsys.readouterr().err


def test_on_a_terminal_the_list_fits_and_names_are_whole(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    from io import StringIO

    from rich.console import Console

    from callboard.reports.leaderboard import leaderboard_cells, print_leaderboard

    console = Console(file=StringIO(), width=80)
    print_leaderboard(
        leaderboard_cells([LeaderboardEntry(MD5, "", 0.5, None, "2020-11-20", "words " * 20)], []), console
    )
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "no known result" in printed
    assert max(map(len, printed.splitlines())) <= 80
