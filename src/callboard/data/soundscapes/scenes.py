"""The world that all recordings of a seed share, and one recording: background, callers and the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from callboard.core.workspace import workspace_path
from callboard.data.soundscapes import difficulty
from callboard.data.soundscapes.backgrounds import Backdrop, SyntheticBackdrop
from callboard.data.soundscapes.calls import Subset, Voice, Waveform, distractor_voices, synthetic_voices
from callboard.data.soundscapes.difficulty import Conditions
from callboard.data.soundscapes.manifests import read_backdrop, read_voices
from callboard.params.data import DemoParams

DISTRACTOR = -1
"""Species number of a call that belongs to no listed species."""
PEAK_LIMIT = 0.9
"""Largest peak; louder recordings are scaled down as a whole, so that nothing clips."""
N_FFT = 2048
N_POWER_FRAMES = 64
POWER_WINDOW = np.hanning(N_FFT).astype(np.float32)


@dataclass(frozen=True)
class World:
    """Properties shared by all recordings of a seed."""

    species: list[str]
    voices: Sequence[Voice]
    distractors: Sequence[Voice]
    backdrop: Backdrop
    conditions: dict[Subset, Conditions]
    sample_rate: int
    recording_length_s: float

    @property
    def n_samples(self) -> int:
        """Length of every recording."""
        return round(self.recording_length_s * self.sample_rate)


@dataclass(frozen=True)
class PlacedCall:
    """A call that was rendered into a recording."""

    species: int
    t_min: float
    t_max: float
    f_min: float
    f_max: float
    snr_db: float
    """Mean power relative to the background's in the call's own band."""


@dataclass(frozen=True)
class Scene:
    """A recording and all calls in it, distractors included."""

    waveform: Waveform
    calls: list[PlacedCall]

    def calls_of(self, species: int) -> list[PlacedCall]:
        """Return the calls of one species."""
        return [call for call in self.calls if call.species == species]


def render_scene(world: World, present: Sequence[int], subset: Subset, rng: np.random.Generator) -> Scene:
    """Render a recording in which the species in `present` call, and no other listed species."""
    conditions = world.conditions[subset]
    waveform = world.backdrop.render(rng, world.n_samples, subset)
    power = _cumulative_power(waveform)
    calls = []
    for species in present:
        pitch = 1 + conditions.pitch_offset + difficulty.PITCH_SD * rng.standard_normal()
        snr_db = conditions.snr_mean_db + conditions.snr_sd_db * rng.standard_normal()
        for _ in range(_n_calls(rng)):
            calls.append(
                _place(world, waveform, power, species, world.voices[species], pitch, snr_db, subset, rng)
            )
    for _ in range(rng.poisson(conditions.n_distractors_mean * world.recording_length_s / 20)):
        voice = world.distractors[int(rng.integers(len(world.distractors)))]
        snr_db = conditions.snr_mean_db + conditions.snr_sd_db * rng.standard_normal()
        calls.append(_place(world, waveform, power, DISTRACTOR, voice, 1.0, snr_db, subset, rng))
    peak = float(np.abs(waveform).max())
    if peak > PEAK_LIMIT:
        waveform *= np.float32(PEAK_LIMIT / peak)
    return Scene(waveform, sorted(calls, key=lambda call: call.t_min))


def _n_calls(rng: np.random.Generator) -> int:
    return min(int(rng.geometric(1 / difficulty.CALLS_PER_CALLER_MEAN)), difficulty.MAX_CALLS_PER_CALLER)


def _place(
    world: World,
    waveform: Waveform,
    power: NDArray[np.float64],
    species: int,
    voice: Voice,
    pitch: float,
    snr_db: float,
    subset: Subset,
    rng: np.random.Generator,
) -> PlacedCall:
    """Add one call to `waveform` in place, at its level over the background of its band."""
    call = voice.call(rng, pitch, subset)
    sound = call.waveform[: len(waveform)]
    snr_db = float(
        np.clip(snr_db + difficulty.CALL_LEVEL_SD_DB * rng.standard_normal(), *difficulty.SNR_RANGE_DB)
    )
    f_max = min(call.f_max_hz, world.sample_rate / 2)
    gain = np.sqrt(_band_power(power, call.f_min_hz, f_max, world.sample_rate) * 10 ** (snr_db / 10))
    start = int(rng.integers(len(waveform) - len(sound) + 1))
    waveform[start : start + len(sound)] += np.float32(gain) * sound
    t_min = start / world.sample_rate
    return PlacedCall(species, t_min, t_min + len(sound) / world.sample_rate, call.f_min_hz, f_max, snr_db)


def _cumulative_power(waveform: Waveform) -> NDArray[np.float64]:
    """Return the mean square below each frequency bin, (N_FFT // 2 + 2,), from frames across the waveform."""
    starts = np.linspace(0, len(waveform) - N_FFT, N_POWER_FRAMES).astype(int)
    spectra = fft.rfft(waveform[starts[:, np.newaxis] + np.arange(N_FFT)] * POWER_WINDOW)
    density = np.mean(spectra.real**2 + spectra.imag**2, axis=0, dtype=np.float64)
    return np.concatenate([[0.0], np.cumsum(density * (2 / N_FFT / np.square(POWER_WINDOW).sum()))])


def _band_power(power: NDArray[np.float64], f_min_hz: float, f_max_hz: float, sample_rate: int) -> float:
    edges = np.array([f_min_hz, f_max_hz]) / (sample_rate / 2) * (len(power) - 2)
    low, high = np.clip(np.rint(edges).astype(int), 0, len(power) - 2)
    return float(power[high + 1] - power[low])


LONGEST_CALL_SHARE = 0.5
"""Longest real call, as a share of the recording; longer calls are cut."""


def build_world(demo: DemoParams, sample_rate: int) -> World:
    """Draw from the seed and read from the manifests all that recordings share.

    Raises:
        UserError: There are more species than call models or labels, or a manifest or one of its files is
            wrong.
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
    """Return the species' labels, their voices, and the voices of distractors."""
    if not demo.calls:
        voices = synthetic_voices(demo.n_species, sample_rate, rng)
        return [str(number) for number in range(demo.n_species)], voices, distractor_voices(sample_rate, rng)
    longest_s = LONGEST_CALL_SHARE * demo.recording_length_s
    manifest = workspace_path(demo.calls)
    labels, listed, unlisted = read_voices(manifest, demo.n_species, sample_rate, longest_s, rng)
    return labels, listed, unlisted or distractor_voices(sample_rate, rng)
