from itertools import product

import torch

from callboard.training.randomness import MAX_SEED, Purpose, RngKey


def test_streams_of_different_moments_and_purposes_differ():
    moments = [RngKey(*place) for place in product(range(3), repeat=4)]  # seed, fold, epoch, batch
    draws = {moment.rng(purpose).random() for moment in moments for purpose in Purpose}
    assert len(draws) == len(moments) * len(Purpose)


def test_a_stream_is_the_same_whenever_it_is_asked_for():
    first, again = (RngKey(7, 1, 2, 3).rng(Purpose.CLIPS).random(5) for _ in range(2))
    assert first.tolist() == again.tolist()


def test_seeds_of_streams_are_such_as_torch_takes():
    moments = [RngKey(2**32 - 1, 0, epoch) for epoch in range(100)]
    seeds = {moment.torch_seed(purpose) for moment in moments for purpose in Purpose}
    assert len(seeds) == len(moments) * len(Purpose)
    assert max(seeds) < MAX_SEED
    assert all(torch.Generator().manual_seed(seed).initial_seed() == seed for seed in seeds)
