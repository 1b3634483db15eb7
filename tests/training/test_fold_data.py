import numpy as np
import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.clips import read_clips
from callboard.data.folds import read_folds
from callboard.features.frame_cache import EncodedRecording, MelCache, write_cache
from callboard.params.training import TrainParams
from callboard.training.fold_data import CONFIRMED, LABELS, REJECTED
from callboard.training.sampling import draw_items
from tests.toy_training import SPECIES, annotation, choose_fold, clips_table, load_fold


def test_no_recording_of_the_validation_part_is_trained_on(root):
    fold_of = dict(read_folds(root / "folds.csv").to_numpy())
    cache = MelCache.open(root / "mel")
    for fold in range(3):
        data = load_fold(root, fold)
        annotated = np.flatnonzero((data.annotations.stop > 0).any(axis=1))
        for epoch in range(5):
            items = draw_items(data.annotations, 99, np.random.default_rng(epoch))
            assert set(items.recording) == set(annotated)
        assert all(fold_of[cache.recording_ids[row]] != fold for row in annotated)
        assert all(fold_of[cache.recording_ids[row]] == fold for row in data.validation)


def test_every_tp_recording_is_in_some_validation_part_with_its_species(root):
    rows = np.concatenate([load_fold(root, fold).validation for fold in range(3)])
    is_present = np.concatenate([load_fold(root, fold).is_present for fold in range(3)])
    assert sorted(rows) == list(range(12))
    assert [SPECIES[i] for i in is_present.argmax(axis=1)] == [SPECIES[row % 3] for row in rows]
    assert (is_present.sum(axis=1) == 1).all()


def test_class_counts_are_of_the_tp_rows_of_the_training_part(root):
    clips, folds = read_clips(root / "clips.csv"), read_folds(root / "folds.csv")
    training = folds.loc[folds["fold"] != 1, "recording_id"]
    tp = clips[(clips["label_type"] == "tp") & clips["recording_id"].isin(training)]
    expected = [int((tp["species_id"] == name).sum()) for name in SPECIES]
    assert load_fold(root, 1).n_tp_annotations.tolist() == expected


def test_annotations_are_kept_tp_first_then_fp_then_pseudo(root):
    clips = clips_table(
        annotation("r01", "pseudo", "07", 30, 40),
        annotation("r01", "fp", "a", 20, 30, (3, 9)),
        annotation("r02", "tp", "a", 0, 5),
        annotation("r01", "tp", "2e1", 10, 20),
    )
    kept = choose_fold(root, clips).annotations
    assert kept.start[1].tolist() == [10, 20, 30]
    assert kept.stop[1].tolist() == [20, 30, 40]
    assert kept.low[1].tolist() == [0, 3, 0]
    assert kept.high[1].tolist() == [0, 9, 0]
    assert kept.species[1].tolist() == [2, 0, 1]
    assert kept.is_fp[1].tolist() == [False, True, False]
    assert (kept.n_tp[1], kept.n_fp[1], kept.n_pseudo[1]) == (1, 1, 1)
    assert kept.stop[2].tolist() == [5, 0, 0]


def test_a_fold_that_does_not_exist_is_refused(root):
    with pytest.raises(UserError, match=r"fold 7 is not in the folds table, which has \[0, 1, 2\]"):
        load_fold(root, 7)


def test_a_training_part_without_tp_is_refused(root):
    clips = clips_table(annotation("r00", "tp", "a", 0, 5), annotation("r01", "fp", "a", 0, 5))
    with pytest.raises(UserError, match="fold 0: its training part has no TP annotation"):
        choose_fold(root, clips)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (annotation("r99", "tp", "a", 0, 5), "1 annotation.* recording_id that the folds table lacks.*r99"),
        (
            annotation("r01", "tp", "7", 0, 5),
            "species_id that the species table lacks, first: tp of species 7",
        ),
        (annotation("r01", "maybe", "a", 0, 5), "label_type must be one of tp, fp, pseudo, found maybe"),
    ],
)
def test_annotations_of_something_unknown_are_refused(root, row, message):
    with pytest.raises(UserError, match=message):
        choose_fold(root, clips_table(annotation("r02", "tp", "a", 0, 5), row))


def test_a_recording_that_the_cache_lacks_is_refused(root):
    folds = pd.DataFrame({"recording_id": ["r00", "r01", "ghost"], "fold": [0, 1, 1]})
    with pytest.raises(UserError, match="recording 'ghost' is not among"):
        choose_fold(root, clips_table(annotation("ghost", "tp", "a", 0, 5)), folds=folds)


@pytest.fixture(scope="module")
def test_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("test")
    frames = np.random.default_rng(1).integers(0, 256, (2, 90, 32), dtype=np.uint8)
    write_cache(folder, (EncodedRecording(f"t{i}", frames[i], -80.0, 0.0) for i in range(2)), 32)
    return MelCache.open(folder)


def with_pseudo(root, *rows):
    return pd.concat([read_clips(root / "clips.csv"), clips_table(*rows)])


def test_a_pseudo_label_of_a_test_recording_is_trained_on_in_every_fold_and_validates_none(root, test_cache):
    clips = with_pseudo(root, annotation("t1", "pseudo", "07", 10, 30))
    for fold in range(3):
        data, plain = choose_fold(root, clips, fold, test=test_cache), load_fold(root, fold)
        assert data.annotations.n_pseudo.nonzero()[0].tolist() == [17]
        assert data.annotations.start[17, 0] == 10
        assert 17 in draw_items(data.annotations, 0, np.random.default_rng(0)).recording
        assert data.annotations.has_positive_clip.sum() == plain.annotations.has_positive_clip.sum() + 1
        assert np.array_equal(data.validation, plain.validation)
        assert np.array_equal(data.is_present, plain.is_present)
        assert np.array_equal(data.n_tp_annotations, plain.n_tp_annotations)
        frames = data.frames[data.first_frame[17] + np.arange(data.n_frames[17])]
        assert np.array_equal(frames, test_cache.read("t1"))


def test_a_pseudo_label_of_a_held_out_training_recording_is_never_trained_on(root, test_cache):
    fold_of = dict(read_folds(root / "folds.csv").to_numpy())
    rows = [annotation(f"r{i:02d}", "pseudo", "a", 1, 9) for i in range(16)]
    for fold in range(3):
        for test in (None, test_cache):
            kept = choose_fold(root, with_pseudo(root, *rows), fold, test=test).annotations
            trained = [f"r{row:02d}" for row in np.flatnonzero(kept.n_pseudo)]
            assert trained == [name for name in fold_of if fold_of[name] != fold]


def test_a_pseudo_label_of_a_held_out_recording_is_nothing_to_validate_on(root):
    """The annotations are of another species, in a recording with a call and in one without."""
    rows = [annotation(f"r{i:02d}", "pseudo", SPECIES[(i + 1) % 3], 1, 9) for i in range(16)]
    for fold in range(3):
        data, plain = choose_fold(root, with_pseudo(root, *rows), fold), load_fold(root, fold)
        assert np.array_equal(data.validation, plain.validation)
        assert np.array_equal(data.is_present, plain.is_present)


@pytest.mark.parametrize("label_type", ["tp", "fp"])
def test_only_pseudo_labels_excuse_a_test_recording_from_folds(root, test_cache, label_type):
    clips = with_pseudo(root, annotation("t1", label_type, "07", 10, 30))
    with pytest.raises(
        UserError, match=r"recording_id that the folds table lacks, first: .* in recording t1"
    ):
        choose_fold(root, clips, test=test_cache)


def test_a_training_recording_without_a_fold_is_refused_with_its_pseudo_labels(root, test_cache):
    folds = read_folds(root / "folds.csv")
    clips = clips_table(annotation("r02", "tp", "a", 0, 5), annotation("r15", "pseudo", "a", 0, 5))
    with pytest.raises(UserError, match=r"recording_id that the folds table lacks, first: pseudo .* r15"):
        choose_fold(root, clips, folds=folds[folds["recording_id"] != "r15"], test=test_cache)


def test_labels_fp_trains_on_rejected_boxes_and_validates_on_confirmed_ones(root):
    clips, folds = read_clips(root / "clips.csv"), read_folds(root / "folds.csv")
    data, plain = load_fold(root, 1, labels="fp"), load_fold(root, 1)
    fp = clips[
        (clips["label_type"] == "fp")
        & clips["recording_id"].isin(folds.loc[folds["fold"] != 1, "recording_id"])
    ]
    expected = sorted(int(name[1:]) for name in fp["recording_id"])
    assert np.flatnonzero(data.annotations.n_tp).tolist() == expected
    assert not data.annotations.n_fp.any()
    assert not data.annotations.is_fp.any()
    assert np.array_equal(
        data.annotations.start.max(axis=1)[expected], fp.sort_values("recording_id")["start_frame"]
    )
    assert data.n_tp_annotations.tolist() == [int((fp["species_id"] == name).sum()) for name in SPECIES]
    assert data.n_tp_annotations.tolist() != plain.n_tp_annotations.tolist()
    assert data.annotations.has_positive_clip.sum() == len(expected)
    assert np.array_equal(data.validation, plain.validation)
    assert np.array_equal(data.is_present, plain.is_present)


def test_labels_fp_without_a_rejected_box_is_refused(root):
    with pytest.raises(UserError, match="fold 0: its training part has no FP annotation"):
        choose_fold(root, clips_table(annotation("r01", "tp", "a", 0, 5)), labels="fp")


def test_every_label_choice_of_the_params_is_in_its_table():
    assert set(LABELS) == set(TrainParams.model_fields["labels"].annotation.__args__)


def test_song_types_are_classes_in_training_and_species_in_validation(root):
    clips = clips_table(
        annotation("r01", "tp", "07", 0, 5, songtype_id="4"),
        annotation("r02", "tp", "07", 0, 5, songtype_id="1"),
        annotation("r02", "fp", "07", 9, 12, songtype_id="4"),
        annotation("r05", "fp", "07", 9, 12, songtype_id="9"),  # rejects none of the classes
        annotation("r06", "fp", "a", 9, 12, songtype_id="9"),
        annotation("r06", "pseudo", "07", 20, 25, songtype_id=""),
        annotation("r00", "tp", "07", 0, 5, songtype_id="4"),
    )
    data = choose_fold(root, clips, classes="songtype")  # a, 07:1, 07:4, 2e1
    assert data.class_species.tolist() == [0, 1, 1, 2]
    assert data.n_classes == 4
    assert data.n_tp_annotations.tolist() == [0, 1, 1, 0]
    kept = data.annotations
    assert kept.species[1, 0] == 2
    assert kept.species[2, :2].tolist() == [1, 2]
    assert (kept.n_tp[5], kept.n_fp[5]) == (0, 0)
    assert kept.species[6].tolist() == [0, 1, 2]
    assert kept.is_fp[6].tolist() == [True, False, False]
    assert data.is_present.tolist() == [[False, True, False]]


def with_targets(table, *targets):
    return table.assign(target=np.array(targets, dtype=np.float64))


def test_pseudo_labels_say_their_target_and_one_without_says_1(root):
    clips = with_targets(
        clips_table(
            annotation("r01", "pseudo", "07", 30, 40),
            annotation("r01", "pseudo", "a", 50, 60),
            annotation("r01", "pseudo", "a", 0, 20),
            annotation("r01", "fp", "a", 20, 30),
            annotation("r02", "tp", "a", 0, 5),
        ),
        *(0.4, np.nan, 0.0, np.nan, np.nan),
    )
    kept = choose_fold(root, clips).annotations
    assert kept.verdict[1].tolist() == [REJECTED, 0.4, 1.0, 0.0]
    assert kept.start[1].tolist() == [20, 30, 50, 0]
    assert kept.verdict[2, 0] == CONFIRMED
    assert [count[1] for count in (kept.n_tp, kept.n_fp, kept.n_pseudo, kept.n_negative)] == [0, 1, 2, 1]
    assert choose_fold(root, clips.drop(columns="target")).annotations.verdict[1].tolist() == [2, 1, 1, 1]


def test_negatives_that_touch_or_overlap_are_one_span(root):
    spans = [
        ("a", 60, 80),
        ("a", 0, 20),
        ("a", 20, 40),
        ("a", 70, 75),
        ("a", 41, 50),
        ("07", 10, 30),
        ("07", 0, 9),
    ]
    negatives = [annotation("r01", "pseudo", *span) for span in spans]
    other = annotation("r05", "pseudo", "a", 5, 60)
    table = with_targets(
        clips_table(annotation("r02", "tp", "a", 0, 5), *negatives, other), np.nan, *[0.0] * 8
    )
    kept = choose_fold(root, table).annotations
    joined = zip(kept.species[1], kept.start[1], kept.stop[1], strict=True)
    assert sorted(joined) == [(0, 0, 40), (0, 41, 50), (0, 60, 80), (1, 0, 9), (1, 10, 30)]
    assert kept.n_negative.tolist()[:6] == [0, 5, 0, 0, 0, 1]
    assert (kept.start[5, 0], kept.stop[5, 0]) == (5, 60)


@pytest.mark.parametrize("seed", range(5))
def test_joined_negatives_cover_the_frames_that_they_covered(root, seed):
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 130, 40)
    spans = np.stack([start, start + rng.integers(1, 20, 40)])
    species = rng.integers(0, 3, 40)
    rows = [annotation("r01", "pseudo", SPECIES[k], *span) for k, span in zip(species, spans.T, strict=True)]
    table = with_targets(clips_table(annotation("r02", "tp", "a", 0, 5), *rows), np.nan, *[0.0] * 40)
    kept = choose_fold(root, table).annotations
    for k in range(3):
        before, after = np.zeros(150, dtype=int), np.zeros(150, dtype=int)
        for first, stop in spans[:, species == k].T:
            before[first:stop] = 1
        is_k = kept.species[1] == k
        for first, stop in zip(kept.start[1, is_k], kept.stop[1, is_k], strict=True):
            after[first:stop] += 1
        assert np.array_equal(before, after)


PSEUDO_ALONE_AND_BESIDE_A_REJECTED_BOX = (
    annotation("r02", "tp", "a", 0, 5),
    annotation("r01", "pseudo", "a", 0, 64),
    annotation("r13", "fp", "a", 0, 5),
    annotation("r13", "pseudo", "07", 0, 64),
)


def test_a_recording_with_negatives_alone_has_windows_and_no_positive_clip(root):
    table = clips_table(*PSEUDO_ALONE_AND_BESIDE_A_REJECTED_BOX)
    kept = choose_fold(root, with_targets(table, np.nan, 0, np.nan, 0)).annotations
    assert np.flatnonzero(kept.has_positive_clip).tolist() == [2]
    assert np.flatnonzero(kept.has_window).tolist() == [1, 2]


def test_a_recording_with_a_rejected_box_is_not_shown_for_its_pseudo_labels(root):
    kept = choose_fold(root, clips_table(*PSEUDO_ALONE_AND_BESIDE_A_REJECTED_BOX)).annotations
    assert np.flatnonzero(kept.has_positive_clip).tolist() == [1, 2]
    assert np.flatnonzero(kept.has_window).tolist() == [1, 2]


@pytest.mark.parametrize("target", [-0.1, 1.5])
def test_a_target_that_is_no_share_is_refused(root, target):
    table = clips_table(annotation("r02", "tp", "a", 0, 5), annotation("r01", "pseudo", "07", 0, 5))
    with pytest.raises(
        UserError, match=rf"1 annotation.* target outside \[0, 1\], first: {target} of species 07"
    ):
        choose_fold(root, with_targets(table, np.nan, target))
