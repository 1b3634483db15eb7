"""Compare embedding recordings with what BirdNET's bare network does on all processors, in alternation.

    PYTHONPATH=src python benchmarks/birdnet.py FOLDER_OF_RECORDINGS [--recordings 20] [--repeats 3]

Ours: decoding, resampling and embedding as `crop` does it, every 0.5 s. Bare: the same number of windows that
lie in memory, one network of one thread for each processor; and one network with a thread for each processor.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from callboard.core.threads import n_workers
from callboard.features.embeddings import WINDOW_SAMPLES, birdnet, read_network
from callboard.features.encoding import encode_files
from callboard.features.frame_cache import EncodedRecording
from callboard.params.features import AudioParams, FeatureParams, FrontEndParams

FRONT_END = FrontEndParams(
    audio=AudioParams(sample_rate=48_000, on_other_rate="resample"), features=FeatureParams(kind="birdnet")
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recordings", type=int, default=20, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default %(default)s")
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.flac")) + sorted(args.folder.glob("*.wav"))
    if not paths:
        sys.exit(f"{args.folder}: no .flac or .wav files")
    n_windows = ours(paths[:2])
    bare(2 * n_workers())  # networks are built
    seconds: dict[str, list[float]] = {"ours": [], "bare, one thread each": [], "bare, threads together": []}
    for _ in range(args.repeats):
        start = time.perf_counter()
        n_windows = ours(paths[: args.recordings])
        seconds["ours"].append(time.perf_counter() - start)
        seconds["bare, one thread each"].append(timed(bare, n_windows))
        seconds["bare, threads together"].append(timed(together, n_windows))
    for name, times in seconds.items():
        print(f"{name}: {n_windows / median(times):.1f} windows a second (median of {len(times)})")
    best = min(median(seconds[name]) for name in seconds if name != "ours")
    print(
        f"ours does {best / median(seconds['ours']):.2f} of the faster bare one, on {n_workers()} processors"
    )


def timed(run: Callable[[int], None], n_windows: int) -> float:
    start = time.perf_counter()
    run(n_windows)
    return time.perf_counter() - start


def ours(paths: list[Path]) -> int:
    """Embed recordings, and return the number of frames, each of which is a window of its own but at ends."""
    n_frames = 0
    with TemporaryDirectory() as folder:
        files = [(path.name, path) for path in paths]
        for outcome, _ in encode_files(files, FRONT_END, Path(folder), n_workers()):
            if not isinstance(outcome, EncodedRecording):
                sys.exit(f"{outcome}")
            n_frames += len(np.unique(outcome.frames[:], axis=0))
    return n_frames


def bare(n_windows: int) -> None:
    window = np.random.default_rng(0).standard_normal(WINDOW_SAMPLES).astype(np.float32)
    with ThreadPoolExecutor(n_workers()) as pool:
        for _ in pool.map(lambda _: birdnet(window), range(n_windows)):
            pass


def together(n_windows: int) -> None:
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(model_content=read_network(), num_threads=n_workers())
    network.allocate_tensors()
    window = np.random.default_rng(0).standard_normal(WINDOW_SAMPLES).astype(np.float32)
    for _ in range(n_windows):
        network.set_tensor(network.get_input_details()[0]["index"], window[None])
        network.invoke()


if __name__ == "__main__":
    main()
