import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy.special import expit

from callboard.core.errors import UserError
from callboard.model import onnx_export
from callboard.model.class_axis import SpeciesModel
from callboard.model.detector import build_model
from callboard.model.onnx_export import onnx_network
from callboard.model.weights import LoadedModel
from callboard.params.model import ModelParams
from callboard.params.training import ClipParams
from callboard.scoring.detections import read_thresholds
from callboard.scoring.detector import Detector
from callboard.scoring.detector_export import _compare, export_detector, licences
from callboard.scoring.detector_file import read_detector_file, write_detector_file
from callboard.scoring.onnx_networks import ENGINES, OnnxNetwork, OnnxRunner, OnnxSession
from callboard.scoring.parts import plan_parts, score_parts
from callboard.scoring.predict import TorchRunner
from callboard.scoring.result_detector import load_detector
from callboard.scoring.stacking import Stack
from callboard.scoring.window_batches import WindowBatch
from callboard.scoring.window_scores import FREQUENCY_HEADS, HEADS
from tests.scoring.test_predict import CPU, FULL, PARAMS, score_params
from tests.scoring.test_predictions import LENGTHS_S, RATE, FinishedResult, predict, table, wide, write_sound
from tests.toy_models import CLIP, MODEL, N_MELS, SPECIES, random_cache

CLOSE = 1e-4
"""Largest difference of a probability that is accepted."""


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setattr("callboard.model.device.has_bfloat16", lambda device: False)


@pytest.fixture
def folder(tmp_path):
    for seed, (name, seconds) in enumerate(LENGTHS_S.items()):
        write_sound(tmp_path / "sounds" / name, seconds, seed)
    return tmp_path / "sounds"


class ExportedResult(FinishedResult):
    """A finished result with what an exported file says of it."""

    def __init__(self, folder: Path, name: str, folds: list[int], *more, **infer) -> None:
        super().__init__(folder, name, folds, *more, **infer)
        self.ref.time_ms, self.cv = 1_700_000_000_000, {"cv.lwlrap": 0.8}
        self.tree |= {"model": MODEL.model_dump(), "train": {"init_from": None}}


@pytest.fixture
def export(tmp_path) -> Callable[..., Path]:
    def write(result: ExportedResult, *thresholds: Path) -> Path:
        path = tmp_path / f"{result.name}.zip"
        write_detector_file(path, export_detector(result, *thresholds))
        return path

    return write


def assert_close(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Compare tables that differ in scores by rounding."""
    pd.testing.assert_frame_equal(a, b, check_exact=False, atol=CLOSE, rtol=0)
    assert len(a)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_exported_detector_gives_recordings_the_scores_of_its_result(folder, tmp_path, export, engine):
    result = ExportedResult(tmp_path, "toy", [0, 1], window_agg="mean", smoothing=[1.0, 2.0, 1.0])
    predict(load_detector(result, CPU), folder, tmp_path / "torch")
    predict(Detector.load(export(result), engine), folder, tmp_path / engine)
    for name in ("recordings", "windows"):
        keys = ["recording", "species", *(["start_s"] if name == "windows" else [])]
        a, b = (
            table(tmp_path / made, name).sort_values(keys, ignore_index=True) for made in ("torch", engine)
        )
        assert_close(a, b)


def test_a_blend_and_a_stack_are_exported_with_all_that_was_fitted(folder, tmp_path, export, monkeypatch):
    first = ExportedResult(tmp_path, "first", [0])
    second = ExportedResult(tmp_path, "second", [1], SPECIES[::-1], prevalence=1.0)
    second.write_factors(dict(zip(SPECIES, (2.0, 0.5, 3.0), strict=True)))
    found = {part.ref.reference: part for part in (first, second)}
    monkeypatch.setattr(
        "callboard.scoring.result_detector.find_exactly", lambda reference, _: found[reference]
    )
    stack = Stack(
        np.array([[1.0, 0.5, 2.0], [0.5, 0.1, 0.0]]), np.array([0.2, 0, 1]), np.array([1, 0, 1], bool)
    )
    monkeypatch.setattr("callboard.scoring.result_detector._stack", lambda *_: stack)
    for name, infer in (
        ("mean", {"blend_weights": [3.0, 1.0]}),
        ("stack", {"stack": True, "prevalence": 1.0}),
    ):
        blend = ExportedResult(tmp_path, name, [], blend=list(found), **infer)
        if name == "stack":
            blend.write_factors(dict(zip(SPECIES, (1.5, 1.0, 0.3), strict=True)))
        predict(load_detector(blend, CPU), folder, tmp_path / "out" / name)
        predict(Detector.load(export(blend)), folder, tmp_path / "out" / f"{name}-onnx")
        scores = wide(tmp_path / "out" / name)
        assert_close(scores, wide(tmp_path / "out" / f"{name}-onnx"))
        assert scores.nunique().min() > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_and_shards_change_no_score_of_an_exported_detector(
    folder, tmp_path, export, monkeypatch, engine
):
    from callboard.data import archive

    path = export(ExportedResult(tmp_path, "toy", [0]))
    monkeypatch.setenv("CALLBOARD_WORKERS", "1")
    predict(Detector.load(path, engine), folder, tmp_path / "one")
    monkeypatch.setenv("CALLBOARD_WORKERS", "4")
    monkeypatch.setattr(archive, "SHARD_RECORDINGS", 2)
    predict(Detector.load(path, engine), folder, tmp_path / "many")
    for name in ("recordings", "windows"):
        pd.testing.assert_frame_equal(table(tmp_path / "one", name), table(tmp_path / "many", name))


def test_equal_results_make_equal_files_and_a_file_is_not_mixed_with_its_result(folder, tmp_path, export):
    result = ExportedResult(tmp_path, "toy", [0])
    content = export(result).read_bytes()
    path = export(result)
    assert path.read_bytes() == content
    detector = Detector.load(path)
    assert detector.key == Detector.load(path, "openvino").key != load_detector(result, CPU).key
    predict(load_detector(result, CPU), folder, tmp_path / "out")
    with pytest.raises(UserError, match="must not be mixed with them, as an exported detector"):
        predict(detector, folder, tmp_path / "out")


NETWORKS = {
    "song types, two heads": {"class_species": (0, 0, 1, 2, 2), "frequency_head": True},
    "logits times attention": {"segment_source": "class_x_attention", "attention": "sigmoid"},
    "cbam, two heads": {"cbam": True, "frequency_head": True, "attention": "softmax_tanh"},
    "embeddings": {"backbone": "frames", "backbone_args": {"n_numbers": N_MELS, "hidden": 8}},
    "padded as in TensorFlow": {"backbone": "tf_efficientnet_lite0", "backbone_args": {}},
}


def loaded_network(clip: ClipParams = CLIP, class_species=(0, 1, 2), **model: object) -> LoadedModel:
    torch.manual_seed(0)
    params = ModelParams.model_validate(MODEL.model_dump() | model)
    network = SpeciesModel(build_model(params, len(class_species)), class_species)
    return LoadedModel(network.eval(), SPECIES, 0, clip, frozenset())


def scores_of(models, runner, cache):
    return next(
        score_parts(plan_parts(models, cache, cache.recording_ids, PARAMS), runner, shows_progress=False)
    )


def exported_scores(loaded: LoadedModel, engine: str, cache):
    run = OnnxSession(onnx_network(loaded, N_MELS), engine, "toy")
    exported = OnnxNetwork(loaded.species, loaded.fold, loaded.clip, run)
    return scores_of([exported], OnnxRunner(), cache)


@pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("clip", [CLIP, FULL], ids=["event", "full"])
@pytest.mark.slow
def test_every_kind_of_network_gives_the_logits_that_torch_gives(tmp_path, model, clip):
    cache, loaded = random_cache(tmp_path, {"a": 300, "b": 64, "c": 40}), loaded_network(clip, **model)
    a, b = scores_of([loaded], TorchRunner(PARAMS, CPU), cache), exported_scores(loaded, "onnxruntime", cache)
    assert tuple(b.heads) == HEADS + FREQUENCY_HEADS * bool(model.get("frequency_head"))
    for name, logits in a.heads.items():
        np.testing.assert_allclose(b.heads[name], logits, atol=CLOSE)
    np.testing.assert_array_equal(b.peak_frame, a.peak_frame)


@pytest.mark.slow
def test_probabilities_of_a_thousand_windows_are_those_of_torch(tmp_path):
    loaded = loaded_network(ClipParams(n_frames=256), backbone="resnet18", backbone_args={})
    cache = random_cache(tmp_path, {f"{number:02d}": 256 + 246 * 9 for number in range(100)})
    expected = scores_of([loaded], TorchRunner(PARAMS, CPU), cache)
    assert len(expected.recording) == 1000
    for engine in ENGINES:
        found = exported_scores(loaded, engine, cache)
        for name in HEADS:
            assert np.abs(expit(expected.heads[name]) - expit(found.heads[name])).max() <= CLOSE
            assert expected.heads[name].std() > 0.01


def test_an_exported_network_sees_a_few_windows_at_a_time_in_their_order():
    frames = np.random.default_rng(0).integers(0, 256, (37, 8, N_MELS), dtype=np.uint8)
    sizes = []

    def run(given):
        sizes.append(len(given))
        values = given.astype(np.float32)
        return [values[:, 0], values[:, 1], values[:, 2:4]]

    batch = WindowBatch(slice(0, 37), frames, np.zeros(37, np.int32), np.zeros(37, np.int64))
    (found,) = OnnxRunner().run([OnnxNetwork(SPECIES, 0, CLIP, run)], batch, 0)
    assert sizes == [16, 16, 5]
    for logits, rows in zip(found[:3], (0, 1, slice(2, 4)), strict=True):
        np.testing.assert_array_equal(logits, frames[:, rows])


def test_a_network_that_onnx_does_not_reproduce_is_not_exported(tmp_path, export, monkeypatch):
    forward = onnx_export._FromFrames.forward
    shifted = lambda network, frames: tuple(logits + 0.01 for logits in forward(network, frames))  # noqa: E731
    monkeypatch.setattr(onnx_export._FromFrames, "forward", shifted)
    with pytest.raises(
        UserError, match=r"toy: networks/0/fold0\.onnx: probabilities differ from torch's by up"
    ):
        export(ExportedResult(tmp_path, "toy", [0]))


def test_the_outputs_of_a_frequency_head_are_compared_too(monkeypatch):
    forward, loaded = onnx_export._FromFrames.forward, loaded_network(frequency_head=True)
    _compare(loaded, onnx_network(loaded, N_MELS), N_MELS, "toy")

    def shifted(network, frames):
        outputs = forward(network, frames)
        return (*outputs[:3], *(logits + 0.01 for logits in outputs[3:]))

    monkeypatch.setattr(onnx_export._FromFrames, "forward", shifted)
    with pytest.raises(UserError, match=r"toy: probabilities differ from torch's by up"):
        _compare(loaded, onnx_network(loaded, N_MELS), N_MELS, "toy")


def test_augmented_prediction_is_refused(tmp_path, export):
    result = ExportedResult(tmp_path, "toy", [0])
    result.tree |= score_params(tta=2).model_dump()
    with pytest.raises(UserError, match=r"toy: predict.tta 2 cannot be exported"):
        export(result)


def test_the_file_says_what_it_is(tmp_path, export):
    (tmp_path / "t.csv").write_text(f"species,threshold\n{SPECIES[0]},0.4\n{SPECIES[1]},\n")
    path = export(ExportedResult(tmp_path, "toy", [0, 2]), tmp_path / "t.csv")
    manifest = read_detector_file(path).manifest
    assert (manifest.result, manifest.date, manifest.cv) == ("toy@0123456789abcdef", "2023-11-14", 0.8)
    assert manifest.licences == ["trained here from random weights"]
    detector = Detector.load(path)
    assert detector.thresholds == {SPECIES[0]: 0.4}
    assert read_thresholds(str(path), SPECIES, detector.reference) == {SPECIES[0]: 0.4}
    with pytest.raises(UserError, match="is not one of the predictions"):
        read_thresholds(str(path), ["else"], detector.reference)
    with pytest.raises(UserError, match=r"thresholds for scores of toy@0123.*, and these are of exp1@7654"):
        read_thresholds(str(path), SPECIES, "exp1@7654")
    with ZipFile(path) as file:
        assert file.namelist() == ["manifest.json", "networks/0/fold0.onnx", "networks/0/fold2.onnx"]
    with pytest.raises(
        UserError, match=r"no species has a threshold; `callboard export --thresholds` adds them"
    ):
        read_thresholds(str(export(ExportedResult(tmp_path, "toy", [0]))), SPECIES, detector.reference)


def test_thresholds_of_a_different_result_are_not_exported(tmp_path, export):
    (tmp_path / "t.csv").write_text(f"species,threshold,scores_of\n{SPECIES[0]},0.4,toy@76543210fedcba98\n")
    with pytest.raises(
        UserError, match=r"row 2: thresholds for scores of toy@7654.*, and these are of toy@0123"
    ):
        export(ExportedResult(tmp_path, "toy", [0]), tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"weights": "efficientnet_lite0", "pretrained": False}}, "0.1.0, Apache 2.0"),
        ({"model": {"weights": "x.pth@0123", "pretrained": False}}, "from x.pth@0123, whose licence applies"),
        ({"model": {"weights": None, "pretrained": True, "backbone": "resnet18.a1_in1k"}}, "timm's resnet18"),
        ({"train": {"init_from": "a@0123"}}, "the weights of a@0123, whose licence applies"),
        ({"features": {"kind": "birdnet"}}, "CC BY-NC-SA 4.0.*callboard.birdnet"),
    ],
)
def test_the_licence_of_weights_is_named(changes, said):
    sections = {
        "model": {"weights": None, "pretrained": False},
        "train": {"init_from": None},
        "features": {"kind": "log_mel"},
    }
    result = SimpleNamespace(sections=lambda *names: sections | changes)
    pd.testing.assert_index_equal(
        pd.Index([True]), pd.Index(pd.Series("; ".join(licences(result))).str.contains(said))
    )


def test_samples_and_files_are_scored_one_by_one_too(folder, tmp_path, export):
    detector = Detector.load(str(export(ExportedResult(tmp_path, "toy", [0]))))
    predict(detector, folder, tmp_path / "out")
    samples, rate = soundfile.read(folder / "a.wav", dtype="float32")
    of_file, of_samples = detector.predict(folder / "a.wav"), detector.predict(samples, rate)
    for a, b in zip(of_file, of_samples, strict=True):
        pd.testing.assert_frame_equal(a, b)
    assert of_file.recording["species"].tolist() == detector.species == SPECIES
    assert of_file.recording["score"].tolist() == wide(tmp_path / "out").loc["a.wav"].tolist()
    assert len(of_file.windows) == (table(tmp_path / "out", "windows")["recording"] == "a.wav").sum()
    stereo = np.stack([samples, samples], axis=1)
    pd.testing.assert_frame_equal(detector.predict(stereo, rate).recording, of_file.recording)
    with pytest.raises(UserError, match="need a sample_rate"):
        detector.predict(samples)
    with pytest.raises(UserError, match=r"samples.wav: silent"):
        detector.predict(np.zeros(RATE), RATE)
    with pytest.raises(UserError, match=r"gone.wav: no such file"):
        detector.predict("gone.wav")


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        (np.ones(RATE), 0, "need a sample_rate, a whole number of Hz, found 0"),
        (np.ones(RATE), 22050.5, "found 22050.5"),
        (np.ones((2, RATE)), RATE, r"must be \(n,\) or \(n, up to 64 channels\), found \(2, 8000\)"),
        (np.ones((9, 2, 2)), RATE, r"found \(9, 2, 2\)"),
        (np.ones(RATE, np.int16), RATE, "must be floating-point numbers from -1 to 1, found int16"),
    ],
)
def test_samples_of_another_form_are_refused(tmp_path, samples, rate, said):
    from callboard.scoring.detector import _write_samples

    with pytest.raises(UserError, match=said):
        _write_samples(tmp_path / "a.wav", samples, rate)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
def test_samples_of_any_precision_are_the_same_sound(tmp_path, dtype):
    from callboard.scoring.detector import _write_samples

    sound = np.array([0.0, 0.5, -0.25])
    _write_samples(tmp_path / "a.wav", sound.astype(dtype), 8000.0)
    assert soundfile.read(tmp_path / "a.wav")[0].tolist() == sound.tolist()


def write_toy_file(path: Path) -> None:
    """Write a detector of one network."""
    write_detector_file(path, export_detector(ExportedResult(path.parent, "toy", [0])))


def rewritten(
    path: Path,
    change: Callable[[dict], None] = lambda tree: None,
    more: dict[str, bytes] | None = None,
    **how,
) -> Path:
    """Write the file again, with a changed manifest and more entries."""
    with ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    tree = json.loads(entries["manifest.json"])
    change(tree)
    entries |= {"manifest.json": json.dumps(tree).encode(), **(more or {})}
    with ZipFile(path, "w", **how) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree.update(format=2, callboard="9.0"), r"callboard 9\.0 wrote it in format 2, and"),
        (lambda tree: tree.update(format="1"), "format '1' is not a version"),
        (lambda tree: tree.pop("parts"), "parts"),
        (lambda tree: tree["species"].append("new"), "has other species than the detector"),
        (lambda tree: tree.update(weights=[0.0]), "a weight above 0"),
        (lambda tree: tree.update(weights=[-1.0]), "greater than or equal to 0"),
        (lambda tree: tree.update(factors=[-1.0] * len(SPECIES)), "greater than or equal to 0"),
        (lambda tree: tree.update(thresholds={SPECIES[0]: 50.0}), "less than or equal to 1"),
        (lambda tree: tree.update(factors=[1.0]), "must have 3 numbers"),
        (lambda tree: tree.update(thresholds={"new": 0.5}), "unknown species: new"),
        (lambda tree: tree["parts"][0]["networks"][0].update(file="../../x"), "the networks that this lists"),
        (lambda tree: tree["parts"][0]["params"]["features"].update(n_mels=0), r"features\.n_mels"),
        (lambda tree: tree["parts"][0]["params"]["infer"].update(new=0), "new: unknown parameter"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(tmp_path, export, change, said):
    path = rewritten(export(ExportedResult(tmp_path, "toy", [0])), change)
    with pytest.raises(UserError, match=said) as refused:
        Detector.load(path)
    assert str(path) in str(refused.value)


def test_nothing_but_the_networks_is_in_the_file_and_nothing_is_compressed(tmp_path, export):
    result = ExportedResult(tmp_path, "toy", [0])
    with pytest.raises(UserError, match="the networks that this lists"):
        Detector.load(rewritten(export(result), more={"../../evil": b"x"}))
    with pytest.raises(UserError, match=r"'manifest\.json' is compressed"):
        Detector.load(rewritten(export(result), compression=ZIP_DEFLATED))
    with pytest.raises(
        UserError, match=r"fold0.onnx: not a network that this engine can run: .*export it again"
    ):
        Detector.load(rewritten(export(result), more={"networks/0/fold0.onnx": b"x" * 100}))
    with pytest.raises(UserError, match="engine 'tensorrt' must be one of onnxruntime, openvino"):
        Detector.load(export(result), "tensorrt")


WITHOUT_TRAINING = """
import sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ABSENT = {"torch", "torchaudio", "torchvision", "timm", "dvc", "mlflow", "sklearn", "matplotlib", "jinja2",
    "rich", "yaml", "iterstrat", "onnx", "markupsafe"}
sys.meta_path.insert(0, Absent())
from callboard.cli import main
arguments = sys.argv[1:]
for line in Path("commands.txt").read_text().splitlines():
    sys.argv = ["callboard", *line.split()]
    main()
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
from callboard import Detector
print(len(Detector.load("toy.zip").predict("sounds/a.wav").windows))
sys.argv = ["callboard", "predict", "exp0051", "sounds"]
main()
"""


@pytest.mark.slow
def test_predicting_and_detections_need_neither_torch_nor_a_workspace(folder, tmp_path, export):
    export(ExportedResult(tmp_path, "toy", [0]))
    (tmp_path / "commands.txt").write_text(
        "predict toy.zip sounds --floor 0\n"
        "detections predictions/toy --threshold 0.5 --to csv --output csv\n"
        "detections predictions/toy --threshold 0.5 --to raven --output raven\n"
        "detections predictions/toy --threshold 0.5 --to parquet --output parquet\n"
    )
    command = [sys.executable, "-c", WITHOUT_TRAINING]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "4 of 4 recordings scored now" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == str(
        len(Detector.load(tmp_path / "toy.zip").predict(folder / "a.wav").windows)
    )
    assert pd.read_csv(tmp_path / "csv/detections.csv")["recording"].isin(list(LENGTHS_S)).all()
    assert "no dvc.yaml in" in done.stderr
    assert done.returncode == 1
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "commands.txt").write_text("")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "error: callboard predict needs the package" in done.stderr
    assert "pip install -e '.[train]'" in done.stderr
