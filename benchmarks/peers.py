"""Compare `callboard predict` with its stages, OpenSoundscape and a plain script, on the same files.

    python benchmarks/peers.py --theirs /path/to/venv/bin/python --recordings 40

OpenSoundscape is not among the packages of this project; the Python given must have it. All decode FLAC of
48 kHz, resample to 24 kHz, make spectrograms of 128 rows by 512 columns, 8.2 s each without overlap, and
score them with one ResNet-18 of one channel with random weights. The plain script reads a file with
soundfile, makes log-mels with torchaudio and scores its windows in one batch. Each runs in a process of its
own, in alternation; the time of imports and of building the network is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from callboard.scoring.detector import Detector

RATE, WINDOW_RATE, N_FFT, HOP, N_MELS, N_FRAMES, N_SPECIES = 48000, 24000, 1024, 384, 128, 512, 24
WINDOW_S = N_FRAMES * HOP / WINDOW_RATE
RECORDING_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--theirs", type=Path, help="Python with OpenSoundscape; default: leave it out")
    parser.add_argument("--recordings", type=int, default=40, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default %(default)s")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        files = sorted(args.folder.glob("*.flac"))
        seconds, n_windows = ROLES[args.role](files)
        print(json.dumps([seconds, n_windows]))
        return
    pythons = dict.fromkeys(("callboard", "stages", "script"), sys.executable)
    if args.theirs:
        pythons["opensoundscape"] = str(args.theirs)
    rates: dict[str, list[float]] = {role: [] for role in pythons}
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder), args.recordings)
        for _ in range(args.repeats):
            for role, python in pythons.items():
                seconds, n_windows = run(python, role, folder)
                rates[role].append(args.recordings / seconds)
                print(f"{role}: {rates[role][-1]:.2f} files/s, {n_windows} windows", flush=True)
    for role in list(pythons)[1:]:
        ratios = [ours / other for ours, other in zip(rates["callboard"], rates[role], strict=True)]
        print(f"callboard / {role}: {np.median(ratios):.2f} ({', '.join(f'{one:.2f}' for one in ratios)})")


def run(python: str, role: str, folder: str) -> tuple[float, int]:
    command = [python, __file__, "--role", role, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{role}:\n{done.stderr}")
    seconds, n_windows = json.loads(done.stdout.splitlines()[-1])
    return seconds, n_windows


def write_recordings(folder: Path, n_recordings: int) -> None:
    import soundfile

    rng = np.random.default_rng(0)
    for number in range(n_recordings):
        noise = 0.05 * rng.standard_normal(RECORDING_S * RATE)
        soundfile.write(folder / f"{number:04d}.flac", noise, RATE)


def callboard_files(files: Sequence[Path]) -> tuple[float, int]:
    import pandas as pd

    from callboard.data.archive import list_archive, plan_shards
    from callboard.scoring.predictions import Predictions

    detector = random_detector()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        archive = list_archive([files[0].parent])
        predictions = Predictions(Path(folder), detector, 0.0)
        for shard in plan_shards(predictions.missing(archive)):
            predictions.make(shard)
        seconds = time.monotonic() - start
        return seconds, len(pd.read_parquet(Path(folder, "windows"))) // N_SPECIES


def stage_files(files: Sequence[Path]) -> tuple[float, int]:
    """Do what the stages `crop` and `predict` do, in one process."""
    import torch

    from callboard.core.threads import n_workers
    from callboard.features.encoding import encode_files
    from callboard.features.frame_cache import MelCache, write_cache
    from callboard.scoring.predict import score_recordings
    from callboard.scoring.window_scores import recording_scores

    part = random_detector().parts[0]
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        encoded = encode_files(
            [(path.stem, path) for path in files], part.front_end, Path(folder), n_workers()
        )
        write_cache(Path(folder, "mel"), (recording for recording, _ in encoded), N_MELS)
        cache = MelCache.open(Path(folder, "mel"))
        scores = score_recordings(part.models, cache, cache.recording_ids, part.score, torch.device("cpu"))
        recording_scores(scores, part.infer)
        return time.monotonic() - start, len(scores.recording)


def random_detector() -> "Detector":
    import torch

    from callboard.model.detector import build_model
    from callboard.model.device import use_threads
    from callboard.model.weights import LoadedModel
    from callboard.params.features import AudioParams, FeatureParams, FrontEndParams
    from callboard.params.model import ModelParams
    from callboard.params.scoring import InferParams, PredictParams
    from callboard.params.training import AugmentParams, ClipParams
    from callboard.scoring.detector import Detector, Networks
    from callboard.scoring.parts import ScoreParams
    from callboard.scoring.predict import TorchRunner

    use_threads(1)
    front_end = FrontEndParams(
        audio=AudioParams(sample_rate=WINDOW_RATE, on_other_rate="resample"),
        features=FeatureParams(n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS, f_min=50.0, f_max=11500.0),
    )
    clip = ClipParams(mode="event", n_frames=N_FRAMES, offsets=[16], mel_rows=None)
    score = ScoreParams(seed=0, augment=AugmentParams(), predict=PredictParams(overlap_frames=0))
    model = build_model(ModelParams(backbone="resnet18"), N_SPECIES).eval()
    species = [str(number) for number in range(N_SPECIES)]
    networks = Networks(
        front_end,
        score,
        InferParams(),
        [LoadedModel(model, species, 0, clip, frozenset())],
        ("random",),
        TorchRunner(score, torch.device("cpu")),
    )
    return Detector("random@0", species, [networks], [1.0], None, None)


def script_files(files: Sequence[Path]) -> tuple[float, int]:
    import soundfile
    import timm
    import torch
    from torchaudio.functional import resample
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    model = timm.create_model("resnet18", in_chans=1, num_classes=N_SPECIES).eval()
    mel = MelSpectrogram(WINDOW_RATE, N_FFT, hop_length=HOP, n_mels=N_MELS, f_min=50.0, f_max=11500.0)
    to_db, n_windows = AmplitudeToDB(top_db=80), 0
    start = time.monotonic()
    for path in files:
        sound, rate = soundfile.read(path, dtype="float32")
        image = to_db(mel(resample(torch.from_numpy(sound), rate, WINDOW_RATE)))  # (mels, frames)
        n_frames = -(-image.shape[1] // N_FRAMES) * N_FRAMES
        image = torch.nn.functional.pad(image, (0, n_frames - image.shape[1]))
        windows = image.unflatten(1, (-1, N_FRAMES)).transpose(0, 1).unsqueeze(1)
        with torch.no_grad():
            n_windows += len(model(windows).sigmoid())
    return time.monotonic() - start, n_windows


def opensoundscape_files(files: Sequence[Path]) -> tuple[float, int]:
    from opensoundscape.ml.cnn import CNN
    from opensoundscape.ml.cnn_architectures import resnet18

    model = CNN(
        resnet18(N_SPECIES, weights=None, num_channels=1),
        classes=[str(number) for number in range(N_SPECIES)],
        sample_duration=WINDOW_S,
        sample_rate=WINDOW_RATE,
        channels=1,
        height=N_MELS,
        width=N_FRAMES,
    )
    start = time.monotonic()
    scores = model.predict(
        [str(path) for path in files],
        batch_size=32,
        num_workers=2,
        activation_layer="sigmoid",
        progress_bar=False,
    )
    return time.monotonic() - start, len(scores)


ROLES: dict[str, Callable[[Sequence[Path]], tuple[float, int]]] = {
    "callboard": callboard_files,
    "stages": stage_files,
    "script": script_files,
    "opensoundscape": opensoundscape_files,
}

if __name__ == "__main__":
    main()
