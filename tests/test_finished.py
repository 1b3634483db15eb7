import pytest

from callboard.core.errors import UserError
from callboard.results.finished import find_exactly, find_finished, results_named, split_reference
from callboard.results.result import OUT_OF_FOLD, SUBMISSION
from tests.toy_git import ToyRepository


@pytest.fixture
def repository(tmp_path, monkeypatch):
    repository = ToyRepository(tmp_path / "main")
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    monkeypatch.chdir(elsewhere)  # where an experiment of the queue would run
    return repository


def test_an_experiment_is_found_by_name_with_its_files(repository):
    md5 = repository.cache(b"scores")
    repository.experiment("exp0021", {SUBMISSION: md5}, {"seed": 2})
    found = find_finished("exp0021")
    assert found.name == "exp0021"
    assert found.file(SUBMISSION).read_bytes() == b"scores"
    assert found.reference == f"exp0021@{found.key}"
    assert find_finished(found.reference) == found


@pytest.mark.parametrize("kind", ["heads", "tags"])
def test_branches_and_tags_have_names_too(repository, kind):
    repository.experiment("-", {}, ref=f"refs/{kind}/best/of-all")
    assert find_finished("best/of-all").outs[SUBMISSION] == SUBMISSION


def test_an_annotated_tag_leads_to_its_commit(repository):
    commit = repository.experiment("x", {})
    repository.git("tag", "--annotate", "--message", "toy", "v1", commit)
    assert find_finished("v1").key == find_finished("x").key


def test_of_one_name_the_newest_counts_and_a_key_still_finds_the_older(repository):
    repository.experiment("exp", {SUBMISSION: "older"})
    older = find_finished("exp")
    repository.baseline = repository.commit()
    repository.experiment("exp", {SUBMISSION: "newer"})
    newer = find_finished("exp")
    assert newer.outs[SUBMISSION] == "newer"
    assert find_finished(older.reference) == older
    with pytest.raises(
        UserError, match=f"exp@{'0' * 16}: no such result any more; exp is now {newer.reference}"
    ):
        find_finished(f"exp@{'0' * 16}")


def test_the_key_is_of_content(repository):
    repository.experiment("a", {SUBMISSION: "same"})
    repository.experiment("b", {SUBMISSION: "same"})
    repository.experiment("c", {SUBMISSION: "other"})
    assert find_finished("a").key == find_finished("b").key != find_finished("c").key


def test_an_unknown_name_is_told_with_its_neighbours(repository):
    repository.experiment("exp0021", {})
    with pytest.raises(
        UserError, match="no experiment, branch or tag 'exp021' in git; similar names: exp0021"
    ):
        find_finished("exp021")


def test_what_dvc_keeps_for_itself_is_no_experiment(repository):
    repository.git("update-ref", "refs/exps/exec/EXEC_HEAD", repository.baseline)
    with pytest.raises(UserError, match="no experiment"):
        find_finished("EXEC_HEAD")


def test_a_commit_without_a_result_is_not_finished(repository):
    with pytest.raises(UserError, match=rf"main: not finished, its commit {repository.baseline[:7]} has no"):
        find_finished("main")


def test_a_lock_without_the_last_stages_is_not_finished(repository):
    (repository.root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  prepare: {cmd: x}\n")
    repository.commit()
    with pytest.raises(UserError, match="main: not finished"):
        find_finished("main")


def test_a_file_that_left_the_cache_is_named_with_a_way_to_get_it(repository):
    repository.experiment("exp", {OUT_OF_FOLD: "ab" * 16})
    with pytest.raises(
        UserError, match=r"scores/oof\.csv of exp@.* is not in DVC's cache .*`dvc pull` it or run"
    ):
        find_finished("exp").file(OUT_OF_FOLD)


def test_the_cache_may_lie_elsewhere(repository):
    repository.experiment("exp", {SUBMISSION: repository.cache(b"far", "../shared")})
    (repository.root / ".dvc/config").write_text(
        "[cache]\n    dir = nowhere\n['remote \"x\"']\n    url = y\n"
    )
    (repository.root / ".dvc/config.local").write_text("[cache]\n    dir = ../../shared\n")
    assert find_finished("exp").file(SUBMISSION).read_bytes() == b"far"


def test_the_networks_of_a_result_are_those_it_predicts_by(repository):
    repository.experiment("student", {f"models/r{k}/fold0.pt": f"m{k}" for k in (0, 1)})
    repository.experiment("none", {})
    assert find_finished("student").models == "models/r1"
    assert find_finished("none").models == ""


def test_all_results_of_a_name_are_listed_the_newest_first(repository):
    for content in ("older", "newer"):
        commit = repository.experiment("exp", {SUBMISSION: content})
        repository.baseline = repository.commit()
    newer, older = results_named("exp")
    assert (newer.outs[SUBMISSION], older.outs[SUBMISSION]) == ("newer", "older")
    assert newer.commit == commit
    assert results_named("other") == []


def test_a_parameter_must_name_the_result_that_it_means(repository):
    repository.experiment("exp", {})
    reference = find_finished("exp").reference
    assert find_exactly(reference, "train.init_from").reference == reference
    with pytest.raises(UserError, match=f"train.init_from: 'exp' must say which result: {reference}"):
        find_exactly("exp", "train.init_from")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("exp0021", ("exp0021", "")),
        ("exp0021@0123456789abcdef", ("exp0021", "0123456789abcdef")),
        ("odd@name", ("odd@name", "")),
    ],
)
def test_a_reference_is_a_name_and_perhaps_a_key(reference, expected):
    assert split_reference(reference) == expected
