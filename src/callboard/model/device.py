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

from callboard.core.compute import Compute, cpu_name
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


def precision(device: torch.device, n_mels: int) -> torch.dtype:
    """Return the type that `device` multiplies in: bfloat16 if the hardware supports it, else float32.

    Args:
        device: Device of the images.
        n_mels: Mel rows of an image. With at most ONE_CELL, a CPU uses float32.
    """
    if has_bfloat16(device) and (device.type != "cpu" or n_mels > ONE_CELL):
        return torch.bfloat16
    return torch.float32


def autocast(image: Tensor) -> AbstractContextManager[None]:
    """Return the context for a forward pass in `precision`.

    Args:
        image: (clips, frames, mels).
    """
    dtype = precision(image.device, image.shape[2])
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(image.device.type, dtype=dtype)


def computed_on(device: torch.device, n_mels: int) -> Compute:
    """Return what computes here now, for images with so many mel rows on `device`."""
    return Compute(
        device=device.type,
        processor=_processor(device),
        threads=torch.get_num_threads(),
        precision=str(precision(device, n_mels)).removeprefix("torch."),
        torch=str(torch.__version__),  # a type of its own, which no checkpoint may hold
    )


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return cpu_name()  # Apple's GPU is a part of the processor
    # torch's name of the instruction set leaves out AMX, which rounds bfloat16 in its own way
    with_amx = " with AMX" * torch.cpu._is_amx_tile_supported()
    return f"{cpu_name()} ({torch.backends.cpu.get_cpu_capability()}{with_amx})"


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
