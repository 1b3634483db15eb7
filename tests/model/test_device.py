import pytest
import torch

from callboard.core.compute import cpu_name
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


def test_what_computes_here_is_recorded_with_the_precision_that_autocast_uses(monkeypatch):
    monkeypatch.setattr(device, "has_bfloat16", lambda device: True)
    found = device.computed_on(torch.device("cpu"), 33)
    assert (found.device, found.threads, found.torch) == ("cpu", torch.get_num_threads(), torch.__version__)
    assert found.precision == "bfloat16"
    assert device.computed_on(torch.device("cpu"), 32).precision == "float32"
    assert found == device.computed_on(torch.device("cpu"), 64)
    assert cpu_name() in found.processor
    assert torch.backends.cpu.get_cpu_capability() in found.processor


def test_a_processor_that_has_amx_is_another_one(monkeypatch):
    found = []
    for has_it in (False, True):
        monkeypatch.setattr(device.torch.cpu, "_is_amx_tile_supported", lambda has_it=has_it: has_it)
        found.append(device.computed_on(torch.device("cpu"), 64).processor)
    assert found[1] == found[0].replace(")", " with AMX)")


def test_a_graphics_card_is_recorded_by_its_model(monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(device, "has_bfloat16", lambda device: True)
    found = device.computed_on(torch.device("cuda"), 16)
    assert (found.device, found.processor, found.precision) == ("cuda", "NVIDIA H200", "bfloat16")
    assert device.computed_on(torch.device("mps"), 64).processor == cpu_name()
