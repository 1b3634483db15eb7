"""The log-mel front end: conversion of waveforms to log-mel frames, and of these to uint8.

Equal to torchaudio's `MelSpectrogram(power=2, center=True, pad_mode="reflect", norm="slaney",
mel_scale="slaney")` and, except for the frames that touch the padding (librosa pads with zeros), to librosa's
default `melspectrogram`; followed by `power_to_db(ref=1, amin=1e-10, top_db=…)`.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.params.features import FeatureParams, FrontEndParams

BLOCK_FRAMES = 128
"""STFT frames per block, so that spectrum and power of a block stay in the cache of one core."""

GROUP_MELS = 16
"""Mel rows per matrix product: neighbours share a narrow band of FFT bins, so that most zeros are skipped."""

MIN_POWER = 1e-10
"""Lower limit of the power before the logarithm, as in librosa and torchaudio."""

HZ_PER_LINEAR_MEL = 200 / 3
FIRST_LOG_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27
"""Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, 27 steps per factor 6.4 above."""


class MelGroup(NamedTuple):
    """Neighbouring mel rows and the FFT bins that they cover."""

    mels: slice
    bins: slice
    weights: NDArray[np.float32]
    """(bins, mels) filterbank weights of this group."""


def log_mel(waveform: NDArray[np.float32], front_end: FrontEndParams) -> NDArray[np.float32]:
    """Return (n_samples // hop_length + 1, n_mels) dB, clipped at top_db below the input's maximum.

    Because the clipping depends on this maximum, a clip's log-mel differs from its part of the recording's.

    Args:
        waveform: (n_samples,) at `front_end.audio.sample_rate`, longer than half a window.
        front_end: The `audio` and `features` sections.

    Raises:
        UserError: A mel row covers no FFT bin.
        ValueError: The waveform is too short to be padded by reflection.

    Example:
        >>> front_end = FrontEndParams.model_validate({"audio": {"sample_rate": 24000}})
        >>> second = np.sin(2 * np.pi * 3000 / 24000 * np.arange(24000)).astype(np.float32)
        >>> log_mel(second, front_end).shape
        (63, 64)
    """
    decibels = np.concatenate(list(decibel_blocks([waveform], len(waveform), front_end)))
    floor = decibels.max() - np.float32(front_end.features.top_db)
    np.maximum(decibels, floor, out=decibels)
    return decibels


def decibel_blocks(
    pieces: Iterable[NDArray[np.float32]], n_samples: int, front_end: FrontEndParams
) -> Iterator[NDArray[np.float32]]:
    """Yield the log-mel of a recording, up to BLOCK_FRAMES frames at a time, not clipped at top_db.

    Args:
        pieces: Together (n_samples,); how the recording is cut into pieces makes no difference.
        n_samples: Length of the recording, longer than half a window.
        front_end: The `audio` and `features` sections.

    Raises:
        UserError: A mel row covers no FFT bin.
        ValueError: The recording is too short to be padded by reflection.
    """
    for block in power_blocks(pieces, n_samples, front_end.audio.sample_rate, front_end.features):
        np.maximum(block, MIN_POWER, out=block)
        np.log10(block, out=block)
        block *= 10
        yield block


def power_blocks(
    pieces: Iterable[NDArray[np.float32]], n_samples: int, sample_rate: int, features: FeatureParams
) -> Iterator[NDArray[np.float32]]:
    """Yield (up to BLOCK_FRAMES, n_mels): Hann-windowed, centred STFT, squared, times the mel filterbank."""
    groups = mel_groups(sample_rate, features)
    n_bins = groups[-1].bins.stop
    window = _hann(features.n_fft)
    windowed = np.empty((BLOCK_FRAMES, features.n_fft), np.float32)
    power, squared = np.empty((2, BLOCK_FRAMES, n_bins), np.float32)
    for frames in _frame_blocks(pieces, n_samples, features.n_fft, features.hop_length):
        n = len(frames)
        np.multiply(frames, window, out=windowed[:n])
        spectrum = scipy.fft.rfft(windowed[:n], axis=1)[:, :n_bins]
        np.square(spectrum.real, out=power[:n])
        np.square(spectrum.imag, out=squared[:n])
        power[:n] += squared[:n]
        mel = np.empty((n, features.n_mels), np.float32)
        for group in groups:
            mel[:, group.mels] = power[:n, group.bins] @ group.weights
        del frames  # before the next piece is read, since this is a view of the one before
        yield mel


def quantise(decibels: NDArray[np.float32], db_min: float, db_max: float) -> NDArray[np.uint8]:
    """Scale db_min to 0 and db_max to 255, rounded; lower levels become 0, and all do if both are equal.

    As the range is at most top_db, errors are at most top_db / 510 dB.
    """
    scale = 255 / (db_max - db_min) if db_max > db_min else 0.0
    levels = np.maximum(decibels, np.float32(db_min))
    levels -= np.float32(db_min)
    levels *= np.float32(scale)
    levels += np.float32(0.5)
    return np.minimum(levels, 255, out=levels).astype(np.uint8)


@cache
def mel_groups(sample_rate: int, features: FeatureParams) -> tuple[MelGroup, ...]:
    """Return the filterbank in groups of GROUP_MELS rows.

    Raises:
        UserError: A mel row covers no FFT bin, so it would be empty in every recording.
    """
    filterbank = mel_filterbank(sample_rate, features)
    groups = []
    for first in range(0, features.n_mels, GROUP_MELS):
        mels = slice(first, min(first + GROUP_MELS, features.n_mels))
        caught = np.flatnonzero(filterbank[:, mels].any(axis=1))
        bins = slice(int(caught[0]), int(caught[-1]) + 1)
        groups.append(MelGroup(mels, bins, np.ascontiguousarray(filterbank[bins, mels])))
    return tuple(groups)


def mel_filterbank(sample_rate: int, features: FeatureParams) -> NDArray[np.float32]:
    """Return (n_fft // 2 + 1, n_mels) triangles on Slaney's scale, each of the same area.

    Same as torchaudio's `melscale_fbanks`, but without importing torch, which would take a third as long as
    the demo's whole crop. The corners, which torchaudio does not return, are needed anyway.

    Raises:
        UserError: A mel row covers no FFT bin.
    """
    corners = _mel_corners(features)
    bins = scipy.fft.rfftfreq(features.n_fft, 1 / sample_rate)[:, None]
    rising = (bins - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - bins) / np.diff(corners)[1:]
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (corners[2:] - corners[:-2])
    if (empty := np.flatnonzero(~triangles.any(axis=0))).size:
        low, high = corners[empty[0]], corners[empty[0] + 2]
        raise UserError(
            f"features: {empty.size} of n_mels {features.n_mels} rows from f_min {features.f_min:g} to f_max "
            f"{features.f_max:g} Hz would always be empty, first row {empty[0]}: no FFT bin of n_fft "
            f"{features.n_fft} at {sample_rate} Hz is in {low:.1f} … {high:.1f} Hz; "
            "lower n_mels or raise n_fft"
        )
    return triangles.astype(np.float32)


def mel_centres(features: FeatureParams) -> NDArray[np.float64]:
    """Return (n_mels,) Hz, ascending: the frequency at the tip of each mel row's triangle."""
    return _mel_corners(features)[1:-1]


def _mel_corners(features: FeatureParams) -> NDArray[np.float64]:
    """Return (n_mels + 2,) Hz; row k's triangle starts at corner k, peaks at k + 1 and ends at k + 2."""
    lowest, highest = _hz_to_mel(np.array([features.f_min, features.f_max]))
    return _mel_to_hz(np.linspace(lowest, highest, features.n_mels + 2))


def _frame_blocks(
    pieces: Iterable[NDArray[np.float32]], n_samples: int, n_fft: int, hop_length: int
) -> Iterator[NDArray[np.float32]]:
    """Yield views (up to BLOCK_FRAMES, n_fft) of a recording that is reflected at both ends.

    Blocks begin at multiples of BLOCK_FRAMES in every recording, since the last bits of products of matrices
    depend on the number of rows.
    """
    n_pad = n_fft // 2
    if n_samples <= n_pad:
        raise ValueError(f"{n_samples} samples cannot be reflected by n_fft / 2 = {n_pad}")
    held, next_frame, n_seen, is_begun = np.empty(0, np.float32), 0, 0, False
    for piece in pieces:
        n_seen += len(piece)
        held = np.concatenate([held, piece]) if len(held) else piece
        is_last = n_seen == n_samples
        if len(held) <= n_pad and not is_last:
            continue
        if is_last or not is_begun:
            held = np.pad(held, (0 if is_begun else n_pad, n_pad if is_last else 0), mode="reflect")
            is_begun = True
        n_frames = max((len(held) - next_frame - n_fft) // hop_length + 1, 0)
        n_ready = n_frames if is_last else n_frames - n_frames % BLOCK_FRAMES
        if n_ready:
            yield from _blocks(held[next_frame:], n_ready, n_fft, hop_length)
        next_frame += n_ready * hop_length
        done = min(next_frame, max(len(held) - n_pad - 1, 0))  # the end can still have to be reflected
        held, next_frame = held[done:].copy(), next_frame - done


def _blocks(
    samples: NDArray[np.float32], n_frames: int, n_fft: int, hop_length: int
) -> Iterator[NDArray[np.float32]]:
    frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop_length]
    for start in range(0, n_frames, BLOCK_FRAMES):
        yield frames[start : min(start + BLOCK_FRAMES, n_frames)]


@cache
def _hann(n_fft: int) -> NDArray[np.float32]:
    """Return the periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithmic = FIRST_LOG_HZ / HZ_PER_LINEAR_MEL + np.log(np.maximum(hz, 1) / FIRST_LOG_HZ) / LOG_STEP
    return np.where(hz < FIRST_LOG_HZ, hz / HZ_PER_LINEAR_MEL, logarithmic)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    first_log_mel = FIRST_LOG_HZ / HZ_PER_LINEAR_MEL
    logarithmic = FIRST_LOG_HZ * np.exp(LOG_STEP * (mel - first_log_mel))
    return np.where(mel < first_log_mel, mel * HZ_PER_LINEAR_MEL, logarithmic)
