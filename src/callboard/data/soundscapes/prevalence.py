"""Assignment of species to recordings: annotations are balanced in train, presence is skewed in test."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from callboard.data.soundscapes import difficulty

MAX_SPECIES_PER_RECORDING = 5
ORDER_NOISE = 0.2
"""Standard deviation of the log-frequency noise that blurs the order from low to high voices."""
RARITY = 0.80
"""Ratio between the shares of consecutive species of the test set, after the dominant one."""


def train_cast(
    target: int | None, n_species: int, shares: tuple[float, ...], rng: np.random.Generator
) -> list[int]:
    """Draw the species of a training recording: target first, others uniformly; never all species at once."""
    n_present = min(1 + int(rng.choice(len(shares), p=np.array(shares) / sum(shares))), n_species - 1)
    order = [int(species) for species in rng.permutation(n_species)]
    if target is not None:
        order = [target, *(species for species in order if species != target)]
    return order[:n_present]


def common_to_rare(f_max_hz: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Order species from common to rare in the test set; low voices, hard to tell apart, are more common."""
    pitch = np.log(f_max_hz) + ORDER_NOISE * rng.standard_normal(len(f_max_hz))
    return [int(species) for species in np.argsort(pitch)]


def test_presence(
    n_recordings: int, order: list[int], shares: tuple[float, ...], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw the species of test recordings, (recordings, species): one common, some rare, no recording empty.

    `order` lists all species, the common ones first.
    Every species is given at least `MIN_TEST_RECORDINGS_PER_SPECIES` recordings if there are that many.
    """
    n_species = len(order)
    mean_present = np.dot(shares, np.arange(1, len(shares) + 1)) / sum(shares)
    wanted = np.rint(_skewed_shares(n_species) * mean_present * n_recordings).astype(int)
    fewest = min(difficulty.MIN_TEST_RECORDINGS_PER_SPECIES, n_recordings)
    wanted = np.clip(wanted, fewest, n_recordings)
    most = max(1, min(MAX_SPECIES_PER_RECORDING, n_species - 1))
    present = np.zeros((n_recordings, n_species), dtype=bool)
    for rank in np.argsort(wanted, kind="stable"):
        crowding = present.sum(axis=1) + 3.0 * rng.random(n_recordings)
        crowding[present.sum(axis=1) >= most] = np.inf
        chosen = np.argsort(crowding, kind="stable")[: wanted[rank]]
        present[chosen[np.isfinite(crowding[chosen])], order[rank]] = True
    present[~present.any(axis=1), order[0]] = True
    return present


def _skewed_shares(n_species: int) -> NDArray[np.float64]:
    """Return each species' share of the true pairs: the first dominates, the rest fall geometrically."""
    if n_species == 1:
        return np.ones(1)
    rest = RARITY ** np.arange(n_species - 1)
    dominant = max(difficulty.DOMINANT_TEST_SHARE, 1 / n_species)
    return np.concatenate([[dominant], (1 - dominant) * rest / rest.sum()])
