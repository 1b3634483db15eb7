from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results.committed import Locks, lock_content
from callboard.results.git import committed_files
from callboard.results.lookup import choose, find, find_all, find_exactly, open_result
from callboard.results.refs import refs_in_git
from callboard.results.result import OUT_OF_FOLD, SUBMISSION, ResultRef
from callboard.results.rows import BoardRow, rows_named
from callboard.results.submissions import find_submission
from tests.toy_git import ToyRepository

OLD = ResultRef("a", "1" * 16, time_ms=10)
NEW = ResultRef("a", "12" * 8, time_ms=20)
OTHER = ResultRef("b", "34" * 8, time_ms=5)
RUNNING = ResultRef("c", "", time_ms=30)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    repository = ToyRepository(tmp_path / "main")
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(repository.root)
    return repository


def test_the_newest_of_namesakes_is_the_last_whoever_tells_of_it_first() -> None:
    again = OLD._replace(time_ms=15)
    assert choose("a", [NEW, OLD, again, OTHER]) == [OLD, NEW]
    assert choose("a", [NEW, OLD, OLD._replace(time_ms=25)])[-1].key == OLD.key


def test_a_commit_of_the_name_that_was_asked_for_comes_before_others_of_the_result() -> None:
    """Both are exactly this result, and `baseline` and time are those of the name."""
    other, own = (OLD._replace(name=name, commit=f"of {name}") for name in ("b", "a"))
    assert [one.commit for one in choose("a", [OLD, other, own])] == ["of a"]
    assert [one.commit for one in choose("a", [OLD, other])] == ["of b"]


def test_a_name_that_looks_like_a_key_or_has_an_at_is_a_name() -> None:
    names = [OTHER, ResultRef("3434", NEW.key), ResultRef("b@3434", OLD.key)]
    assert [one.key for one in choose("3434", names)] == [NEW.key]
    assert [one.key for one in choose("b@3434", names)] == [OLD.key]


@pytest.mark.parametrize("text", ["b@3434", "3434", "b@" + "34" * 8, "34" * 8])
def test_four_digits_of_a_key_are_enough(text: str) -> None:
    assert choose(text, [OLD, OTHER, RUNNING]) == [OTHER]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("343", "no result is called '343'"),
        ("b@343", r"called 'b@343'; the nearest are b@(34){8}"),
        ("a@3434", "no result is called 'a@3434'; the nearest are a@1{16}, a@(12){8}"),  # the key is of b
        ("c", "c is in git, but its commit holds no finished result; is it still running"),
        ("a@111", "the nearest are a@1{16}, a@(12){8}"),
        ("rowz", "the nearest are row1"),
    ],
)
def test_what_is_no_name_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(text, [OLD, NEW, OTHER, RUNNING], ["row1"])


def test_a_branch_a_tag_and_an_experiment_are_names_of_one_result(repository: ToyRepository) -> None:
    commit = repository.experiment("exp", {SUBMISSION: "ab" * 16})
    repository.git("branch", "kept", commit)
    repository.git("tag", "--annotate", "--message=x", "sent", commit)
    key = find("exp").key
    row = BoardRow("run", {}, {}, datetime(2020, 11, 20, tzinfo=UTC), "", {}, key=key)
    for text in ("exp", "kept", "sent", f"kept@{key[:4]}", "run", f"run@{key[:5]}", key[:4]):
        assert rows_named(text, [replace(row, name="other", key="0" * 16), row]) == [row], text
    for text in ("exp", "kept", "sent", f"kept@{key[:4]}", key[:4]):
        assert find_submission(text).key == key, text
    with pytest.raises(UserError, match=f"kept@{key} is in git but not on the board; `callboard sync`"):
        rows_named("kept", [])
    with pytest.raises(UserError, match="main holds no finished result"):
        rows_named("main", [row])


def test_what_a_lock_says_is_remembered_by_its_content(
    repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.experiment("exp", {SUBMISSION: "ab" * 16, "data/source": "d" * 32})

    def read() -> tuple[str, ...]:
        with committed_files(repository.root) as files:
            locks = Locks(files)
            found = locks.at(commit), locks.at(repository.baseline)
            locks.save()
        assert not found[1].key
        return found[0][:3]

    first = read()
    assert first[1:] == ("ab" * 16, "d" * 32)
    monkeypatch.setattr("callboard.results.committed.lock_content", None)
    assert read() == first


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\na: 1\n", "a: [", "- 1\n"])
def test_a_lock_that_cannot_be_read_is_broken(text: str) -> None:
    assert lock_content(text).is_broken
    assert not lock_content(text).key


# results in git, from wherever a stage runs


@pytest.fixture
def elsewhere(repository: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRepository:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    monkeypatch.chdir(folder)  # where an experiment of the queue would run
    return repository


def test_an_experiment_is_found_by_name_with_its_files(elsewhere: ToyRepository) -> None:
    md5 = elsewhere.cache(b"scores")
    elsewhere.experiment("exp0021", {SUBMISSION: md5}, {"seed": 2})
    found = find("exp0021")
    assert found.name == "exp0021"
    assert open_result(found).output(SUBMISSION).read_bytes() == b"scores"
    assert found.reference == f"exp0021@{found.key}"
    assert find(found.reference) == found


@pytest.mark.parametrize("kind", ["heads", "tags"])
def test_branches_and_tags_have_names_too(elsewhere: ToyRepository, kind: str) -> None:
    elsewhere.experiment("-", {}, ref=f"refs/{kind}/best/of-all")
    assert open_result(find("best/of-all")).outs[SUBMISSION] == SUBMISSION


def test_an_annotated_tag_leads_to_its_commit(elsewhere: ToyRepository) -> None:
    commit = elsewhere.experiment("x", {})
    elsewhere.git("tag", "--annotate", "--message", "toy", "v1", commit)
    assert find("v1").key == find("x").key


def test_of_one_name_the_newest_counts_and_a_key_still_finds_the_older(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("exp", {SUBMISSION: "older"})
    older = find("exp")
    elsewhere.baseline = elsewhere.commit()
    elsewhere.experiment("exp", {SUBMISSION: "newer"})
    newer = find("exp")
    assert open_result(newer).outs[SUBMISSION] == "newer"
    assert find(older.reference) == older
    with pytest.raises(
        UserError, match=f"'exp@{'0' * 16}'; the nearest are {older.reference}, {newer.reference}"
    ):
        find(f"exp@{'0' * 16}")


def test_the_key_is_of_content(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("a", {SUBMISSION: "same"})
    elsewhere.experiment("b", {SUBMISSION: "same"})
    elsewhere.experiment("c", {SUBMISSION: "other"})
    assert find("a").key == find("b").key != find("c").key


def test_an_unknown_name_is_told_with_its_neighbours(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("exp0021", {})
    with pytest.raises(UserError, match="no result is called 'exp021'; the nearest are exp0021"):
        find("exp021")


def test_what_dvc_keeps_for_itself_is_no_experiment(elsewhere: ToyRepository) -> None:
    elsewhere.git("update-ref", "refs/exps/exec/EXEC_HEAD", elsewhere.baseline)
    with pytest.raises(UserError, match="no result is called 'EXEC_HEAD'"):
        find("EXEC_HEAD")


def test_a_commit_without_a_result_is_not_finished(elsewhere: ToyRepository) -> None:
    with pytest.raises(UserError, match="main holds no finished"):
        find("main")


def test_a_lock_without_the_last_stages_is_not_finished(elsewhere: ToyRepository) -> None:
    (elsewhere.root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  prepare: {cmd: x}\n")
    elsewhere.commit()
    with pytest.raises(UserError, match="main holds no finished"):
        find("main")


def test_a_file_that_left_the_cache_is_named_with_a_way_to_get_it(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("exp", {OUT_OF_FOLD: "ab" * 16})
    with pytest.raises(
        UserError, match=r"scores/oof\.csv of exp@.* is not in DVC's cache .*`dvc pull` it or run"
    ):
        open_result(find("exp")).output(OUT_OF_FOLD)


def test_the_cache_may_lie_elsewhere(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("exp", {SUBMISSION: elsewhere.cache(b"far", "../shared")})
    (elsewhere.root / ".dvc/config").write_text("[cache]\n    dir = nowhere\n['remote \"x\"']\n    url = y\n")
    (elsewhere.root / ".dvc/config.local").write_text("[cache]\n    dir = ../../shared\n")
    assert open_result(find("exp")).output(SUBMISSION).read_bytes() == b"far"


def test_the_networks_of_a_result_are_those_it_predicts_by(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("student", {f"models/r{k}/fold0.pt": f"m{k}" for k in (0, 1)})
    elsewhere.experiment("none", {})
    assert open_result(find("student")).models == "models/r1"
    assert open_result(find("none")).models == ""


def test_all_results_of_a_name_are_listed_the_newest_last(elsewhere: ToyRepository) -> None:
    for content in ("older", "newer"):
        commit = elsewhere.experiment("exp", {SUBMISSION: content})
        elsewhere.baseline = elsewhere.commit()
    results = [open_result(ref) for ref in find_all("exp")]
    assert [result.outs[SUBMISSION] for result in results] == ["older", "newer"]
    assert results[-1].ref.commit == commit


def test_a_parameter_must_name_the_result_that_it_means(elsewhere: ToyRepository) -> None:
    elsewhere.experiment("exp", {})
    reference = find("exp").reference
    assert find_exactly(reference, "train.init_from").ref.reference == reference
    with pytest.raises(UserError, match=f"train.init_from: 'exp' must be an exact reference: {reference}"):
        find_exactly("exp", "train.init_from")


def test_without_a_name_the_result_of_head_is_meant(repository: ToyRepository) -> None:
    with pytest.raises(UserError, match="HEAD holds no finished result"):
        find(None)
    commit = repository.experiment("exp", {})
    repository.git("checkout", "--quiet", "--detach", commit)
    found = find(None)
    assert (found.name, found.commit) == ("HEAD", commit)
    assert find(None, [OTHER, ResultRef("run", found.key)]) == found._replace(name="run")


def test_before_a_commit_the_result_of_the_work_tree_is_meant(repository: ToyRepository) -> None:
    commit = repository.experiment("exp", {})
    (repository.root / "dvc.lock").write_text(repository.git("show", f"{commit}:dvc.lock"))
    found = find(None)
    assert (found.name, found.key) == ("workspace", find("exp").key)
    assert open_result(find(None, [ResultRef("run", found.key)])).name == "run"


def test_a_result_that_nothing_names_any_more_is_found_by_its_content(repository: ToyRepository) -> None:
    """As of `dvc repro`: first in the work tree, then in an earlier commit, at last in MLflow alone."""
    commit = repository.experiment("exp", {})
    known = find("exp")
    repository.git("update-ref", "-d", f"refs/exps/{repository.baseline[:2]}/{repository.baseline[2:]}/exp")
    run = ResultRef("run", known.key)
    other = repository.experiment("other", {}, {"seed": 2})
    repository.git("checkout", other, "--", "dvc.lock")
    with pytest.raises(UserError, match=f"run: no commit holds this result .{known.key}. any more"):
        open_result(find("run", [run]))
    repository.git("checkout", commit, "--", "dvc.lock")
    assert open_result(find("run", [run])).ref.commit == ""
    repository.git("commit", "--quiet", "--message", "repro")
    held = repository.git("rev-parse", "HEAD")
    repository.git("rm", "--quiet", "dvc.lock")
    repository.commit()
    assert open_result(find("run", [run])).ref.commit == held


def test_refs_in_git_say_what_they_are(repository: ToyRepository) -> None:
    commit = repository.experiment("exp", {})
    repository.git("branch", "kept", commit)
    refs = {ref.name: ref for ref in refs_in_git()}
    assert [str(refs[name]) for name in ("exp", "kept", "HEAD")] == ["experiment exp", "branch kept", "HEAD"]
    assert (refs["exp"].baseline, refs["kept"].baseline) == (repository.baseline, "")
    assert refs["exp"].key == refs["kept"].key
    assert refs["main"].key == ""
