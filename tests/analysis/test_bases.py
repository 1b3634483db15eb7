import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from callboard.analysis.bases import Bases
from callboard.analysis.differences import difference, mean_difference, work_out
from callboard.analysis.lines import of_one_setting
from callboard.core.errors import UserError
from callboard.data.score_tables import score_table
from callboard.experiments.steps import TableStep
from callboard.results.dvc_cache import DamagedFileError
from callboard.results.result import SUBMISSION
from callboard.results.rows import BoardRow, same_truth
from tests.experiments.test_author_scores import toy_table
from tests.toy_git import ToyRepository

SOURCE = Path(__file__).parents[2] / "src"
START = datetime(2020, 11, 20, 12, 0, tzinfo=UTC)
PLAIN = BoardRow(
    "plain", {"lr": "1"}, {"cv.lwlrap": 0.7}, START, "", {"lr": "1"}, names=("e1",), key="k1", data_md5="d"
)
CHANGED = replace(PLAIN, name="changed", params={"lr": "2"}, names=("e2",), key="k2")
STEP = TableStep("e1", {"lr"})


def test_the_base_of_the_table_and_what_was_committed_are_two_things():
    other = replace(PLAIN, name="other", names=(), key="k3")
    assert Bases([PLAIN, other, CHANGED]).in_table(CHANGED, STEP) == PLAIN
    assert Bases([PLAIN, other, CHANGED]).in_table(CHANGED, None) is None
    assert Bases([PLAIN, other, CHANGED]).start_of(CHANGED) == other


def test_of_several_bases_the_newest_counts():
    again = replace(PLAIN, name="again", key="k3")
    assert Bases([PLAIN, again, CHANGED]).in_table(CHANGED, STEP) == again


def test_bases_are_those_that_a_look_at_every_result_finds(monkeypatch):
    def newest(row, is_base):
        found = [one for one in rows if one.key != row.key and same_truth(row, one) and is_base(one, row)]
        return found[-1] if found else None

    monkeypatch.setattr("callboard.analysis.bases.key_of", lambda commit: commit)
    draw = np.random.default_rng(0).integers
    lr = [{"lr": str(k)} for k in range(5)]
    rows = [
        replace(
            PLAIN,
            params=lr[draw(4)],
            base=lr[draw(5)],
            names=(f"e{draw(3)}",),
            key=f"k{number}",
            commit=f"k{draw(60)}",
            data_md5="de"[draw(2)],
        )
        for number in range(40)
    ]
    bases = Bases(rows)
    starts = [
        newest(row, lambda one, row: one.key == row.commit)
        or newest(row, lambda one, row: one.params == row.base and row.commit != row.key)
        for row in rows
    ]
    assert [bases.start_of(row) for row in rows] == starts
    assert None in starts
    of_table = [
        row
        if "e1" in row.names
        else newest(row, lambda one, row: "e1" in one.names and one.params == row.params)
        for row in rows
    ]
    assert [bases.in_table(row, TableStep("e1", set())) for row in rows] == of_table
    assert None in of_table


@pytest.mark.parametrize("other", [{"seed": "5"}, {"seed": "1", "epochs": "3"}])
def test_a_result_that_differs_in_more_than_the_row_changes_is_no_base(other):
    of_seed_1 = replace(PLAIN, params=PLAIN.params | {"seed": "1"})
    changed = replace(CHANGED, params=CHANGED.params | {"seed": "1"})
    newer = replace(PLAIN, params=PLAIN.params | other, key="k3")
    assert Bases([of_seed_1, newer, changed]).in_table(changed, STEP) == of_seed_1
    assert Bases([newer, changed]).in_table(changed, STEP) is None


def test_keys_below_one_that_a_row_changes_may_differ():
    inside = replace(CHANGED, params={"lr.first": "1", "lr.last": "2"})
    assert Bases([PLAIN, inside]).in_table(inside, STEP) == PLAIN


def test_the_author_s_rows_get_results_of_the_setting_that_most_have():
    def result(name, seed, key, lr="0.1"):
        return replace(PLAIN, names=(name,), key=key, params={"seed": seed, "optim.lr": lr})

    rows = [
        result("e1", "1", "a"),
        result("e2", "1", "b", "0.3"),
        result("e1", "5", "c"),
        result("e4", "1", "d"),
    ]
    assert of_one_setting(rows, toy_table()) == {"e1": rows[0], "e2": rows[1], "e4": rows[3]}
    # what e3 changes alone is not the workspace's
    lone = replace(rows[1], names=("e3",), params=rows[1].params | {"model.backbone_args.layers": "1"})
    assert of_one_setting([*rows, lone], toy_table())["e3"] == lone
    assert of_one_setting([], toy_table()) == {}


def test_the_place_of_equal_recordings_makes_no_other_setting():
    here, there = (
        {"data.root": "/here", "data.external": "null"},
        {"data.root": "/there", "data.external": "/x"},
    )
    base = replace(PLAIN, params=PLAIN.params | here)
    moved = replace(CHANGED, params=CHANGED.params | there)
    assert Bases([base, moved]).in_table(moved, STEP) == base
    same = replace(moved, params=PLAIN.params | there)
    assert same.setting == base.setting
    assert set(of_one_setting([base, same], toy_table())) == {"e1", "e2"}


def test_a_result_of_other_data_is_no_base():
    assert Bases([PLAIN, CHANGED]).in_table(replace(CHANGED, data_md5="else"), STEP) is None


def test_a_result_of_other_annotations_is_no_base() -> None:
    other = replace(CHANGED, clips_md5="else")
    assert Bases([PLAIN, other]).in_table(other, STEP) is None
    assert Bases([PLAIN, other]).start_of(replace(other, base=PLAIN.params)) is None
    assert not same_truth(PLAIN, other)
    lone = replace(PLAIN, clips_md5="else", names=("e2",), key="k4")
    also = replace(PLAIN, names=("e4",), key="k5")
    assert set(of_one_setting([PLAIN, lone, also], toy_table())) == {"e1", "e4"}


def test_other_features_place_the_same_annotations_in_other_frames() -> None:
    other = replace(PLAIN, params=PLAIN.params | {"features.hop_length": "512"}, key="k3", clips_md5="else")
    assert Bases([PLAIN, other]).start_of(other) is not None
    assert same_truth(PLAIN, other)
    assert not same_truth(PLAIN, replace(other, data_md5="else"))


def test_the_same_content_under_both_names_is_its_own_base():
    same = replace(PLAIN, names=("e1", "e2"))
    assert Bases([same]).in_table(same, STEP) == same


def test_the_committed_result_is_no_change_of_itself():
    assert Bases([PLAIN, CHANGED]).start_of(PLAIN) is None


def test_the_lock_of_the_commit_goes_before_its_parameters(tmp_path, monkeypatch):
    repository = ToyRepository(tmp_path / "main")
    monkeypatch.chdir(repository.root)
    commit = repository.experiment("x", {SUBMISSION: "committed"})
    from callboard.results.lookup import find

    monkeypatch.setenv("DVC_ROOT", str(repository.root))
    held = replace(PLAIN, name="held", names=(), key=find("x").key)
    later = replace(PLAIN, name="later", names=(), key="k4")
    changed = replace(CHANGED, commit=commit)
    assert Bases([held, later, changed]).start_of(changed) == held
    assert Bases([held, later]).start_of(replace(held, commit=commit)) is None


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    return ToyRepository(tmp_path / "main")


@pytest.fixture
def pair(repository):
    """A result that is better in one of two recordings, and a worse one."""
    ids = ["r0", "r1"]
    better = score_table(ids, ["3", "07"], np.array([[2.0, 1], [1, 2]]))
    worse = score_table(ids, ["3", "07"], np.array([[1.0, 2], [1, 2]]))
    text = "recording_id,species_id,label_type\nr0,3,tp\nr1,3,tp\nr1,07,fp\n"
    clips = repository.cache(text.encode())
    return [
        replace(PLAIN, oof_md5=repository.cache_table(table.assign(fold=0)), clips_md5=clips)
        for table in (better, worse)
    ]


def test_a_difference_is_read_from_the_cache(pair):
    found = difference(*pair)
    assert (found.value, found.low, found.high) == (0.25, 0.0, 0.5)
    assert found.sd == pytest.approx(0.25 / 2**0.5, abs=0.01)


IN_ANOTHER_PROCESS = """
import json, sys
from datetime import UTC, datetime
from callboard.analysis.differences import difference
from callboard.results.rows import BoardRow

oofs, clips = sys.argv[1:3], sys.argv[3]
rows = [
    BoardRow("x", {}, {"cv.lwlrap": 0.7}, datetime.now(UTC), "", {}, oof_md5=md5, clips_md5=clips)
    for md5 in oofs
]
found = difference(*rows)
heavy = [name for name in ("numpy", "pandas", "sklearn", "scipy", "mlflow", "rich") if name in sys.modules]
print(json.dumps([found.value, found.low, found.sd, heavy]))
"""


def test_what_was_worked_out_once_needs_neither_tables_nor_heavy_imports(pair, repository):
    def found():
        command = [
            sys.executable,
            "-c",
            IN_ANOTHER_PROCESS,
            *(row.oof_md5 for row in pair),
            pair[0].clips_md5,
        ]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    assert "pandas" in (first := found())[3]
    assert (repository.root / ".cache/differences.json").exists()
    shutil.rmtree(repository.root / ".dvc/cache")
    assert found() == [*first[:3], []]


def test_a_table_that_comes_back_is_looked_at_again(pair, repository):
    table = repository.root / ".dvc/cache/files/md5" / pair[0].oof_md5[:2] / pair[0].oof_md5[2:]
    content = table.read_bytes()
    table.unlink()
    assert not difference(*pair).has_interval
    table.write_bytes(content)
    assert difference(*pair).has_interval


def test_no_difference_is_made_of_a_damaged_table_nor_remembered(pair, repository):
    table = repository.root / ".dvc/cache/files/md5" / pair[0].oof_md5[:2] / pair[0].oof_md5[2:]
    content = table.read_bytes()
    table.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError, match=r"scores/oof\.csv is damaged in DVC's cache"):
        difference(*pair)
    with pytest.raises(DamagedFileError):
        work_out([pair])
    table.write_bytes(content)
    assert difference(*pair).has_interval


def test_each_table_is_read_once(pair, monkeypatch):
    from callboard.analysis import bootstrap

    read = []
    original = bootstrap.read_score_table
    monkeypatch.setattr(bootstrap, "read_score_table", lambda path: read.append(path) or original(path))
    there, back = difference(*pair), difference(*reversed(pair))
    assert there.value == -back.value
    assert len(read) == len(set(read)) == 2


def test_without_the_tables_the_difference_of_the_metrics_has_no_interval(repository):
    found = difference(replace(CHANGED, metrics={"cv.lwlrap": 0.75}), PLAIN)
    assert found.value == pytest.approx(0.05)
    assert not found.has_interval


def other_table(repository: ToyRepository, species: list[str], scores: list[list[float]]) -> str:
    return repository.cache_table(score_table(["r0", "r1"], species, np.array(scores)).assign(fold=0))


def test_tables_of_other_species_have_no_interval(pair: list[BoardRow], repository: ToyRepository) -> None:
    other = replace(pair[1], oof_md5=other_table(repository, ["3", "x"], [[1.0, 2], [1, 2]]))
    found = difference(replace(pair[0], metrics={"cv.lwlrap": 0.75}), other)
    assert found is not None
    assert found.value == pytest.approx(0.05)
    assert not found.has_interval


def test_a_table_that_holds_no_numbers_is_told_not_taken_for_one_that_is_gone(
    pair: list[BoardRow], repository: ToyRepository
) -> None:
    broken = replace(pair[1], oof_md5=other_table(repository, ["3", "07"], [[np.nan, 2], [1, 2]]))
    with pytest.raises(UserError, match="s3 must be a number, found"):
        difference(pair[0], broken)


def test_a_fault_of_ours_keeps_its_traceback(pair: list[BoardRow], monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*tables: object) -> None:
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr("callboard.analysis.bootstrap.difference_of", faulty)
    with pytest.raises(ValueError, match="broadcast"):
        difference(*pair)


def test_only_what_is_not_remembered_and_has_tables_is_worked_out_with_progress(
    pair: list[BoardRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def progress(items: list[tuple[BoardRow, BoardRow]], **words: object) -> list[tuple[BoardRow, BoardRow]]:
        told.append(words["total"])
        return items

    monkeypatch.setattr("callboard.analysis.differences.progress", progress)
    there, back = (pair[0], pair[1]), (pair[1], pair[0])
    gone = (pair[0], replace(pair[1], oof_md5="0" * 32))
    work_out([there, there, gone])
    work_out([there, back, gone])
    work_out([there, back, gone])
    assert told == [1, 1]


def test_without_cv_there_is_no_difference(repository):
    assert difference(replace(CHANGED, metrics={}), PLAIN) is None


def test_another_seed_of_a_row_has_the_base_of_that_seed():
    def seeded(name, seed, lr):
        return replace(PLAIN, names=(name,), key=name, params={"lr": lr, "seed": seed})

    base, of_seed_2 = seeded("e1-seed1", "1", "1"), seeded("e1-seed2", "2", "1")
    changed = seeded("e2-seed1", "1", "2")
    assert Bases([base, of_seed_2, changed]).in_table(changed, STEP) == base
    assert changed.table_names == ["e2-seed1", "e2"]


def test_a_pair_of_several_without_cv_leaves_no_mean(pair):
    lost = replace(pair[0], metrics={})
    assert mean_difference([tuple(pair), (lost, pair[1])]) is None
    assert mean_difference([tuple(pair), tuple(pair)]).value == 0.25


def test_the_same_content_under_both_names_of_a_seed_is_its_own_base():
    both = replace(CHANGED, names=("e2-seed1", "e1-seed1"))
    assert Bases([both]).in_table(both, STEP) == both
