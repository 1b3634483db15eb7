"""The species, their callers and the backgrounds that all recordings of one seed share."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from callboard.params.data import DemoParams
from callboard.soundscapes import difficulty
from callboard.soundscapes.backgrounds import Backdrop, SyntheticBackdrop
from callboard.soundscapes.calls import Subset, Voice, distractor_voices, synthetic_voices
from callboard.soundscapes.difficulty import Conditions
from callboard.soundscapes.manifests import read_backdrop, read_voices
from callboard.soundscapes.scenes import World
from callboard.workspace import workspace_path

LONGEST_CALL_SHARE = 0.5
"""Of a recording: real calls are cut to that."""


def build_world(demo: DemoParams, sample_rate: int) -> World:
    """Everything drawn from the seed or read from the manifests, before the first recording is made.

    Raises:
        UserError: more species than call models or labels; a manifest or one of its files is not in order.
    """
    conditions: dict[Subset, Conditions] = {"train": difficulty.TRAIN, "test": difficulty.TEST}
    if demo.crowding == "dense":
        conditions = {
            subset: replace(conditions[subset], n_species_shares=shares)
            for subset, shares in difficulty.DENSE_SHARES.items()
        }
    rng = np.random.default_rng([demo.seed, 0])
    species, voices, distractors = _callers(demo, sample_rate, rng)
    backdrop: Backdrop = SyntheticBackdrop(sample_rate, conditions)
    if demo.backgrounds:
        backdrop = read_backdrop(workspace_path(demo.backgrounds), sample_rate, conditions, rng)
    return World(species, voices, distractors, backdrop, conditions, sample_rate, demo.recording_length_s)


def _callers(
    demo: DemoParams, sample_rate: int, rng: np.random.Generator
) -> tuple[list[str], Sequence[Voice], Sequence[Voice]]:
    """Species, their voices, and the voices of what is not listed."""
    if not demo.calls:
        voices = synthetic_voices(demo.n_species, sample_rate, rng)
        return [str(number) for number in range(demo.n_species)], voices, distractor_voices(sample_rate, rng)
    longest_s = LONGEST_CALL_SHARE * demo.recording_length_s
    manifest = workspace_path(demo.calls)
    labels, listed, unlisted = read_voices(manifest, demo.n_species, sample_rate, longest_s, rng)
    return labels, listed, unlisted or distractor_voices(sample_rate, rng)
