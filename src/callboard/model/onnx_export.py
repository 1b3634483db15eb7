"""Networks as ONNX, for engines that run them without torch."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx  # noqa: F401  # torch's exporter would say less clearly that it is missing
import torch
from torch import Tensor, nn

from callboard.core.errors import UserError, one_line
from callboard.features.normalisation import normalise, to_unit
from callboard.model.heads import SedOutput
from callboard.model.weights import LoadedModel

OPSET = 18
"""Version of ONNX's operators; onnxruntime 1.14 and OpenVINO 2023.1 have all of them."""

INPUT = "frames"
OUTPUTS = ("attention", "max", "segment")
FREQUENCY_OUTPUTS = ("frequency_attention", "frequency_max")
"""Further outputs of a network with a frequency head."""


class _FromFrames(nn.Module):
    """A network that takes frames as they are in the cache, so that no engine needs a normalisation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return OUTPUTS, and FREQUENCY_OUTPUTS if there are, for uint8 `frames` (batch, frames, mels)."""
        output: SedOutput = self.model(normalise(to_unit(frames)))
        outputs = output.attention, output.max, output.segment
        if output.frequency is None:
            return outputs
        return *outputs, output.frequency.attention, output.frequency.max


def onnx_network(loaded: LoadedModel, n_mels: int) -> bytes:
    """Return a network as ONNX: INPUT, uint8 (batch, frames, mels), to OUTPUTS as in `SedOutput`.

    The batch can have any size; so can the frames if the network sees whole recordings. torch's newer
    exporter would take ten times as long, needs onnxscript, and writes paths of this machine into the file.

    Args:
        loaded: A network on the CPU.
        n_mels: Mel rows of its windows.

    Raises:
        UserError: ONNX has no equivalent of one of its operations.
    """
    network = _FromFrames(loaded.model).eval()
    example = torch.zeros(2, loaded.clip.n_frames, n_mels, dtype=torch.uint8)
    names = OUTPUTS + FREQUENCY_OUTPUTS * (loaded.model(normalise(to_unit(example))).frequency is not None)
    axes = {name: {0: "batch"} for name in (INPUT, *names)}
    if loaded.clip.mode == "full":
        axes[INPUT][1] = "frames"
        axes["segment"][1] = "segments"
    with (
        TemporaryDirectory(prefix="callboard-") as folder,
        warnings.catch_warnings(),
    ):  # of the exporter's age, and of sizes that become constants
        warnings.simplefilter("ignore")
        path = Path(folder, "network.onnx")
        try:
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(names),
                dynamic_axes=axes,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            found = one_line(error)
            raise UserError(f"fold {loaded.fold}: ONNX cannot express its network: {found}") from error
        return path.read_bytes()
