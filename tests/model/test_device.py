import pytest
import torch

from callboard.core.errors import UserError
from callboard.model import device


def test_the_first_device_that_is_here_is_taken(monkeypatch):
    monkeypatch.delenv("CALLBOARD_DEVICE", raising=False)
    monkeypatch.setattr(device, "DEVICES", {"cuda": lambda: False, "mps": lambda: True, "cpu": lambda: True})
    assert device.pick_device() == torch.device("mps")


def test_the_environment_overrides_the_choice(monkeypatch):
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")
    monkeypatch.setattr(device, "DEVICES", {"cuda": lambda: True, "cpu": lambda: True})
    assert device.pick_device() == torch.device("cpu")


def test_an_unknown_device_is_refused(monkeypatch):
    monkeypatch.setenv("CALLBOARD_DEVICE", "gpu")
    with pytest.raises(UserError, match="CALLBOARD_DEVICE is 'gpu'; it must be one of auto, cuda, mps, cpu"):
        device.pick_device()


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setenv("CALLBOARD_DEVICE", "cuda")
    monkeypatch.setitem(device.DEVICES, "cuda", lambda: False)
    with pytest.raises(UserError, match="'cuda', which this machine does not have"):
        device.pick_device()


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_is_bfloat16_only_where_the_hardware_has_it(monkeypatch, has_it, dtype):
    monkeypatch.setattr(device, "has_bfloat16", lambda device: has_it)
    with device.autocast(torch.zeros(1, 256, 33)):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_images_of_few_rows_stay_float32_on_a_cpu(monkeypatch):
    monkeypatch.setattr(device, "has_bfloat16", lambda device: True)
    with device.autocast(torch.zeros(1, 256, 32)):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_device_is_told_with_its_precision(monkeypatch):
    monkeypatch.setattr(device, "has_bfloat16", lambda device: True)
    assert device.describe_device(torch.device("cpu")) == "cpu (bf16)"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_the_allocator_is_tuned_where_it_can_be(monkeypatch, platform):
    asked = []

    class Library:
        def mallopt(self, parameter, value):
            asked.append((parameter, value))

    monkeypatch.setattr(device.sys, "platform", platform)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Library())
    device.keep_freed_memory()
    assert asked == ([(-1, 2**31 - 1), (-3, 2**30)] if platform == "linux" else [])


def test_mps_computes_in_float32():
    assert not device.has_bfloat16(torch.device("mps"))
