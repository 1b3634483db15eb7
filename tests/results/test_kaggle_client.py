import json
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from callboard import cli
from callboard.core.errors import UserError
from callboard.results.kaggle import client as kaggle_client
from callboard.results.kaggle import client as waiting
from callboard.results.result import SUBMISSION
from callboard.results.submissions import find_submission
from tests.toy_git import ToyRepository
from tests.toy_kaggle import ToyKaggle, environment, serve

pytestmark = pytest.mark.slow  # the client takes a second or two to start

SCORES = b"recording_id,s0,s1\nr1,0.1,0.2\nr2,0.3,0.4\n"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyKaggle]:
    toy = ToyKaggle()
    for name in (
        "KAGGLE_USERNAME",
        "KAGGLE_KEY",
        "HTTP_PROXY",
        "http_proxy",
        "DVC_ROOT",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    with serve(toy):
        for name, value in environment(toy, tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        yield toy


@pytest.fixture
def repository(toy: ToyKaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    """A workspace with one finished experiment, whose tables lie in DVC's cache."""
    repository = ToyRepository(tmp_path / "main")
    (repository.root / "dvc.yaml").write_text("stages: {}\n")
    (repository.root / "leaderboard.csv").write_text("submission_md5,key,public,private,date,note\n")
    repository.baseline = repository.commit()
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "toy")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "toy@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.chdir(repository.root)
    add_experiment(repository, "exp0021", SCORES)
    return repository


def add_experiment(repository: ToyRepository, name: str, scores: bytes, skipped: bytes = b"") -> None:
    tables = {
        "sample_submission.csv": SCORES,
        "skipped.csv": b"recording_id,subset,reason\nt1,train,broken\n" + skipped,
    }
    listed = [{"md5": repository.cache(text), "relpath": path} for path, text in tables.items()]
    md5 = repository.cache(json.dumps(listed).encode())
    repository.experiment(name, {SUBMISSION: repository.cache(scores), "data/source": md5}, {"seed": name})


def lb(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.dispatch(["lb", *arguments, "--competition", "toy"])
    return capsys.readouterr().out


def ledger(repository: ToyRepository) -> list[str]:
    return (repository.root / "leaderboard.csv").read_text().splitlines()[1:]


def test_a_submission_is_sent_and_its_score_fetched_later(
    repository: ToyRepository, toy: ToyKaggle, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_submission("exp0021")
    printed = lb(capsys, "submit", "exp0021", "--message", "first try")
    assert f"lb: Successfully submitted to Toy, as 'callboard {found.key} first try'" in printed
    assert "its score, once Kaggle has it: callboard lb fetch --competition toy" in printed
    assert toy.uploaded == [SCORES]
    (created,) = toy.created
    assert created["competitionName"] == "toy"
    assert created["submissionDescription"] == f"callboard {found.key} first try"
    assert "1 not scored: submission.csv of 2021-02-17" in lb(capsys, "fetch")
    assert ledger(repository) == []
    toy.scores = ["0.95"]
    assert "scores: 1 new in leaderboard.csv" in lb(capsys, "fetch")
    assert ledger(repository) == [f"{found.md5},{found.key},0.95,,2021-02-17,Kaggle: submission.csv"]
    assert "0 new in leaderboard.csv, 1 already in it" in lb(capsys, "fetch")


def test_one_may_wait_for_the_score(
    repository: ToyRepository,
    toy: ToyKaggle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.0)
    toy.scores = ["", "0.94"]  # still pending when first asked
    assert "scores: 1 new in leaderboard.csv" in lb(capsys, "submit", "exp0021", "--wait")
    assert ",0.94," in ledger(repository)[0]
    with pytest.raises(UserError, match=r"exp0021 already has a score: lb\.public 0\.94; nothing was sent"):
        lb(capsys, "submit", "exp0021")
    assert len(toy.created) == 1


def test_what_kaggle_could_not_score_is_an_error(
    repository: ToyRepository,
    toy: ToyKaggle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str, request: dict[str, Any]) -> dict[str, Any]:
        for one in toy.submissions:
            one["status"] = "ERROR"
        return ToyKaggle.answer(toy, name, request)

    monkeypatch.setattr(toy, "answer", fail)
    with pytest.raises(
        UserError, match=r"did not score submission\.csv of 2021-02-17.*: its status is error"
    ):
        lb(capsys, "submit", "exp0021", "--wait")


@pytest.mark.parametrize(
    ("scores", "skipped", "message"),
    [
        (
            SCORES.replace(b"s1", b"s2"),
            b"",
            "columns recording_id, s0, s2; sample_submission.csv has recording_id, s0, s1",
        ),
        (SCORES[:30], b"", "lacks 1 of 2 test recordings, first r2"),
        (SCORES, b"r0,test,broken\n", "lacks 1 of 3 test recordings, first r0; Kaggle would refuse it"),
        (SCORES + b"r3,0.5,0.5\n", b"", "has 1 recording outside the test set, first r3"),
    ],
)
def test_an_incomplete_submission_is_not_sent(
    repository: ToyRepository,
    toy: ToyKaggle,
    capsys: pytest.CaptureFixture[str],
    scores: bytes,
    skipped: bytes,
    message: str,
) -> None:
    add_experiment(repository, "short", scores, skipped)
    with pytest.raises(UserError, match=f"the submission of short: {message}"):
        lb(capsys, "submit", "short")
    assert not toy.uploaded


def test_what_is_no_result_yet_is_told_how_to_become_one(repository: ToyRepository) -> None:
    with pytest.raises(
        UserError, match=r"no result is called 'exp0099'.*`callboard run NAME` makes a result"
    ):
        cli.dispatch(["lb", "submit", "exp0099"])


def test_what_left_the_cache_cannot_be_sent(
    repository: ToyRepository, toy: ToyKaggle, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.experiment("gone", {SUBMISSION: "ab" * 16}, {"seed": 9})
    with pytest.raises(UserError, match="the submission of gone is not in DVC's cache"):
        lb(capsys, "submit", "gone")


REFUSALS = [
    (
        "CreateSubmission",
        400,
        "Submission not allowed: Your team has used its daily Submission allowance (5) today",
        "today's submissions to toy are used up; Kaggle resets the count at midnight UTC .*allowance",
    ),
    ("StartSubmissionUpload", 404, "NotFound", "Kaggle has no competition toy; a name is the last part"),
    (
        "StartSubmissionUpload",
        403,
        "You cannot submit until you accept the competition rules",
        "the rules of toy are not accepted yet; do so at https://www.kaggle.com/c/toy/rules",
    ),
    (
        "StartSubmissionUpload",
        403,
        "Permission 'competitions.participate' was denied",
        "Kaggle denies access to toy; is the name right, have you joined it .*participate",
    ),
    ("CreateSubmission", 400, "The competition deadline has passed", "toy no longer accepts submissions"),
    (
        "StartSubmissionUpload",
        401,
        "Unauthenticated",
        "Kaggle's client has no valid credentials; run `kaggle auth",
    ),
    ("StartSubmissionUpload", 429, "Too Many Requests", "too many requests to Kaggle; wait some minutes"),
    ("upload", 400, "", "the upload to toy failed; repeat the command"),
    (
        "CreateSubmission",
        400,
        "Evaluation metric is on holiday",
        "Kaggle's client failed: Evaluation metric is on",
    ),
]


@pytest.mark.parametrize(("request_name", "status", "said", "message"), REFUSALS)
def test_a_refusal_of_kaggles_is_a_sentence(
    repository: ToyRepository,
    toy: ToyKaggle,
    capsys: pytest.CaptureFixture[str],
    request_name: str,
    status: int,
    said: str,
    message: str,
) -> None:
    toy.refusals[request_name] = (status, {"code": status, "message": said})
    with pytest.raises(UserError, match=message) as error:
        lb(capsys, "submit", "exp0021")
    assert "\n" not in str(error.value)
    assert not toy.created


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "denies access to toy"), (404, "no competition toy"), (503, "reports an internal error")],
)
def test_a_refusal_without_words_is_told_by_its_number(
    repository: ToyRepository, toy: ToyKaggle, capsys: pytest.CaptureFixture[str], status: int, message: str
) -> None:
    toy.refusals["ListSubmissions"] = (status, {})
    with pytest.raises(UserError, match=message):
        lb(capsys, "fetch")


@pytest.mark.parametrize("token", ["", "no longer valid"])
def test_without_valid_credentials_the_way_to_some_is_told(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(UserError, match=r"no valid credentials; run `kaggle auth login`.*access_token"):
        lb(capsys, "submit", "exp0021")


def test_a_network_that_is_down_is_named(
    repository: ToyRepository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KAGGLE", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="Kaggle cannot be reached; check the network"):
        lb(capsys, "fetch")


def test_a_server_that_does_not_answer_is_not_waited_for(
    repository: ToyRepository,
    toy: ToyKaggle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kaggle_client, "SEND_TIMEOUT_S", 2.0)
    toy.delay_s = 60.0
    with pytest.raises(
        UserError, match="did not answer within 2 s; `callboard lb fetch` shows whether it arrived"
    ):
        lb(capsys, "submit", "exp0021")


def test_without_a_competition_one_is_asked_for(repository: ToyRepository) -> None:
    with pytest.raises(UserError, match="no competition given; pass --competition NAME"):
        cli.dispatch(["lb", "fetch"])


def test_without_the_client_its_installation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(kaggle_client, "version", missing)
    with pytest.raises(UserError, match=r"pip install -e '\.\[kaggle\]' in the clone"):
        kaggle_client.list_submissions("toy")


def test_a_folder_of_that_name_in_the_workspace_is_not_the_client(
    repository: ToyRepository, toy: ToyKaggle, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository.root / "kaggle").mkdir()
    (repository.root / "kaggle/__init__.py").write_text("raise SystemExit('not the client')")
    assert "0 new" in lb(capsys, "fetch")
