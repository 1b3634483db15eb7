"""The machine: which device computes, and in which precision.

These facts come from the environment and not from params.yaml: they must change neither the experiment nor
its hashes.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from callboard.core.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `mallopt`."""

DEVICES: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
"""Device types by preference, each with the question whether this machine has it."""


def pick_device() -> torch.device:
    """The first of cuda, mps and cpu that this machine has, unless CALLBOARD_DEVICE names one.

    Raises:
        UserError: CALLBOARD_DEVICE names no device type, or one that this machine lacks.
    """
    wanted = os.environ.get("CALLBOARD_DEVICE", "auto")
    if wanted == "auto":
        return torch.device(next(name for name, is_here in DEVICES.items() if is_here()))
    if wanted not in DEVICES:
        raise UserError(f"CALLBOARD_DEVICE is {wanted!r}; it must be one of auto, {', '.join(DEVICES)}")
    if not DEVICES[wanted]():
        raise UserError(
            f"CALLBOARD_DEVICE is {wanted!r}, which this machine does not have; unset it to choose by itself"
        )
    return torch.device(wanted)


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 in hardware; emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


ONE_CELL = 32
"""Mel rows of which a backbone of the usual stride leaves one cell. On a CPU, oneDNN's bfloat16 convolutions
of such maps read memory that nobody has written: losses differ from run to run or are NaN (torch 2.11)."""


def autocast(image: Tensor) -> AbstractContextManager[None]:
    """The precision of a pass over images: bfloat16 where the hardware has it, else float32.

    Args:
        image: (clips, frames, mels). With few mels float32 on a CPU, see ONE_CELL.
    """
    device = image.device
    if has_bfloat16(device) and (device.type != "cpu" or image.shape[2] > ONE_CELL):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def describe_device(device: torch.device) -> str:
    """The device in words, e.g. `cpu` or `cuda (bf16)`."""
    return f"{device.type} (bf16)" if has_bfloat16(device) else device.type


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step instead of handing it back to the system after each.

    A training step frees and asks for the same blocks again, and fresh pages are cleared first: 6 % of a step
    of the committed network (54 ms to 51 ms, two cores). Does nothing where there is no glibc.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
