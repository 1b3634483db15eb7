"""The device that computes, and its precision.

Both come from the environment, not from params.yaml: they must change neither the experiment nor its hashes.
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
"""Parameter numbers of glibc's `mallopt`."""

DEVICES: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
"""Device types in order of preference, each with a function that returns whether this machine has it."""


def pick_device() -> torch.device:
    """Return the first of cuda, mps and cpu that this machine has, or the one that CALLBOARD_DEVICE names.

    Raises:
        UserError: CALLBOARD_DEVICE is not a device type, or this machine does not have it.
    """
    wanted = os.environ.get("CALLBOARD_DEVICE", "auto")
    if wanted == "auto":
        return torch.device(next(name for name, is_here in DEVICES.items() if is_here()))
    if wanted not in DEVICES:
        raise UserError(f"CALLBOARD_DEVICE is {wanted!r}; it must be one of auto, {', '.join(DEVICES)}")
    if not DEVICES[wanted]():
        raise UserError(
            f"CALLBOARD_DEVICE is {wanted!r}, which this machine does not have; unset it to choose "
            "automatically"
        )
    return torch.device(wanted)


def use_threads(n_threads: int) -> None:
    """Set the number of threads that a CPU computes each operation with.

    A different number sums in a different order, so it is part of the experiment (`train.threads`).
    """
    torch.set_num_threads(n_threads)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 in hardware; emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


ONE_CELL = 32
"""Mel rows that a backbone of the usual stride reduces to one cell. On a CPU, oneDNN's bfloat16 convolutions
of maps one cell high read uninitialised memory: losses differ from run to run or are NaN (torch 2.11)."""


def autocast(image: Tensor) -> AbstractContextManager[None]:
    """Return the context for a forward pass: bfloat16 if the hardware supports it, else float32.

    Args:
        image: (clips, frames, mels). With at most ONE_CELL mels, a CPU uses float32.
    """
    device = image.device
    if has_bfloat16(device) and (device.type != "cpu" or image.shape[2] > ONE_CELL):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def describe_device(device: torch.device) -> str:
    """Return a short description of the device, such as `cpu` or `cuda (bf16)`."""
    return f"{device.type} (bf16)" if has_bfloat16(device) else device.type


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next training step instead of returning it to the system.

    Every step frees and requests the same blocks, and the system clears fresh pages first: 6 % of a step
    of the default network (54 ms to 51 ms, two cores). Does nothing without glibc.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
