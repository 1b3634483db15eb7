import numpy as np
import pytest
import torch

from callboard.training.targets import build_targets, find_labels
from tests.toy_training import CPU, SPECIES, annotation, choose_fold, clips_table, random_fold

ALL = slice(None)


def some_clips(data, seed, n_clips=40):
    rng = np.random.default_rng(seed)
    recording = rng.integers(0, len(data.n_frames), n_clips)
    return recording, rng.integers(0, data.n_frames[recording])


def naive_targets(data, recording, start, n_frames, mels, weight):
    """Cell by cell: dictionaries from (clip, species), (clip, frame, species), (clip, row of the clip,
    species) to a target and a label weight."""
    cells = {"clip": {}, "frame": {}, "band": {}}
    kinds = ("confirmed", "rejected", "heard", "not heard")
    for k, row in enumerate(recording):
        valid = set(range(start[k], min(start[k] + n_frames, data.n_frames[row])))
        spans = list(zip(*(column[row] for column in data.annotations[:6]), strict=True))
        for species in range(data.n_classes):
            said = {kind: [] for kind in kinds}
            for first, stop, low, high, of, verdict in spans:
                if of == species and (frames := set(range(first, stop)) & valid):
                    bands = {mel - mels.start for mel in range(low, high) if mels.start <= mel < mels.stop}
                    kind = {3: "confirmed", 2: "rejected", 0: "not heard"}.get(verdict, "heard")
                    said[kind].append((frames, bands, verdict))
            is_rejected = bool(said["rejected"]) and not said["confirmed"]
            heard = [] if is_rejected else said["heard"]

            def judge(confirmed, rejected, soft, is_absent):
                if confirmed or rejected:
                    return (float(confirmed), 1.0)
                return (weight * max(soft, default=0.0), weight) if soft or is_absent else None

            absent = set().union(*(frames for frames, _, _ in said["not heard"]))
            cells["clip"][k, species] = judge(
                bool(said["confirmed"]), is_rejected, [v for _, _, v in heard], valid <= absent
            )
            for t in valid:
                cells["frame"][k, t - start[k], species] = judge(
                    any(t in frames for frames, _, _ in said["confirmed"]),
                    any(t in frames for frames, _, _ in said["rejected"]),
                    [v for frames, _, v in heard if t in frames],
                    t in absent,
                )
            for mel in range(mels.stop - mels.start):
                cells["band"][k, mel, species] = judge(
                    any(mel in bands for _, bands, _ in said["confirmed"]),
                    any(mel in bands for _, bands, _ in said["rejected"]),
                    [],
                    False,
                )
    return cells


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_targets_equal_the_naive_twin(seed, weight):
    data, mels = random_fold(seed), slice(2, 9)
    recording, start = some_clips(data, seed)
    targets = build_targets(data, recording, start, 48, mels, CPU, weight)
    shapes = {"clip": (40, 4), "frame": (40, 48, 4), "band": (40, 7, 4)}
    for name, cells in naive_targets(data, recording, start, 48, mels, weight).items():
        target, labeled = torch.zeros(shapes[name]), torch.zeros(shapes[name])
        for cell, found in cells.items():
            if found:
                target[cell], labeled[cell] = found
        assert torch.equal(getattr(targets, name), target)
        assert torch.equal(getattr(targets, f"{name}_labeled"), labeled)


@pytest.mark.parametrize("seed", range(3))
def test_the_target_of_a_clip_is_the_largest_of_its_frames_and_no_target_is_above_its_label_weight(seed):
    data = random_fold(seed)
    recording, start = some_clips(data, seed, n_clips=200)
    targets = build_targets(data, recording, start, 48, ALL, CPU, 0.7)
    assert torch.equal(targets.clip, targets.frame.amax(dim=1))
    assert (targets.clip <= targets.clip_labeled).all()
    assert (targets.frame <= targets.frame_labeled).all()
    assert (targets.band <= targets.band_labeled).all()
    assert targets.clip_labeled.unique().tolist() == pytest.approx([0.0, 0.7, 1.0])


@pytest.mark.parametrize("seed", range(3))
def test_the_labels_found_are_those_of_the_targets(seed):
    """What decides which windows are shown and what they are compared with is one rule."""
    data = random_fold(seed)
    recording, start = some_clips(data, seed, n_clips=200)
    labels, targets = (
        find_labels(data, recording, start, 48),
        build_targets(data, recording, start, 48, ALL, CPU),
    )
    has_label = labels.clips_with(labels.is_of_clip, 200)
    assert np.array_equal(has_label, (targets.clip_labeled > 0).any(dim=1).numpy())
    assert 0 < has_label.sum() < 200


def marked(cells):
    return {name: np.flatnonzero(cells[0, :, k]).tolist() for k, name in enumerate(SPECIES)}


def targets_of(root, *rows, targets=None, start=10, n_frames=32, weight=1.0):
    """Of a clip of recording r01."""
    table = clips_table(annotation("r02", "tp", "a", 0, 5, (9, 10)), *rows)
    table = table if targets is None else table.assign(target=[np.nan, *targets])
    data = choose_fold(root, table)
    return build_targets(data, np.array([1]), np.array([start]), n_frames, slice(2, 10), CPU, weight)


def test_targets_by_hand(root):
    targets = targets_of(
        root,
        annotation("r01", "tp", "a", 10, 20, (4, 6)),
        annotation("r01", "tp", "a", 15, 25, (5, 7)),  # overlaps the one before
        annotation("r01", "fp", "a", 22, 30, (6, 9)),  # its first three frames are confirmed above
        annotation("r01", "fp", "07", 0, 12, (0, 3)),  # its last two frames are in the clip
        annotation("r01", "pseudo", "2e1", 19, 20),
        annotation("r01", "tp", "2e1", 42, 50, (8, 9)),  # begins with the frame after the clip
    )
    assert targets.clip.tolist() == [[1, 0, 1]]
    assert targets.clip_labeled.tolist() == [[1, 1, 1]]
    assert marked(targets.frame) == {"a": list(range(15)), "07": [], "2e1": [9]}
    assert marked(targets.frame_labeled) == {"a": list(range(20)), "07": [0, 1], "2e1": [9]}
    assert marked(targets.band) == {"a": [2, 3, 4], "07": [], "2e1": []}
    assert marked(targets.band_labeled) == {"a": [2, 3, 4, 5, 6], "07": [0], "2e1": []}


def test_a_soft_pseudo_label_counts_by_its_weight_and_the_larger_target_wins(root):
    rows = [annotation("r01", "pseudo", "07", 12, 16), annotation("r01", "pseudo", "07", 14, 20)]
    targets = targets_of(root, *rows, targets=[0.75, 0.5], weight=0.5)
    assert targets.clip.tolist() == [[0, 0.375, 0]]
    assert targets.clip_labeled.tolist() == [[0, 0.5, 0]]
    assert targets.frame[0, :11, 1].tolist() == [0, 0, *[0.375] * 4, *[0.25] * 4, 0]
    assert targets.frame_labeled[0, :, 1].sum() == 8 * 0.5
    assert not targets.band_labeled.any()


@pytest.mark.parametrize(
    ("spans", "labeled"),
    [([(0, 42)], 1), ([(0, 41)], 0), ([(11, 60)], 0), ([(0, 20), (20, 60)], 1), ([(0, 20), (21, 60)], 0)],
)
def test_a_clip_is_labelled_absent_only_where_all_of_its_frames_are(root, spans, labeled):
    rows = [annotation("r01", "pseudo", "07", *span) for span in spans]
    targets = targets_of(root, *rows, targets=[0.0] * len(spans))
    assert targets.clip_labeled.tolist() == [[0, labeled, 0]]
    assert not targets.clip.any()
    in_clip = {frame - 10 for span in spans for frame in range(*span)} & set(range(32))
    assert marked(targets.frame_labeled)["07"] == sorted(in_clip)


def test_frames_behind_the_end_of_a_recording_need_no_label(root):
    for stop, labeled in ((150, 1), (149, 0)):
        row = annotation("r01", "pseudo", "07", 100, stop)
        targets = targets_of(root, row, targets=[0.0], start=130)
        assert targets.clip_labeled.tolist() == [[0, labeled, 0]]
        assert targets.frame_labeled[0, :, 1].sum() == stop - 130


@pytest.mark.parametrize(("label_type", "target"), [("tp", 1.0), ("fp", 0.0)])
@pytest.mark.parametrize("pseudo", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("span", [(12, 16), (30, 40), (0, 150)])
def test_experts_win_over_pseudo_labels_of_the_species_in_the_clip(root, label_type, target, pseudo, span):
    expert = annotation("r01", label_type, "07", 12, 16, (3, 5))
    targets = targets_of(
        root, expert, annotation("r01", "pseudo", "07", *span), targets=[np.nan, pseudo], weight=0.5
    )
    assert targets.clip.tolist() == [[0, target, 0]]
    assert targets.clip_labeled.tolist() == [[0, 1, 0]]
    assert targets.frame[0, 2:6, 1].tolist() == [target] * 4
    assert targets.frame_labeled[0, 2:6, 1].tolist() == [1.0] * 4


def test_a_rejected_species_is_in_no_frame_of_the_clip_and_in_the_next_clip_it_is(root):
    rows = annotation("r01", "fp", "07", 12, 16), annotation("r01", "pseudo", "07", 40, 60)
    rejected, beyond = targets_of(root, *rows), targets_of(root, *rows, start=20)
    assert not rejected.frame.any()
    assert marked(rejected.frame_labeled)["07"] == [2, 3, 4, 5]
    assert marked(beyond.frame)["07"] == list(range(20, 32))
    assert beyond.clip.tolist() == [[0, 1, 0]]


def test_a_positive_pseudo_label_wins_over_negatives(root):
    rows = annotation("r01", "pseudo", "07", 0, 150), annotation("r01", "pseudo", "07", 15, 20)
    targets = targets_of(root, *rows, targets=[0.0, 0.25])
    assert targets.clip.tolist() == [[0, 0.25, 0]]
    assert targets.clip_labeled.tolist() == [[0, 1, 0]]
    assert targets.frame[0, :, 1].tolist() == [*[0] * 5, *[0.25] * 5, *[0] * 22]
    assert targets.frame_labeled[0, :, 1].tolist() == [1] * 32
