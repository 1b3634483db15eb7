"""A step on a device other than the CPU neither waits for it nor copies to it but by `to_device`.

The device is torch's `meta`, which computes shapes alone, so no GPU is needed.
"""

import traceback
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from callboard.features.windows import Windows
from callboard.model.heads import AttentionHead, SedOutput, TimeFrequencyHead
from callboard.training.batches import BatchSource
from callboard.training.fit import Learner, train_step
from callboard.training.losses import terms
from callboard.training.mixup import MIXUP
from callboard.training.randomness import RngKey
from tests.toy_training import fit_params, random_fold

ELSEWHERE = torch.device("meta")


class Crossings(TorchDispatchMode):
    """Record of the copies between the CPU and the device, by whether `to_device` made them."""

    def __init__(self) -> None:
        super().__init__()
        self.by_to_device = 0
        self.others: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, result)) if isinstance(one, torch.Tensor)]
        of = {one.device for one in tensors if one.dim()}
        if len(of) > 1:
            if any(frame.name == "to_device" for frame in traceback.extract_stack()):
                self.by_to_device += 1
            else:
                self.others.append(str(func))
        return result


class Network(torch.nn.Module):
    """Pooling and a head over each of both axes."""

    def __init__(self) -> None:
        super().__init__()
        model = fit_params().model
        self.head = TimeFrequencyHead(AttentionHead(1, 4, model), AttentionHead(1, 4, model))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image.unsqueeze(1), 4)

    def forward(self, image: torch.Tensor) -> SedOutput:
        output: SedOutput = self.head(self.features(image))
        return output


@pytest.mark.parametrize("mode", MIXUP)
def test_a_step_elsewhere_waits_for_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # not for meta
    monkeypatch.setattr(terms, "CLASS_WEIGHTS", dict.fromkeys(terms.CLASS_WEIGHTS, torch.ones_like))
    changes = {f"loss__{name}__weight": 1.0 for name in terms.TERMS}
    params = fit_params(mixup__mode=mode, augment__freq_crop=10, augment__freq_crop_p=1.0, **changes)
    data = random_fold(0)
    data = replace(data, frames=torch.from_numpy(data.frames).to(ELSEWHERE))
    model: Any = Network().to(ELSEWHERE)
    learner = Learner(model, torch.optim.SGD(model.parameters(), 0.1))
    loss = terms.Loss(params.loss, torch.ones(4, device=ELSEWHERE))
    source = BatchSource(data, params, 0, ELSEWHERE, 1)
    with Crossings() as crossings:
        batch = source.make(Windows(np.arange(6), np.zeros(6, dtype=np.int64)), RngKey(1, 0))
        n_of_batch = crossings.by_to_device
        means = train_step(learner, loss, batch, MIXUP[mode])
    assert crossings.others == []
    assert n_of_batch == crossings.by_to_device > 0
    assert all(value.device == ELSEWHERE for value in means.values())
