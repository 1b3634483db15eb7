"""Who made which pseudo-label: by hand, against a naive twin, and by refusal."""

import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.folds import write_folds
from callboard.pseudo.labels import write_pseudo_labels
from callboard.pseudo.provenance import read_lineage, refuse_violations, trace_rounds
from tests.toy_models import TOY_FOLDS, TRAIN, save_fold

FOLDS = pd.DataFrame({"recording_id": ["a", "b", "c", "d"], "fold": [0, 0, 1, 1]})
HELD_OUT = {f"r{number}/fold{fold}": held for number in (0, 1) for fold, held in ((0, "ab"), (1, "cd"))}


def labels(*rows):
    """Pseudo-labels given as (recording, teacher, votes)."""
    return pd.DataFrame(rows, columns=["recording_id", "teacher", "votes"])


def trace(table, isolation="recording", number=1, tables=None, held_out=HELD_OUT):
    return trace_rounds({**(tables or {}), number: table}, FOLDS, held_out, isolation)[-1]


def test_labels_by_the_network_that_has_not_seen_the_recording_are_isolated():
    found = trace(labels(("a", "r0/fold0", 1), ("c", "r0/fold1", 1), ("t", "r0", 2)))
    assert found.sentence == "isolated: no teacher had seen its recording (2 of 2)"
    assert found.by_teacher == {"r0": 1, "r0/fold0": 1, "r0/fold1": 1}
    assert (found.n_labels, found.n_unfolded, found.n_unseen, found.n_inherited) == (3, 1, 2, 0)
    assert found.depth == "for 2 labels, no network in the makers' line had seen the recording"
    refuse_violations(found)


def test_a_network_that_labels_what_it_was_trained_on_is_named():
    found = trace(labels(("a", "r0/fold1", 1), ("a", "r0/fold1", 1), ("c", "r0/fold0", 1)))
    assert (found.n_seen, found.n_unseen) == (3, 0)
    message = r"recording a \(fold 0\) was labelled by r0/fold1, which had trained on it \(and 1 more"
    with pytest.raises(UserError, match=message):
        refuse_violations(found)


def test_the_weights_file_counts_and_not_the_name():
    lying = HELD_OUT | {"r0/fold0": "b"}
    found = trace(labels(("a", "r0/fold0", 1), ("b", "r0/fold0", 1)), held_out=lying)
    assert found.seen == ["recording a (fold 0) was labelled by r0/fold0, which had trained on it"]
    assert found.n_unseen == 1


@pytest.mark.parametrize("teacher", ["r1/fold0", "r0/fold7", "r1", "somebody"])
def test_a_teacher_of_another_round_or_without_weights_is_refused(teacher):
    found = trace(labels(("a", teacher, 1)), isolation="none")
    with pytest.raises(UserError, match=f"labelled by {teacher}, of which there are no weights of round 0"):
        refuse_violations(found)
    assert trace(labels(("t", teacher, 1))).violations == [
        f"recording t was labelled by {teacher}, of which there are no weights of round 0"
    ]


def test_votes_of_a_whole_round_are_a_violation_only_where_isolation_was_promised():
    table = labels(("a", "r0", 2), ("b", "r0", 2), ("c", "r0", 1), ("t", "r0", 1))
    meant = trace(table, isolation="none")
    assert meant.violations == []
    assert meant.sentence == (
        "NOT isolated: 2 of 3 labels had a vote of a model trained on the recording, 1 more may have had"
    )
    assert meant.depth == "no label is isolated, so there is nothing to trace further"
    assert len(trace(table, isolation="recording").violations) == 3


ROUND_1 = labels(("a", "r0/fold0", 1), ("c", "r0/fold1", 1))


def test_a_second_round_inherits_what_its_makers_teachers_had_seen():
    """r1/fold0 learned from the label of c, made by r0/fold1, which was trained on a and b."""
    found = trace(labels(("a", "r1/fold0", 1), ("d", "r1/fold1", 1)), number=2, tables={1: ROUND_1})
    assert found.sentence == "isolated: no teacher had seen its recording (2 of 2)"
    assert (found.n_inherited, found.n_unseen) == (2, 0)
    assert found.depth.startswith("for 2 of 2 isolated labels, the makers' own pseudo-labels")


def test_a_second_round_inherits_nothing_by_labels_that_its_maker_was_not_trained_on():
    first = labels(("a", "r0/fold0", 1))  # in the training part of fold 1 only
    found = trace(labels(("a", "r1/fold0", 1), ("c", "r1/fold1", 1)), number=2, tables={1: first})
    assert (found.n_inherited, found.n_unseen) == (1, 1)


def test_a_vote_of_one_network_that_had_inherited_the_recording_is_enough():
    """Both hold out a; r1/fold0 was taught c by r0/fold1, which had seen a, and r1/fold1 nothing."""
    held_out = HELD_OUT | {"r1/fold1": "acd"}
    tables = {1: labels(("c", "r0/fold1", 1))}
    found = trace(labels(("a", "r1", 2)), number=2, tables=tables, held_out=held_out)
    assert (found.n_inherited, found.n_unseen) == (1, 0)


def test_labels_of_test_recordings_hand_on_what_their_makers_had_seen():
    found = trace(labels(("a", "r1/fold0", 1)), number=2, tables={1: labels(("t", "r0", 2))})
    assert found.n_inherited == 1


def test_what_a_maker_had_only_inherited_is_handed_on():
    """r1/fold1 holds a and b out, but learned from the label of c, made by r0/fold1, which had seen them."""
    held_out = HELD_OUT | {"r1/fold1": "ab", "r2/fold0": "ab"}
    tables = {1: labels(("c", "r0/fold1", 1)), 2: labels(("d", "r1/fold1", 1))}
    found = trace(labels(("a", "r2/fold0", 1)), number=3, tables=tables, held_out=held_out)
    assert (found.n_inherited, found.n_unseen) == (1, 0)


def test_how_far_a_proof_goes_is_not_claimed_without_the_files_of_earlier_rounds():
    found = trace(labels(("a", "r1/fold0", 1)), number=2)
    assert found.sentence == "isolated: no teacher had seen its recording (1 of 1)"
    assert found.depth.endswith("is unknown: files of earlier rounds are gone")


NESTED = pd.DataFrame({"recording_id": list("abcd"), "fold": range(4)})
PAIRS = {f"r1/folds{i}-{j}": "abcd"[i] + "abcd"[j] for i in range(4) for j in range(i + 1, 4)}
TRIPLES = {f"r0/folds{'-'.join(t)}": "".join("abcd"[int(k)] for k in t) for t in ("012", "013", "023", "123")}


def trace_nested(*rows, of_networks=None, without=(), tables=None):
    """The last of two rounds, a recording in each of four folds; rows have their student as a fourth."""
    table = pd.DataFrame(rows, columns=["recording_id", "teacher", "votes", "student"])
    held_out = {name: held for name, held in {**PAIRS, **TRIPLES}.items() if name not in without}
    return trace_rounds({**(tables or {}), 2: table}, NESTED, held_out, "nested", of_networks)[-1]


SOUND = {name: labels() for name in PAIRS} | {"r1/folds0-2": labels(("b", "r0/folds0-1-2", 1))}


def test_nested_labels_are_proved_by_the_tables_of_their_networks():
    found = trace_nested(("c", "r1/folds0-2", 1, "0"), ("t", "r1/folds0-*", 3, "0"), of_networks=SOUND)
    assert found.violations == []
    assert found.sentence == (
        "isolated: no teacher had seen its recording, or what its student is validated on (1 of 1)"
    )
    assert found.depth == "for 1 labels, no network in the makers' line had seen the recording"


def test_a_teacher_that_was_taught_its_student_s_fold_is_named_where_its_recording_was_safe():
    """r0/folds1-2-3 had seen a, which student 0 is validated on, and not c."""
    leaking = SOUND | {"r1/folds0-2": labels(("b", "r0/folds1-2-3", 1))}
    found = trace_nested(("c", "r1/folds0-2", 1, "0"), of_networks=leaking)
    assert (found.n_unseen, found.n_inherited) == (1, 0)
    told = (
        "recording c (fold 2) was labelled by r1/folds0-2, and teachers of r1/folds0-2 had trained on fold "
        "0, which the student is validated on"
    )
    assert found.violations == [told]
    assert found.sentence == f"NOT nested: {told}"


@pytest.mark.parametrize("recording_id", ["c", "t"])
def test_what_nested_networks_were_taught_is_not_known_without_their_tables(recording_id):
    """The round's own table tells what its students were taught, and nothing of networks beside them."""
    rows = [("b", "r0/folds0-1", 1, "0")]
    first = pd.DataFrame(rows, columns=["recording_id", "teacher", "votes", "student"])
    without = {name: table for name, table in SOUND.items() if name != "r1/folds0-2"}
    teacher = {"c": "r1/folds0-2", "t": "r1/folds0-*"}[recording_id]
    found = trace_nested((recording_id, teacher, 1, "0"), of_networks=without, tables={1: first})
    with pytest.raises(UserError, match=r"and what r1/folds0-2 was taught is unknown: files of earlier ro"):
        refuse_violations(found)
    if recording_id == "c":
        assert not found.is_traced
        assert found.sentence.startswith("nested is not proved: recording c (fold 2)")
        assert found.depth.endswith("is unknown: files of earlier rounds are gone")


def test_what_a_lost_network_had_seen_is_not_known_where_it_may_have_taught():
    """Two triples voted on the test recordings that r1/folds0-2 learned from."""
    voted = SOUND | {"r1/folds0-2": labels(("t", "r0/folds0-2-*", 1))}
    row = ("c", "r1/folds0-2", 1, "0")
    assert trace_nested(row, of_networks=voted).violations == []
    (told,) = trace_nested(row, of_networks=voted, without=["r0/folds0-2-3"]).violations
    assert told.endswith("and what r1/folds0-2 was taught is unknown: files of earlier rounds are gone")


@pytest.mark.parametrize(
    ("without", "votes", "told"),
    [
        (["r1/folds0-1", "r1/folds0-2"], 2, "weights of 1 of 3 networks"),
        (["r1/folds0-1"], 1, "weights of 2 of 3 networks"),  # it may have been the one that voted
        ([], 4, "weights of 3 of 4 networks"),
    ],
)
def test_all_networks_that_voted_or_may_have_need_weights(without, votes, told):
    found = trace_nested(("t", "r1/folds0-*", votes, "0"), of_networks=SOUND, without=without)
    assert found.violations == [f"recording t was labelled by r1/folds0-*, of which there are {told}"]


def test_a_network_that_holds_out_more_folds_is_no_proof_of_one_whose_weights_are_lost():
    """r1/folds0-1-2 teaches networks of the next round, and had no vote for student 0."""
    held_out = {**PAIRS, **TRIPLES, "r1/folds0-1-2": "abc"}
    del held_out["r1/folds0-1"]
    table = labels(("t", "r1/folds0-*", 1)).assign(student="0")
    of_networks = SOUND | {"r1/folds0-1-2": labels()}
    (found,) = trace_rounds({2: table}, NESTED, held_out, "nested", of_networks)
    (told,) = found.violations
    assert told.endswith("by r1/folds0-*, of which there are weights of 2 of 3 networks")


def test_a_round_that_lacks_weights_of_a_network_that_voted_is_refused():
    found = trace(labels(("t", "r0", 3)))
    assert found.violations == [
        "recording t was labelled by r0, of which there are weights of 2 of 3 networks"
    ]


def naive_line(recording, network, tables, held_out):
    """Whether a network, or a maker of a label that it was trained on, was trained on the recording."""
    if recording not in held_out[network]:
        return True
    number = int(network[1])
    table = tables[number] if number else labels()
    return any(
        naive_line(recording, maker, tables, held_out)
        for labelled, teacher in zip(table["recording_id"], table["teacher"], strict=True)
        if labelled not in held_out[network]
        for maker in ([teacher] if "/" in teacher else [one for one in held_out if one.startswith(teacher)])
    )


@pytest.mark.parametrize("seed", range(5))
def test_inheritance_is_that_of_a_naive_twin(seed):
    rng = np.random.default_rng(seed)
    names = [f"x{k}" for k in range(6)]
    folds = pd.DataFrame({"recording_id": names, "fold": np.arange(6) // 2})
    held_out = {f"r{number}/fold{k}": names[2 * k : 2 * k + 2] for number in range(3) for k in range(3)}
    tables = {}
    for number in (1, 2, 3):
        chosen = rng.choice(6, size=rng.integers(1, 3), replace=False)
        tables[number] = labels(*((names[k], f"r{number - 1}/fold{k // 2}", 1) for k in chosen))
    for found in trace_rounds(tables, folds, held_out, "recording"):
        expected = sum(
            naive_line(recording, teacher, tables, held_out)
            for recording, teacher, _ in tables[found.round].itertuples(index=False)
        )
        assert found.is_traced
        assert (found.n_inherited, found.n_unseen) == (expected, len(tables[found.round]) - expected)


def write_result(folder, table):
    write_folds(
        pd.DataFrame({"recording_id": list(TRAIN), "fold": np.arange(len(TRAIN)) % 3}),
        folder / "data/folds.csv",
    )
    write_pseudo_labels(table, folder / "pseudo/r1.csv")
    for fold in range(3):
        save_fold(folder / "models/r0", fold)
    return {"pseudo.rounds": "1", "split.folds": "[0, 1, 2]"}


def as_table(rows):
    from tests.toy_models import toy_clips

    clips = toy_clips().drop_duplicates("recording_id").set_index("recording_id", drop=False)
    table = clips.loc[[recording_id for recording_id, _ in rows]].assign(
        label_type="pseudo", round=1, teacher=[teacher for _, teacher in rows], score=0.9, votes=1, target=1.0
    )
    return table.reset_index(drop=True)


def test_the_lineage_of_files_is_that_of_what_they_hold(tmp_path):
    table = as_table([(TOY_FOLDS[0][0], "r0/fold0"), (TOY_FOLDS[1][0], "r0/fold2")])
    params = write_result(tmp_path, table)
    (found,) = read_lineage(tmp_path.joinpath, [], params)
    assert (found.n_unseen, found.n_seen) == (1, 1)
    assert read_lineage(tmp_path.joinpath, [], params | {"pseudo.rounds": "0"}) == []
    (tmp_path / "models/r0/fold2.pt").unlink()
    with pytest.raises(UserError, match=r"fold2\.pt: not found"):
        read_lineage(tmp_path.joinpath, [], params)


def test_weights_of_another_fold_prove_nothing(tmp_path):
    params = write_result(tmp_path, as_table([(TOY_FOLDS[0][0], "r0/fold0")]))
    save_fold(tmp_path / "models/r0", 1, name="fold0.pt")
    with pytest.raises(UserError, match=r"fold0\.pt: holds the weights of fold 1, not of fold 0"):
        read_lineage(tmp_path.joinpath, [], params)


def test_a_damaged_weights_file_is_named(tmp_path):
    params = write_result(tmp_path, as_table([(TOY_FOLDS[0][0], "r0/fold0")]))
    (tmp_path / "models/r0/fold1.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"fold1\.pt: not readable as weights"):
        read_lineage(tmp_path.joinpath, [], params)
