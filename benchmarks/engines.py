"""Compare torch, onnxruntime and OpenVINO as engines of the networks of one detector, in alternation.

    python benchmarks/engines.py [--repeats 5] [--engines onnxruntime openvino]

Recordings of 60 s are decoded and encoded once; then each engine in turn scores the same frames, on all
processors (CALLBOARD_WORKERS). torch runs in bfloat16 where a processor has it, as `callboard predict` does,
and in float32. Numbers are medians: recordings per second of networks alone, of decoding and front end alone,
and of both one after the other, as `callboard predict` works. The networks are untrained.
"""

import argparse
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch

from callboard.core.threads import n_workers
from callboard.features.encoding import encode_files
from callboard.features.frame_cache import MelCache, write_cache
from callboard.model import device
from callboard.model.detector import build_model
from callboard.model.onnx_export import onnx_network
from callboard.model.weights import LoadedModel
from callboard.params.features import AudioParams, FeatureParams, FrontEndParams
from callboard.params.model import ModelParams
from callboard.params.scoring import InferParams, PredictParams
from callboard.params.training import AugmentParams, ClipParams
from callboard.scoring.detector import Networks
from callboard.scoring.onnx_networks import ENGINES, OnnxNetwork, OnnxRunner, OnnxSession
from callboard.scoring.parts import ScoreParams
from callboard.scoring.predict import TorchRunner

CPU = torch.device("cpu")
SPECIES = [f"s{number}" for number in range(24)]
LENGTH_S = 60
SMALL = {"layers": [1] * 4, "channels": [16, 32, 64, 128], "stem_type": "deep", "stem_width": 8}
"""Arguments of the backbone of exp0051 in params.yaml."""

CASES = {
    "exp0051 of params.yaml: 64 mels, clips of 256 frames, 5 folds": (
        FrontEndParams(audio=AudioParams(sample_rate=24_000), features=FeatureParams()),
        ClipParams(n_frames=256),
        SMALL,
        5,
        26,
    ),
    "ResNet-18: 128 mels, clips of 512 frames, 5 folds": (
        FrontEndParams(
            audio=AudioParams(sample_rate=48_000),
            features=FeatureParams(n_fft=2048, hop_length=768, n_mels=128, f_min=90.0, f_max=14_000.0),
        ),
        ClipParams(n_frames=512),
        {},
        5,
        51,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; default %(default)s")
    parser.add_argument(
        "--recordings", type=int, default=12, help="recordings of a minute; default %(default)s"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{device.computed_on(CPU, 64).processor}, {n_workers()} threads, torch {torch.__version__}")
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{name}", flush=True)
            measure(Path(folder), *case, args.recordings, args.repeats, args.engines)


def measure(
    folder: Path,
    front_end: FrontEndParams,
    clip: ClipParams,
    backbone_args: dict[str, object],
    n_folds: int,
    overlap_frames: int,
    n_recordings: int,
    n_repeats: int,
    engines: list[str],
) -> None:
    files = write_recordings(folder, n_recordings, front_end.audio.sample_rate)
    score = ScoreParams(
        augment=AugmentParams(), predict=PredictParams(overlap_frames=overlap_frames, batch_size=128)
    )
    torch.manual_seed(0)
    networks = [
        build_model(ModelParams(backbone_args=backbone_args), len(SPECIES)).eval() for _ in range(n_folds)
    ]
    loaded = [LoadedModel(one, SPECIES, fold, clip, frozenset()) for fold, one in enumerate(networks)]
    contents = [onnx_network(one, front_end.features.n_mels) for one in loaded]
    rest = front_end, score, InferParams()
    detectors = {"torch float32": Networks(*rest, loaded, (), TorchRunner(score, CPU))}
    if device.has_bfloat16(CPU):
        detectors = {"torch bfloat16": detectors["torch float32"], **detectors}
    for engine in engines:
        exported = [OnnxNetwork(SPECIES, 0, clip, OnnxSession(one, engine, engine)) for one in contents]
        detectors[engine] = Networks(*rest, exported, (), OnnxRunner())

    front_s: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    names = [name for name, _ in files]
    for repeat in range(n_repeats + 1):  # the first one warms up
        began = time.perf_counter()
        encoded = encode_files(files, front_end, folder, n_workers())
        write_cache(folder / "mel", (recording for recording, _ in encoded), front_end.features.n_mels)
        cache = MelCache.open(folder / "mel")
        front_s += [time.perf_counter() - began] * bool(repeat)
        for name, detector in detectors.items():
            with float32_only(name != "torch bfloat16"):
                began = time.perf_counter()
                detector.scores(cache, names, SPECIES)
                seconds[name] += [time.perf_counter() - began] * bool(repeat)
    report(n_recordings, front_s, seconds)


def write_recordings(folder: Path, n_recordings: int, rate: int) -> list[tuple[str, Path]]:
    rng = np.random.default_rng(0)
    files = [(f"{number}", folder / f"{number}.wav") for number in range(n_recordings)]
    for _, path in files:
        soundfile.write(path, 0.1 * rng.standard_normal(LENGTH_S * rate), rate)
    return files


@contextmanager
def float32_only(holds: bool):
    has_bfloat16 = device.has_bfloat16
    if holds:
        device.has_bfloat16 = lambda _: False
    try:
        yield
    finally:
        device.has_bfloat16 = has_bfloat16


def report(n_recordings: int, front_s: list[float], seconds: dict[str, list[float]]) -> None:
    front = median(front_s)
    print(f"  decoding and front end: {n_recordings / front:.3g} recordings/s")
    for name, measured in seconds.items():
        of_torch = [a / b for a, b in zip(seconds["torch float32"], measured, strict=True)]
        print(
            f"  {name:<15} networks {n_recordings / median(measured):5.3g} recordings/s, "
            f"{median(of_torch):.2f} ({min(of_torch):.2f} … {max(of_torch):.2f}) times torch float32; "
            f"with front end {n_recordings / (front + median(measured)):5.3g} recordings/s"
        )


if __name__ == "__main__":
    main()
