"""Networks as ONNX, run by onnxruntime or OpenVINO on CPUs, without torch."""

from collections.abc import Callable, Sequence
from threading import local
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.core.reading import reading
from callboard.core.threads import n_workers
from callboard.params.training import ClipParams
from callboard.scoring.parts import MAX_BATCHES_AT_ONCE, NetworkOutput
from callboard.scoring.window_batches import WindowBatch

WINDOWS_AT_ONCE = 16
"""Windows that a network sees together: as fast as a batch of 128, in an eighth of its memory, which engines
do not release."""

Logits = Sequence[NDArray[np.float32]]
"""Outputs of a network in the order of `model/onnx_export.py`."""

RunFrames = Callable[[NDArray[np.uint8]], Logits]
"""Function from frames (batch, frames, mels) to logits, which several threads can call."""


class OnnxSession:
    """A network that an engine has loaded; it can be pickled, and is then loaded again."""

    def __init__(self, content: bytes, engine: str, place: str) -> None:
        """Load the network.

        Args:
            content: The network as ONNX.
            engine: A key of ENGINES.
            place: Name of the network in errors.

        Raises:
            UserError: The engine is unknown or not installed, or the network is damaged.
        """
        if engine not in ENGINES:
            raise UserError(f"engine {engine!r} must be one of {', '.join(ENGINES)}")
        self._arguments = content, engine, place
        with reading(place, "a network that this engine can run", damaged="export it again"):
            try:
                self._run = ENGINES[engine](content)
            except ModuleNotFoundError as error:
                raise UserError(f"{engine} is not installed: pip install {engine}") from error

    def __call__(self, frames: NDArray[np.uint8]) -> Logits:
        """Return the logits of frames (batch, frames, mels)."""
        return self._run(frames)

    def __reduce__(self) -> tuple[type["OnnxSession"], tuple[bytes, str, str]]:
        return OnnxSession, self._arguments


class OnnxNetwork(NamedTuple):
    """A trained network that an engine has loaded."""

    species: list[str]
    """The class axis."""
    fold: int
    """The fold that the network has not seen."""
    clip: ClipParams
    run: RunFrames


class OnnxRunner:
    """Runner of such networks, one batch in each of CALLBOARD_WORKERS threads."""

    @property
    def n_at_once(self) -> int:
        """Number of batches that are run side by side."""
        return min(n_workers(), MAX_BATCHES_AT_ONCE)

    def here(self, networks: Sequence[OnnxNetwork]) -> tuple[Sequence[OnnxNetwork], "OnnxRunner"]:
        """Return them as they are: engines use the CPU."""
        return networks, self

    def run(
        self, networks: Sequence[OnnxNetwork], batch: WindowBatch, first_window: int
    ) -> list[NetworkOutput]:
        """Return the output of each network."""
        frames = np.ascontiguousarray(batch.frames)
        firsts = range(0, len(frames), WINDOWS_AT_ONCE)
        return [
            _joined_output([network.run(frames[first : first + WINDOWS_AT_ONCE]) for first in firsts])
            for network in networks
        ]


def _joined_output(pieces: Sequence[Logits]) -> NetworkOutput:
    attention, largest, segment, *frequency = map(np.concatenate, zip(*pieces, strict=True))
    return NetworkOutput(attention, largest, segment, (frequency[0], frequency[1]) if frequency else None)


def _load_onnxruntime(content: bytes) -> RunFrames:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda frames: session.run(None, {name: frames})


def _load_openvino(content: bytes) -> RunFrames:
    import openvino

    core = openvino.Core()
    n_streams = min(n_workers(), MAX_BATCHES_AT_ONCE)
    compiled = core.compile_model(
        core.read_model(content),
        "CPU",
        {
            "NUM_STREAMS": n_streams,
            "INFERENCE_NUM_THREADS": n_streams,
            "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 by default, where the processor has it
        },
    )
    of_thread = local()

    def run(frames: NDArray[np.uint8]) -> Logits:
        if not hasattr(of_thread, "request"):
            of_thread.request = compiled.create_infer_request()
        outputs = of_thread.request.infer([frames])
        return [np.array(outputs[number]) for number in range(len(compiled.outputs))]

    return run


ENGINES: dict[str, Callable[[bytes], RunFrames]] = {
    "onnxruntime": _load_onnxruntime,
    "openvino": _load_openvino,
}
"""Engines by the name of their package, each with a function that loads a network."""

DEFAULT_ENGINE = "onnxruntime"
"""The faster one for small networks, and as fast for large ones: `benchmarks/engines.py`."""
