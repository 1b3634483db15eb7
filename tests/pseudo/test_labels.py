import numpy as np
import pandas as pd
import pytest

from callboard.data.clips import PROVENANCE_DTYPES, read_clips
from callboard.params.scoring import PseudoParams
from callboard.pseudo.labels import (
    LEAST_TARGET,
    PSEUDO_SOURCES,
    TeacherScores,
    as_clips,
    find_negatives,
    find_pseudo_labels,
    label_recordings,
    write_pseudo_labels,
)
from callboard.scoring.window_scores import HEADS, WindowScores
from tests.toy_scoring import pseudo_params

PARAMS = pseudo_params()
SPECIES = ["a", "b"]
N_FRAMES = {"r0": 300, "r1": 15}


def clips_of(*rows):
    """Rows given as (recording, species, label type, start, stop)."""
    table = pd.DataFrame(
        rows, columns=["recording_id", "species_id", "label_type", "start_frame", "stop_frame"]
    )
    return table.astype({"start_frame": int, "stop_frame": int}).assign(clip_id=range(len(table)))


def scores_of(*windows, fold=(0, 1)):
    """Windows given as (recording, peak frame, attention logits, max logits), one peak for all species."""
    recording, peak, attention, largest = zip(*windows, strict=True)
    heads = {"attention": attention, "max": largest, "segment_max": largest}
    return WindowScores(
        recording_ids=list(N_FRAMES),
        species=SPECIES,
        recording=np.array(recording, dtype=np.int32),
        start_frame=np.zeros(len(windows), dtype=np.int32),
        heads={name: np.array(heads[name], dtype=np.float32)[:, None] for name in HEADS},
        peak_frame=np.repeat(np.array(peak, dtype=np.int32)[:, None, None], 2, axis=2),
        fold=np.array(fold),
    )


SURE, LOW = 5.0, -5.0
QUIET_R1 = (1, 7, (LOW, LOW), (LOW, LOW))


def spans(found):
    return list(
        found[["recording_id", "species_id", "start_frame", "stop_frame"]].itertuples(index=False, name=None)
    )


@pytest.mark.parametrize(("head", "species"), [("attention", ["a"]), ("max", ["b"]), ("attention_max", [])])
def test_the_head_that_is_asked_for_labels(head, species):
    """The attention logit hears a, the largest one b; their mean is sure of neither."""
    scores = scores_of((0, 100, (SURE, LOW), (LOW, SURE)), QUIET_R1)
    params = pseudo_params(head=head, labels="soft", negative_threshold=0.01)
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, params, "r2")
    assert found["species_id"].tolist() == species
    np.testing.assert_allclose(found["target"], 1 / (1 + np.exp(-SURE)), atol=1e-5)
    heard = TeacherScores(scores, 60, N_FRAMES)
    absent = find_negatives(heard, clips_of(), params, "r2").query("recording_id == 'r0'")
    assert absent["species_id"].tolist() == [name for name in ("a", "b") if species and name not in species]


def test_a_sure_window_becomes_a_span_around_its_peak():
    scores = scores_of((0, 100, (SURE, LOW), (SURE, LOW)), QUIET_R1)
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")
    assert spans(found) == [("r0", "a", 90, 110)]
    assert found["score"].iloc[0] == pytest.approx(1 / (1 + np.exp(-5)), rel=1e-3)
    assert found["teacher"].tolist() == ["r2/fold0"]
    assert found["votes"].tolist() == [1]


def test_both_heads_must_be_sure_on_average():
    scores = scores_of((0, 100, (SURE, 1.0), (SURE, SURE)), QUIET_R1)  # b: (0.73 + 0.99) / 2 < 0.9
    assert find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")["species_id"].tolist() == ["a"]


def test_a_probability_at_the_threshold_is_a_vote_for_presence():
    scores = scores_of((0, 100, (0.0, -0.01), (0.0, -0.01)), QUIET_R1)
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, pseudo_params(threshold=0.5), "r2")
    assert spans(found) == [("r0", "a", 90, 110)]


def test_spans_stay_inside_the_recording():
    scores = scores_of(
        (0, 3, (SURE, LOW), (SURE, LOW)), (0, 299, (SURE, LOW), (SURE, LOW)), (1, 7, (LOW, SURE), (LOW, SURE))
    )
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")
    assert spans(found) == [("r0", "a", 0, 20), ("r0", "a", 280, 300), ("r1", "b", 0, 15)]


@pytest.mark.parametrize("label_type", ["tp", "fp"])
def test_an_expert_wins_over_a_pseudo_label_of_the_species_in_the_span(label_type):
    scores = scores_of((0, 100, (SURE, SURE), (SURE, SURE)), (0, 200, (SURE, LOW), (SURE, LOW)), QUIET_R1)
    clips = clips_of(("r0", "a", label_type, 109, 150), ("r1", "a", label_type, 0, 15))
    found = find_pseudo_labels(scores, clips, N_FRAMES, PARAMS, "r2")
    assert spans(found) == [("r0", "b", 90, 110), ("r0", "a", 190, 210)]


def test_an_annotation_that_only_touches_the_span_does_not_count():
    scores = scores_of((0, 100, (SURE, LOW), (SURE, LOW)), QUIET_R1)
    clips = clips_of(("r0", "a", "tp", 110, 150), ("r0", "a", "fp", 80, 90))
    assert len(find_pseudo_labels(scores, clips, N_FRAMES, PARAMS, "r2")) == 1


def test_of_overlapping_windows_the_surest_stays():
    scores = scores_of(
        (0, 100, (3.0, LOW), (3.0, LOW)),
        (0, 110, (SURE, LOW), (SURE, LOW)),
        (0, 125, (4.0, LOW), (4.0, LOW)),
        (0, 140, (3.0, LOW), (3.0, LOW)),
        QUIET_R1,
    )
    assert spans(find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")) == [
        ("r0", "a", 100, 120),
        ("r0", "a", 130, 150),
    ]


def heard_by_all(*windows, recording_ids=("r0", "r1")):
    """Windows given as (recording, per model (peak frame, logit of a, logit of b))."""
    recording, per_model = zip(*windows, strict=True)
    peak = np.array([[[frame, frame] for frame, *_ in models] for models in per_model], dtype=np.int32)
    logits = np.array([[model[1:] for model in models] for models in per_model], dtype=np.float32)
    return WindowScores(
        recording_ids=list(recording_ids),
        species=SPECIES,
        recording=np.array(recording, dtype=np.int32),
        start_frame=np.zeros(len(windows), dtype=np.int32),
        heads=dict.fromkeys(HEADS, logits),
        peak_frame=peak,
        fold=None,
    )


QUIET = [(7, LOW, LOW)] * 3


def test_models_of_all_folds_vote_and_the_voters_mean_is_the_score():
    scores = heard_by_all(
        (0, [(100, SURE, LOW), (110, 3.0, SURE), (200, 1.0, LOW)]),  # a: two votes, b: one
        (1, QUIET),
    )
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")
    assert spans(found) == [("r0", "a", 90, 110)]  # around the peak of the surest model
    sigmoid = 1 / (1 + np.exp(-np.array([5.0, 3.0])))
    assert found["score"].iloc[0] == pytest.approx(sigmoid.mean(), rel=1e-6)
    assert (found["votes"].iloc[0], found["teacher"].iloc[0]) == (2, "r2")


@pytest.mark.parametrize(("min_votes", "species"), [(1, ["a", "b"]), (2, ["a", "b"]), (3, ["b"])])
def test_the_votes_needed_are_set(min_votes, species):
    scores = heard_by_all((0, [(50, SURE, SURE), (50, SURE, SURE), (50, LOW, SURE)]), (1, QUIET))
    params = PARAMS.model_copy(update={"min_votes": min_votes})
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, params, "r2")
    assert found["species_id"].tolist() == species


def test_votes_of_different_windows_do_not_add_up():
    window = [(50, SURE, LOW), *QUIET[1:]]
    scores = heard_by_all((0, window), (0, window), (0, window), (1, QUIET))
    assert find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2").empty


def test_scores_of_all_models_for_a_training_recording_are_refused():
    scores = heard_by_all((0, [(100, SURE, LOW)] * 3), (1, QUIET))
    with pytest.raises(ValueError, match="training recordings need out-of-fold scores"):
        find_pseudo_labels(scores, clips_of(("r1", "b", "fp", 0, 9)), N_FRAMES, PARAMS, "r2")


def test_every_source_of_the_params_is_in_its_table():
    assert set(PSEUDO_SOURCES) == set(PseudoParams.model_fields["source"].annotation.__args__)


def test_rows_can_be_read_as_clips_and_tell_where_they_come_from(tmp_path):
    scores = scores_of((0, 100, (LOW, SURE), (LOW, SURE)), (1, 5, (SURE, LOW), (SURE, LOW)))
    clips = clips_of(("r0", "a", "tp", 0, 9), ("r0", "a", "fp", 9, 19))
    table = as_clips(find_pseudo_labels(scores, clips, N_FRAMES, PARAMS, "r2"), clips, 3)
    write_pseudo_labels(table, tmp_path / "r3.csv")
    read = read_clips(tmp_path / "r3.csv")
    assert read["clip_id"].tolist() == [2, 3]
    assert read["label_type"].tolist() == ["pseudo", "pseudo"]
    assert read["teacher"].tolist() == ["r2/fold0", "r2/fold1"]
    assert read["round"].tolist() == [3, 3]
    assert read["votes"].tolist() == [1, 1]
    assert read["target"].tolist() == [1.0, 1.0]
    assert read["student"].tolist() == ["", ""]
    assert read["t_min"].isna().all()
    assert read[["low_mel", "high_mel"]].to_numpy().tolist() == [[0, 0], [0, 0]]
    assert read.columns[-6:].tolist() == list(PROVENANCE_DTYPES)


def test_no_sure_window_gives_a_table_without_rows(tmp_path):
    scores = scores_of((0, 100, (LOW, LOW), (LOW, LOW)), QUIET_R1)
    table = as_clips(find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2"), clips_of(), 1)
    write_pseudo_labels(table, tmp_path / "r1.csv")
    assert read_clips(tmp_path / "r1.csv").empty


# what a student is taught


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def test_a_hard_positive_is_taught_as_present():
    scores = scores_of((0, 100, (SURE, LOW), (SURE, LOW)), QUIET_R1)
    assert find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")["target"].tolist() == [1.0]


def test_a_soft_target_tempers_each_head_before_the_heads_are_averaged_and_then_sharpens():
    scores = scores_of((0, 100, (SURE, LOW), (3.0, LOW)), QUIET_R1)
    params = pseudo_params(labels="soft", temperature=2.0, power=1.5)
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, params, "r2")
    expected = ((sigmoid(SURE / 2) + sigmoid(3.0 / 2)) / 2) ** 1.5
    assert found["target"].tolist() == pytest.approx([expected], rel=1e-6)
    assert found["score"].tolist() == pytest.approx([(sigmoid(SURE) + sigmoid(3.0)) / 2], rel=1e-6)


def test_temperature_moves_targets_but_neither_votes_nor_spans():
    scores = scores_of((0, 100, (SURE, 1.0), (SURE, 1.0)), (0, 160, (2.5, LOW), (2.5, LOW)), QUIET_R1)
    hard = find_pseudo_labels(scores, clips_of(), N_FRAMES, PARAMS, "r2")
    soft = find_pseudo_labels(
        scores, clips_of(), N_FRAMES, pseudo_params(labels="soft", temperature=5.0), "r2"
    )
    pd.testing.assert_frame_equal(hard.drop(columns="target"), soft.drop(columns="target"))
    assert (soft["target"] < PARAMS.threshold).all()


def test_the_soft_target_of_several_models_is_of_those_that_voted():
    scores = heard_by_all((0, [(100, SURE, LOW), (110, 3.0, LOW), (200, 1.0, LOW)]), (1, QUIET))
    params = pseudo_params(labels="soft", power=2.0)
    found = find_pseudo_labels(scores, clips_of(), N_FRAMES, params, "r2")
    assert found["target"].tolist() == pytest.approx([((sigmoid(5.0) + sigmoid(3.0)) / 2) ** 2], rel=1e-6)


def test_no_positive_is_sharpened_into_an_absence():
    scores = scores_of((0, 100, (SURE, LOW), (SURE, LOW)), QUIET_R1)
    params = pseudo_params(labels="soft", temperature=50.0, power=100.0)
    table = as_clips(find_pseudo_labels(scores, clips_of(), N_FRAMES, params, "r2"), clips_of(), 1)
    assert table["target"].tolist() == [LEAST_TARGET]


# absences

WINDOW = 50


def rows_of(*windows, n_models=1, fold=None, n_frames=300):
    """One recording of windows given as (start, per model logit of a, logit of b), as heard."""
    start = np.array([window[0] for window in windows], dtype=np.int32)
    logits = np.array([window[1:] for window in windows], dtype=np.float32).reshape(len(windows), n_models, 2)
    peak = np.broadcast_to((start + WINDOW // 2)[:, None, None], logits.shape).astype(np.int32)
    scores = WindowScores(
        ["r0"],
        SPECIES,
        np.zeros(len(windows), dtype=np.int32),
        start,
        dict.fromkeys(HEADS, logits),
        peak,
        None if fold is None else np.array([fold]),
    )
    return TeacherScores(scores, WINDOW, {"r0": n_frames})


def negatives(heard, clips, **changes):
    params = pseudo_params(negative_threshold=0.01, **changes)
    found = label_recordings(heard, clips, params, "r2")
    return found[found["target"] == 0].reset_index(drop=True)


def test_windows_of_silence_are_joined_to_one_span_of_absence():
    heard = rows_of((0, LOW, 0.0), (40, -6.0, 0.0), (80, LOW, 0.0), (140, LOW, LOW), (190, LOW, 0.0), fold=1)
    found = negatives(heard, clips_of(), min_votes=1)
    assert spans(found) == [("r0", "a", 0, 130), ("r0", "a", 140, 240), ("r0", "b", 140, 190)]
    assert found["teacher"].tolist() == ["r2/fold1"] * 3
    assert found["score"].tolist() == pytest.approx([sigmoid(LOW)] * 3, rel=1e-5)
    assert found["votes"].tolist() == [1, 1, 1]


def test_without_a_negative_threshold_nothing_is_called_absent():
    heard = rows_of((0, LOW, LOW), fold=1)
    assert label_recordings(heard, clips_of(), PARAMS, "r2").empty
    with pytest.raises(ValueError, match="negatives need a negative_threshold"):
        find_negatives(heard, clips_of(), PARAMS, "r2")


def test_a_span_of_absence_ends_with_the_recording():
    found = negatives(rows_of((0, LOW, 0.0), (40, LOW, 0.0), fold=0, n_frames=70), clips_of())
    assert spans(found) == [("r0", "a", 0, 70)]


@pytest.mark.parametrize("label_type", ["tp", "fp"])
def test_no_window_with_a_frame_that_an_expert_judged_is_called_absent(label_type):
    heard = rows_of((0, LOW, LOW), (40, LOW, LOW), (90, LOW, LOW), (140, LOW, LOW), fold=0)
    clips = clips_of(("r0", "a", label_type, 45, 91), ("elsewhere", "a", label_type, 0, 300))
    assert spans(negatives(heard, clips)) == [("r0", "b", 0, 190), ("r0", "a", 140, 190)]


def test_a_window_that_only_touches_what_an_expert_judged_is_called_absent():
    heard = rows_of((0, LOW, 0.0), (50, LOW, 0.0), (110, LOW, 0.0), fold=0)
    clips = clips_of(("r0", "a", "fp", 50, 60), ("r0", "a", "fp", 100, 110))
    assert spans(negatives(heard, clips)) == [("r0", "a", 0, 50), ("r0", "a", 110, 160)]


def test_a_positive_wins_over_the_windows_that_it_reaches_into():
    heard = rows_of((0, LOW, 0.0), (50, SURE, 0.0), (100, LOW, 0.0), fold=0)
    assert spans(negatives(heard, clips_of(), n_frames=20)) == [("r0", "a", 0, 50), ("r0", "a", 100, 150)]
    assert spans(negatives(heard, clips_of(), n_frames=52)) == []


def test_absence_needs_as_many_votes_as_presence_and_presence_wins():
    heard = rows_of(
        (0, LOW, 0.0, LOW, 0.0, 0.0, 0.0, 0.0, 0.0),  # two of four models hear no a
        (60, LOW, LOW, LOW, LOW, LOW, SURE, 0.0, SURE),  # b: two say absent and two present
        n_models=4,
    )
    clips = clips_of(("r0", "b", "fp", 80, 90))  # the positive of b is an expert's, so it is not there
    assert spans(negatives(heard, clips, min_votes=2, isolation="none")) == [
        ("r0", "a", 0, 50),
        ("r0", "a", 60, 110),
    ]
    assert spans(negatives(heard, clips, min_votes=3, isolation="none")) == [("r0", "a", 60, 110)]


def test_presence_wins_where_an_expert_outside_the_window_has_its_span():
    heard = rows_of((60, 0.0, LOW, 0.0, LOW, 0.0, SURE, 0.0, SURE), n_models=4)
    clips = clips_of(("r0", "b", "fp", 112, 114))  # in the positive's span 55 to 115, behind the window
    found = label_recordings(
        heard, clips, pseudo_params(negative_threshold=0.01, min_votes=2, n_frames=60, isolation="none"), "r2"
    )
    assert found.empty


def test_the_votes_of_a_joined_span_are_those_of_its_weakest_window():
    heard = rows_of((0, LOW, 0.0, LOW, 0.0), (50, LOW, 0.0, 0.0, 0.0), n_models=2)
    assert negatives(heard, clips_of(), min_votes=1, isolation="none")["votes"].tolist() == [1]


def test_a_probability_at_the_negative_threshold_is_a_vote_for_absence():
    heard = rows_of((0, 0.0, 1.0), fold=0)
    found = label_recordings(heard, clips_of(), pseudo_params(negative_threshold=0.5), "r2")
    assert spans(found) == [("r0", "a", 0, 50)]


def test_absences_are_those_of_a_naive_twin():
    rng = np.random.default_rng(0)
    names, n_windows = [f"r{k}" for k in range(20)], 7
    common = rng.normal(-3, 4, (20 * n_windows, 1, 2))
    logits = (common + rng.normal(0, 1, (20 * n_windows, 3, 2))).astype(np.float32)
    start = np.tile(np.arange(n_windows) * 40, 20).astype(np.int32)
    scores = WindowScores(
        names,
        SPECIES,
        np.repeat(np.arange(20, dtype=np.int32), n_windows),
        start,
        dict.fromkeys(HEADS, logits),
        np.broadcast_to((start + 11)[:, None, None], logits.shape).astype(np.int32),
        None,
    )
    n_frames = {name: 240 + 5 * k for k, name in enumerate(names)}
    params = pseudo_params(negative_threshold=0.02, isolation="none")
    judged = [(rng.choice(names), rng.choice(SPECIES), "fp", at, at + 30) for at in rng.integers(0, 200, 30)]
    found = label_recordings(TeacherScores(scores, WINDOW, n_frames), clips_of(*judged), params, "r0")
    is_positive = found["target"] > 0
    taken = [(row[0], row[1], row[3], row[4]) for row in judged] + spans(found[is_positive])
    expected = np.zeros((20, 2, 340), dtype=bool)
    for window in range(20 * n_windows):
        name, first = names[window // n_windows], start[window]
        last = min(first + WINDOW, n_frames[name])
        for column, species in enumerate(SPECIES):
            probability = sigmoid(logits[window, :, column].astype(float))
            is_free = all(
                (name, species) != other[:2] or last <= other[2] or other[3] <= first for other in taken
            )
            if (probability <= 0.02).sum() >= 2 > (probability >= 0.9).sum() and is_free:
                expected[window // n_windows, column, first:last] = True
    marked = np.zeros_like(expected)
    for name, species, first, last in spans(found[~is_positive]):
        cells = marked[names.index(name), SPECIES.index(species), first:last]
        assert not cells.any()
        cells[:] = True
    assert is_positive.any()
    assert expected.any()
    assert (marked == expected).all()


def test_without_isolation_models_of_all_folds_may_vote_on_training_recordings():
    scores = heard_by_all((0, [(100, SURE, LOW)] * 3), (1, QUIET))
    params = pseudo_params(isolation="none")
    found = find_pseudo_labels(scores, clips_of(("r1", "b", "fp", 0, 9)), N_FRAMES, params, "r2")
    assert found["teacher"].tolist() == ["r2"]
    assert found["votes"].tolist() == [3]
