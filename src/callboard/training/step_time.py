"""Duration of a training step on this machine, measured on noise: it does not depend on what clips show."""

import time
from itertools import chain, count

import numpy as np
import torch

from callboard.core.machine import named_if_out_of_memory
from callboard.model.device import keep_freed_memory, use_threads
from callboard.training.batches import BatchSource, on_device
from callboard.training.fit import SMALLER_BATCHES, FitParams, build_learner, train_step
from callboard.training.fold_data import CONFIRMED, Annotations, FoldData
from callboard.training.losses.terms import Loss
from callboard.training.mixup import MIXUP

N_WARM_UP = 2
"""Steps that are not timed: the first ones set up memory and kernels."""

MEASURED_S = 3.0
"""Seconds after which no further step is timed."""

MAX_STEPS = 30


def step_time_s(params: FitParams, n_mels: int, n_classes: int, device: torch.device) -> float:
    """Return the median time of a training step with whole batches, seconds.

    Args:
        params: Parameters of the training.
        n_mels: Mel rows of a frame.
        n_classes: Length of the class axis.
        device: Device to train on.

    Raises:
        UserError: the backbone cannot be built, or memory is not enough.
    """
    keep_freed_memory()
    use_threads(params.train.threads)
    data = on_device(_noise(params, n_mels, n_classes), device)
    loss = Loss(params.loss, torch.as_tensor(data.n_tp_annotations, device=device))
    with named_if_out_of_memory("a training step", SMALLER_BATCHES):
        learner = build_learner(params, 0, n_classes, device)
        learner.model.train()
        source = BatchSource(data, params, 0, device, 1)
        times: list[float] = []
        started = time.perf_counter()
        for batch in chain.from_iterable(source.epoch(epoch) for epoch in count()):
            train_step(learner, loss, batch, MIXUP[params.mixup.mode])
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())
            if len(times) > N_WARM_UP and (len(times) > MAX_STEPS or times[-1] - started > MEASURED_S):
                break
    return float(np.median(np.diff(times)[N_WARM_UP - 1 :]))


def _noise(params: FitParams, n_mels: int, n_classes: int) -> FoldData:
    """Return a batch of recordings of two clips each, with a call in the middle."""
    n_recordings, n_frames = params.train.batch_size, 2 * params.clip.n_frames
    rng = np.random.default_rng(0)
    column = np.ones((n_recordings, 1), dtype=np.int64)
    none = np.zeros(n_recordings, dtype=np.int64)
    start = column * (n_frames // 2)
    return FoldData(
        frames=torch.from_numpy(rng.integers(0, 256, (n_recordings * n_frames, n_mels), dtype=np.uint8)),
        first_frame=np.arange(n_recordings) * n_frames,
        n_frames=column[:, 0] * n_frames,
        annotations=Annotations(
            start=start,
            stop=start + 1,
            low=0 * column,
            high=column * n_mels,
            species=(np.arange(n_recordings) % n_classes)[:, None],
            verdict=np.full((n_recordings, 1), CONFIRMED),
            n_tp=column[:, 0],
            n_fp=none,
            n_pseudo=none,
            n_negative=none,
        ),
        n_tp_annotations=np.full(n_classes, 10),
        class_species=np.arange(n_classes),
        validation=np.array([0]),
        is_present=np.ones((1, n_classes), dtype=np.bool_),
    )
