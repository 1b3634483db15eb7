"""The measured time of a training step."""

import time

import pytest
import torch

from callboard.training import step_time
from tests.toy_training import fit_params


def test_a_step_takes_as_long_as_steps_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured from outside: so many steps cannot take longer than all that was waited for."""
    monkeypatch.setattr(step_time, "MEASURED_S", 60.0)
    monkeypatch.setattr(step_time, "MAX_STEPS", 5)
    start = time.perf_counter()
    measured = step_time.step_time_s(fit_params(), 32, 3, torch.device("cpu"))
    assert 0 < 3 * measured < time.perf_counter() - start


def test_measuring_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time, "MEASURED_S", 0.0)
    assert step_time.step_time_s(fit_params(), 32, 3, torch.device("cpu")) > 0
