"""Copies from this process's memory to a device."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on `device`, without waiting for work that a GPU has yet to do.

    A plain copy to a GPU waits until everything before it is done, so a step with a few of them leaves the
    GPU idle while the next operations are prepared. One from pinned memory only takes its turn.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
