import pytest
import torch
from torch import nn

from callboard.training.weight_average import average_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


def steps(model, count, seed=1):
    """Random steps of weights and running statistics; yields after each."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        model(torch.randn(2, 1, 8, 8, generator=generator))  # moves the running statistics
        yield


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_recursion_from_the_first_step_on(decay):
    model = network()
    average = average_of(model, decay)
    expected = {}
    for _ in steps(model, 5):
        average.update_parameters(model)
        for name, tensor in model.state_dict().items():
            new = tensor.double()
            expected[name] = decay * expected[name] + (1 - decay) * new if name in expected else new
    found = average.module.state_dict()
    for name in set(expected) - {"1.num_batches_tracked"}:
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)


def test_running_statistics_are_averaged_and_counters_are_the_newest():
    model = network()
    average = average_of(model, 0.9)
    for _ in steps(model, 4):
        average.update_parameters(model)
    norm = average.module[1]
    assert norm.num_batches_tracked == model[1].num_batches_tracked == 4
    assert not torch.equal(norm.running_mean, model[1].running_mean)


def test_averaging_leaves_the_network_and_random_numbers_alone():
    model, twin = network(), network()
    state = torch.get_rng_state()
    average = average_of(model, 0.9)
    for _ in zip(steps(model, 3), steps(twin, 3), strict=True):
        average.update_parameters(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
