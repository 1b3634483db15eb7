"""Synthetic backgrounds: coloured noise, in some recordings with frog chorus, rain, wind and insects."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import fft, signal

from callboard.data.soundscapes.calls import Subset, Waveform
from callboard.data.soundscapes.difficulty import Conditions

COLOUR_HZ = (100.0, 750.0, 1500.0, 3000.0, 6000.0, 10_000.0)
COLOUR_DB = (-38.0, -55.0, -55.0, -54.0, -56.0, -55.0)
COLOUR_SD_DB = (5.0, 4.0, 4.0, 4.0, 3.0, 3.0)
"""Levels at COLOUR_HZ and their spread, from 23 recordings of the RFCX competition without a loud chorus."""
RMS_RANGE_DBFS = (-46.0, -24.0)
COLOUR_STEP = 64
"""Neighbouring FFT bins that share one level, about 3 Hz."""


class Backdrop(Protocol):
    """A source of backgrounds."""

    def render(self, rng: np.random.Generator, n_samples: int, subset: Subset) -> Waveform:
        """Return one background, (n_samples,), at its final level."""
        ...


@dataclass(frozen=True)
class SyntheticBackdrop:
    """Synthesised noise; train and test differ in gain, colour and weather."""

    sample_rate: int
    conditions: dict[Subset, Conditions]

    def render(self, rng: np.random.Generator, n_samples: int, subset: Subset) -> Waveform:
        """Return one background, (n_samples,), with its subset's shares of chorus, rain, wind and insects."""
        conditions = self.conditions[subset]
        background = self._coloured_noise(rng, n_samples, conditions.tilt_db_per_octave)
        level = _rms(background)
        layers = (
            (conditions.chorus_share, self._chorus, (0.6, 2.5)),
            (conditions.rain_share, self._rain, (0.5, 1.5)),
            (conditions.wind_share, self._wind, (0.5, 2.0)),
            (conditions.insects_share, self._insects, (0.1, 0.5)),
        )
        for share, make_layer, loudness in layers:
            if rng.random() < share:
                layer = make_layer(rng, n_samples)
                background += layer * (level * np.float32(rng.uniform(*loudness)) / _rms(layer))
        return to_level(background, rng, conditions)

    def _coloured_noise(self, rng: np.random.Generator, n_samples: int, tilt_db: float) -> Waveform:
        """Return coloured noise; bins can be uniform (cheap), as the sum of many is nearly Gaussian."""
        n_fft = fft.next_fast_len(n_samples, real=True)
        n_bins = n_fft // 2 + 1
        bands_hz = np.arange(-(-n_bins // COLOUR_STEP)) * (COLOUR_STEP * self.sample_rate / n_fft)
        anchors = np.log2(COLOUR_HZ)
        level_db = np.asarray(COLOUR_DB) + np.asarray(COLOUR_SD_DB) * rng.standard_normal(len(COLOUR_DB))
        level_db += tilt_db * (anchors - anchors[0])
        amplitude = 10 ** (np.interp(np.log2(np.maximum(bands_hz, 20.0)), anchors, level_db) / 20)
        noise = (rng.random(2 * n_bins, dtype=np.float32) - np.float32(0.5)).view(np.complex64)
        noise *= np.repeat(amplitude.astype(np.float32), COLOUR_STEP)[:n_bins]
        waveform: Waveform = fft.irfft(noise, n_fft, overwrite_x=True)[:n_samples]
        return waveform

    def _chorus(self, rng: np.random.Generator, n_samples: int) -> Waveform:
        """Return many distant callers of one kind: one chirp at random times and levels."""
        n_calls = int(n_samples / self.sample_rate * rng.uniform(4, 25))
        pitch_hz = min(rng.uniform(1200, 3600), 0.4 * self.sample_rate)
        t_s = np.arange(int(rng.uniform(0.05, 0.25) * self.sample_rate)) / self.sample_rate
        sweep = pitch_hz * (1 + rng.uniform(-1, 1) * t_s)
        chirp = np.sin(2 * np.pi * np.cumsum(sweep) / self.sample_rate) * np.hanning(len(t_s))
        chorus = np.zeros(n_samples, dtype=np.float32)
        for start in rng.integers(n_samples - len(chirp), size=n_calls):
            chorus[start : start + len(chirp)] += np.float32(rng.lognormal(sigma=0.8)) * chirp.astype(
                np.float32
            )
        return chorus

    def _rain(self, rng: np.random.Generator, n_samples: int) -> Waveform:
        """Return raindrops of a few milliseconds, hundreds per second."""
        drops = np.zeros(n_samples, dtype=np.float32)
        n_drops = int(n_samples / self.sample_rate * rng.uniform(100, 600))
        drops[rng.integers(n_samples, size=n_drops)] = rng.lognormal(sigma=0.8, size=n_drops)
        n_ring = int(0.012 * self.sample_rate)
        ring = rng.standard_normal(n_ring) * np.exp(-np.linspace(0, 6, n_ring))
        return np.asarray(signal.oaconvolve(drops, ring, mode="same"), dtype=np.float32)

    def _wind(self, rng: np.random.Generator, n_samples: int) -> Waveform:
        """Return rumble below about 400 Hz, in gusts."""
        n_coarse = int(n_samples / self.sample_rate * 800) + 2
        n_gusts = int(n_samples / self.sample_rate) + 2
        gusts = np.interp(
            np.linspace(0, n_gusts - 1, n_coarse), np.arange(n_gusts), rng.exponential(size=n_gusts)
        )
        rumble = gusts * rng.standard_normal(n_coarse)
        return np.interp(np.linspace(0, n_coarse - 1, n_samples), np.arange(n_coarse), rumble).astype(
            np.float32
        )

    def _insects(self, rng: np.random.Generator, n_samples: int) -> Waveform:
        """Return one steady buzz between 4 and 9 kHz."""
        t_s = np.arange(n_samples, dtype=np.float32) / np.float32(self.sample_rate)
        buzz_hz = min(rng.uniform(4000, 9000), 0.42 * self.sample_rate)
        flutter_hz = rng.uniform(15, 60)
        flutter = 3 * np.sin(np.float32(2 * np.pi * flutter_hz) * t_s)
        swell = 0.6 + 0.4 * np.sin(np.float32(2 * np.pi * rng.uniform(0.3, 3)) * t_s)
        buzz: Waveform = swell * np.sin(np.float32(2 * np.pi * buzz_hz) * t_s + flutter)
        return buzz


def to_level(background: Waveform, rng: np.random.Generator, conditions: Conditions) -> Waveform:
    """Scale a background in place to a level drawn for its recording, and return it."""
    level_dbfs = np.clip(
        conditions.rms_mean_dbfs + conditions.rms_sd_db * rng.standard_normal(), *RMS_RANGE_DBFS
    )
    background *= np.float32(10 ** (level_dbfs / 20) / max(_rms(background), 1e-12))
    return background


def _rms(waveform: Waveform) -> np.float32:
    return np.float32(np.sqrt(np.mean(np.square(waveform))))
