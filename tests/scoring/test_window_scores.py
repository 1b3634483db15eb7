from dataclasses import replace

import numpy as np
import pytest

from callboard.core.errors import UserError
from callboard.params.scoring import InferParams
from callboard.scoring.window_scores import (
    FREQUENCY_HEADS,
    HEAD_WEIGHTS,
    HEADS,
    WindowScores,
    join_scores,
    load_scores,
    recording_scores,
    smoothed,
    window_probabilities,
)
from tests.toy_scoring import infer_params


def window_scores(
    windows_per_recording=(3, 1, 2),
    n_models=2,
    n_species=4,
    *,
    prefix="r",
    seed=0,
    fold=None,
    names=HEADS,
):
    n_recordings = len(windows_per_recording)
    recording = np.repeat(np.arange(n_recordings), windows_per_recording).astype(np.int32)
    shape = (len(recording), n_models, n_species)
    rng = np.random.default_rng(seed)
    return WindowScores(
        recording_ids=[f"{prefix}{i}" for i in range(n_recordings)],
        species=[f"sp{i}" for i in range(n_species)],
        recording=recording,
        start_frame=np.arange(len(recording), dtype=np.int32),
        heads={name: rng.normal(0, 4, shape).astype(np.float32) for name in names},
        peak_frame=rng.integers(0, 99, shape).astype(np.int32),
        fold=fold,
    )


def naive_recording_scores(scores, head, window_agg, fold_agg):
    """One recording, model and species at a time."""
    shares = {
        "attention_max": {"attention": 0.5, "max": 0.5},
        "attention_max_frequency": {
            "attention": 0.4,
            "max": 0.4,
            "frequency_attention": 0.1,
            "frequency_max": 0.1,
        },
    }.get(head, {head: 1.0})
    aggregate = {"max": max, "mean": lambda values: sum(values) / len(values)}
    table = np.empty((len(scores.recording_ids), len(scores.species)))
    for row in range(table.shape[0]):
        for species in range(table.shape[1]):
            per_model = []
            for model in range(scores.n_models):
                windows = [
                    sum(
                        share / (1 + np.exp(-float(scores.heads[name][i, model, species])))
                        for name, share in shares.items()
                    )
                    for i in np.flatnonzero(scores.recording == row)
                ]
                per_model.append(aggregate[window_agg](windows))
            table[row, species] = aggregate[fold_agg](per_model)
    return table


@pytest.mark.parametrize("head", HEAD_WEIGHTS)
@pytest.mark.parametrize("window_agg", ["max", "mean"])
@pytest.mark.parametrize("fold_agg", ["mean", "max"])
def test_pooling_equals_the_naive_twin(head, window_agg, fold_agg):
    scores = window_scores(names=HEADS + FREQUENCY_HEADS)
    pooled = recording_scores(scores, infer_params(head, window_agg, fold_agg))
    assert pooled.dtype == np.float64
    np.testing.assert_allclose(pooled, naive_recording_scores(scores, head, window_agg, fold_agg), rtol=1e-12)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [0.0, 3.0]])
def test_folds_are_weighted_as_a_naive_twin_weighs_them(weights):
    scores = window_scores()
    alone = [
        recording_scores(
            replace(
                scores,
                heads={name: logits[:, [model]] for name, logits in scores.heads.items()},
                peak_frame=scores.peak_frame[:, [model]],
            ),
            infer_params(),
        )
        for model in (0, 1)
    ]
    expected = (weights[0] * alone[0] + weights[1] * alone[1]) / sum(weights)
    found = recording_scores(scores, infer_params(fold_weights=weights))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_out_of_fold_scores_have_one_network_and_no_weights():
    scores = window_scores((2, 2), 1, fold=np.array([0, 1]))
    weighted = recording_scores(scores, infer_params(fold_weights=[1.0, 9.0]))
    np.testing.assert_array_equal(weighted, recording_scores(scores, infer_params()))


def test_every_head_of_the_params_has_weights_that_make_a_probability():
    assert set(HEAD_WEIGHTS) == set(InferParams.model_fields["head"].annotation.__args__)
    for weights in HEAD_WEIGHTS.values():
        assert sum(weights.values()) == pytest.approx(1)
        assert weights.keys() <= {*HEADS, *FREQUENCY_HEADS}


def test_a_head_that_the_models_do_not_have_is_refused():
    message = r"head attention_max_frequency: the scores lack frequency_attention, frequency_max, as"
    with pytest.raises(UserError, match=message):
        recording_scores(window_scores(), infer_params("attention_max_frequency"))


def test_very_low_scores_keep_their_order():
    low = window_scores((1,), 1, 3)
    low.heads["max"][:] = np.array([-20.0, -30.0, -25.0])
    pooled = recording_scores(low, infer_params("max"))
    assert pooled.argsort().tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("head", ["max", "attention_max"])
def test_very_high_scores_keep_their_order(head):
    high = window_scores((1,), 1, 3)
    for name in ("attention", "max"):
        high.heads[name][:] = np.array([22.0, 31.0, 22.01])  # in single precision all of them are 1.0
    pooled = recording_scores(high, infer_params(head, "mean"))
    assert pooled.argsort().tolist() == [[0, 2, 1]]


def test_no_recordings_pool_to_no_rows():
    pooled = recording_scores(window_scores(()), infer_params("max", "mean", "max"))
    assert pooled.shape == (0, 4)


@pytest.mark.parametrize("names", [HEADS, HEADS + FREQUENCY_HEADS])
@pytest.mark.parametrize("fold", [None, np.array([1, 0, 1])])
def test_saved_scores_come_back_and_equal_scores_are_equal_bytes(tmp_path, fold, names):
    scores = window_scores(n_models=1 if fold is not None else 2, fold=fold, names=names)
    scores.save(tmp_path / "deep" / "a.npz")
    scores.save(tmp_path / "b.npz")
    assert (tmp_path / "deep" / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_scores(tmp_path / "b.npz")
    assert (loaded.recording_ids, loaded.species) == (scores.recording_ids, scores.species)
    for name in ("recording", "start_frame", "peak_frame", "fold"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(scores, name))
    assert tuple(loaded.heads) == names
    for name in names:
        np.testing.assert_array_equal(loaded.heads[name], scores.heads[name])


def test_a_file_with_half_a_frequency_head_is_refused(tmp_path):
    window_scores(names=HEADS + FREQUENCY_HEADS).save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as arrays:
        np.savez(tmp_path / "half.npz", **{k: v for k, v in arrays.items() if k != "head_frequency_max"})
    with pytest.raises(UserError, match=r"half.npz: not a file of window scores"):
        load_scores(tmp_path / "half.npz")


def test_empty_scores_can_be_saved(tmp_path):
    window_scores(()).save(tmp_path / "empty.npz")
    assert load_scores(tmp_path / "empty.npz").recording_ids == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"heads": {"max": s.heads["max"]}}, "heads must be"),
        (lambda s: {"peak_frame": s.peak_frame[:-1]}, r"must be \(windows, models, species\) \(6, 2, 4\)"),
        (lambda s: {"start_frame": s.start_frame[:-1]}, r"start_frame must be \(6,\)"),
        (lambda s: {"recording_ids": ["r0", "r0", "r2"]}, "must not repeat"),
        (lambda s: {"recording_ids": ["r0", "r1", "r2", "r3"]}, "every recording has windows"),
        (lambda s: {"recording": s.recording[::-1]}, "ascending"),
        (lambda s: {"fold": np.array([0, 1, 0])}, "needs exactly one model"),
        (
            lambda s: {"heads": {name: np.full_like(s.heads[name], np.nan) for name in HEADS}},
            "must not be NaN",
        ),
    ],
)
def test_scores_that_do_not_fit_together_are_refused(change, message):
    scores = window_scores()
    with pytest.raises(ValueError, match=message):
        replace(scores, **change(scores))


def of_fold(scores: WindowScores, fold: int) -> WindowScores:
    return replace(scores, fold=np.full(len(scores.recording_ids), fold))


def test_joining_folds_keeps_every_window_with_its_recording():
    parts = [
        of_fold(window_scores((2, 1), 1, prefix="a"), 0),
        of_fold(window_scores((), 1), 1),
        of_fold(window_scores((1, 3), 1, prefix="b", seed=1), 2),
    ]
    joined = join_scores(parts)
    assert joined.recording_ids == ["a0", "a1", "b0", "b1"]
    assert joined.fold.tolist() == [0, 0, 2, 2]
    infer = infer_params("attention", "mean")
    separate = np.concatenate([recording_scores(part, infer) for part in parts])
    np.testing.assert_array_equal(recording_scores(joined, infer), separate)


def test_joining_folds_keeps_the_frequency_head_though_a_fold_has_no_recordings():
    both = HEADS + FREQUENCY_HEADS
    parts = [window_scores((), 1), window_scores((2, 1), 1, names=both)]
    joined = join_scores(parts)
    for name in both:
        np.testing.assert_array_equal(joined.heads[name], parts[1].heads[name])
    assert tuple(join_scores([window_scores((), 1)]).heads) == HEADS


def test_joining_folds_of_different_heads_is_refused():
    with_frequency = window_scores(n_models=1, names=HEADS + FREQUENCY_HEADS)
    with pytest.raises(ValueError, match="different heads"):
        join_scores([window_scores(n_models=1, prefix="a"), with_frequency])


def test_joining_a_recording_of_two_folds_is_refused():
    with pytest.raises(ValueError, match="must not repeat"):
        join_scores([window_scores(n_models=1), window_scores(n_models=1)])


def test_a_file_that_is_no_scores_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(UserError, match=f"{name}: not a file of window scores"):
            load_scores(tmp_path / name)
    with pytest.raises(UserError, match="not found; the predict stage writes it"):
        load_scores(tmp_path / "none.npz")


def test_a_temperature_divides_the_logits_of_every_head():
    scores = window_scores()
    hotter = replace(scores, heads={name: logits / 4 for name, logits in scores.heads.items()})
    np.testing.assert_array_equal(
        window_probabilities(scores, "attention_max", 4.0), window_probabilities(hotter, "attention_max")
    )
    params = infer_params("max", temperature=2.5)
    only_window = 1 / (1 + np.exp(-scores.heads["max"][3].astype(np.float64) / 2.5))  # (models, species)
    np.testing.assert_allclose(recording_scores(scores, params)[1], only_window.mean(axis=0))


def naive_smoothed(probabilities, recording, weights):
    middle = len(weights) // 2
    smooth = np.empty_like(probabilities)
    for window in range(len(recording)):
        pairs = [
            (weight, probabilities[window + index - middle])
            for index, weight in enumerate(weights)
            if 0 <= window + index - middle < len(recording)
            and recording[window + index - middle] == recording[window]
        ]
        smooth[window] = sum(weight * p for weight, p in pairs) / sum(weight for weight, _ in pairs)
    return smooth


@pytest.mark.parametrize("weights", [[0.1, 0.2, 0.4, 0.2, 0.1], [0, 3, 1], [2.0], [1] * 15])
def test_smoothing_equals_the_naive_twin(weights):
    scores = window_scores((3, 1, 7, 2))
    probabilities = window_probabilities(scores, "max")
    found = smoothed(probabilities, scores.recording, weights)
    np.testing.assert_allclose(found, naive_smoothed(probabilities, scores.recording, weights), rtol=1e-12)


def test_smoothing_by_hand_stops_at_the_recordings_end():
    probabilities = np.array([0.2, 0.6, 1.0, 0.0])[:, None, None]
    found = smoothed(probabilities, np.array([0, 0, 0, 1]), [1, 2, 1])
    np.testing.assert_allclose(found[:, 0, 0], [(2 * 0.2 + 0.6) / 3, 0.6, (0.6 + 2) / 3, 0.0])


def test_a_recordings_smoothed_scores_do_not_depend_on_its_neighbours():
    params = infer_params(smoothing=[1, 2, 1])
    whole = window_scores((4, 3, 5), 1)
    middle = slice(4, 7)
    alone = WindowScores(
        ["r1"],
        whole.species,
        np.zeros(3, dtype=np.int32),
        whole.start_frame[middle],
        {name: logits[middle] for name, logits in whole.heads.items()},
        whole.peak_frame[middle],
        None,
    )
    np.testing.assert_array_equal(recording_scores(whole, params)[1:2], recording_scores(alone, params))


def test_smoothing_weights_go_from_earlier_windows_to_later_ones():
    scores, params = window_scores((4, 3), 1), infer_params(smoothing=[3, 2, 0], window_agg="mean")
    probabilities = window_probabilities(scores, params.head)
    expected = naive_smoothed(probabilities, scores.recording, [3, 2, 0])[4:, 0].mean(axis=0)
    np.testing.assert_allclose(recording_scores(scores, params)[1], expected, rtol=1e-12)


def test_no_recordings_can_be_smoothed():
    assert recording_scores(window_scores(()), infer_params(smoothing=[1, 2, 1])).shape == (0, 4)
