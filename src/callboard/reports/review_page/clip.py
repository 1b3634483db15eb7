"""The picture and the sound of an item of a review."""

import io
from dataclasses import dataclass

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from callboard.analysis.review.verdict_files import ReviewItem
from callboard.data.audio import resample
from callboard.data.sound_spans import SoundSpan, read_span

MARGIN_S = 2.0
"""Sound before and after the box, seconds."""

PLAYED_HZ = (8000, 48000)
"""Lowest and highest rate of the sound that is sent: browsers refuse others, and nobody hears more."""

LOUDEST, MAX_GAIN = 0.9, 30.0
"""Peak of the played sound, and the largest factor by which a faint one is amplified, 30 dB."""

N_COLUMNS, LEAST_ROWS = 1200, 320
"""Pixels of the picture, which the page stretches."""

PERIODS = 256
"""Length of the analysis window in periods of the highest frequency shown: 21 ms up to 12 kHz."""

LONGEST_ANALYSIS_S = 0.043
"""Longest analysis window, seconds; a longer one blurs trills."""

FLOOR_PERCENTILE, TOP_PERCENTILE, LEAST_RANGE_DB = 50.0, 99.9, 35.0
"""Colours run from the first percentile of the picture to the second, over no less than this range, so that
noise alone stays dark."""

AUDIBLE_HZ = 16000.0
"""Highest frequency of a picture without any band, unless the recording is of ultrasound."""

ULTRASOUND_RATE = 96000
"""Sample rate, Hz, above which a recording was made for ultrasound."""

LEAST_TOP_HZ = 4000.0
"""Least highest frequency of a picture that shows a box: a low call needs the others for comparison."""


@dataclass(frozen=True)
class RenderedClip:
    """Picture and sound of an item; times in seconds from the beginning of the recording."""

    start_s: float
    stop_s: float
    top_hz: float
    """Highest frequency of the picture; the lowest is 0."""
    picture: bytes
    """PNG, without axes, high frequencies above."""
    sound: bytes
    """WAV, 16 bits."""


def render_clip(item: ReviewItem) -> RenderedClip:
    """Read an item's box and MARGIN_S of sound around it.

    Raises:
        BadRecording: It cannot be read.
    """
    span = read_span(item.path, item.start_s - MARGIN_S, item.stop_s + MARGIN_S)
    top_hz = highest_shown(item, span.sample_rate)
    return RenderedClip(span.start_s, span.stop_s, top_hz, spectrogram_png(span, top_hz), wav_of(span))


def highest_shown(item: ReviewItem, sample_rate: int) -> float:
    """Return the highest frequency of an item's picture: that of the box or networks and half of it more."""
    nyquist_hz = sample_rate / 2
    box_hz = item.band_hz[1] if item.band_hz else item.top_hz
    if box_hz is not None:
        return min(max(1.5 * box_hz, LEAST_TOP_HZ), nyquist_hz)
    return nyquist_hz if sample_rate > ULTRASOUND_RATE else min(AUDIBLE_HZ, nyquist_hz)


def spectrogram_png(span: SoundSpan, top_hz: float) -> bytes:
    """Draw the magnitude in dB up to `top_hz` as a PNG."""
    from matplotlib.image import imsave

    level = levels_db(span, top_hz)
    low, high = np.percentile(level, [FLOOR_PERCENTILE, TOP_PERCENTILE])
    buffer = io.BytesIO()
    high = max(high, low + LEAST_RANGE_DB)
    imsave(buffer, level, vmin=low, vmax=high, cmap="magma", origin="lower", format="png")
    return buffer.getvalue()


def levels_db(span: SoundSpan, top_hz: float) -> NDArray[np.float32]:
    """Return the magnitude in dB, (frequencies, frames), from 0 to `top_hz`, in frames centred on the sound.

    The transform is longer than its window, so that there are at least LEAST_ROWS frequencies: these are
    interpolated, not resolved.
    """
    rate, n_samples = span.sample_rate, len(span.waveform)
    n_window = max(2 * round(rate * min(PERIODS / top_hz, LONGEST_ANALYSIS_S) / 2), 16)
    least_fft = max(n_window, LEAST_ROWS * rate / top_hz)
    n_fft = 2 ** int(np.ceil(np.log2(least_fft)))
    n_frames = min(N_COLUMNS, n_samples)
    centre = ((np.arange(n_frames) + 0.5) * n_samples / n_frames).astype(int)
    padded = np.pad(span.waveform, n_window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_window)[centre]
    spectrum = np.fft.rfft(frames * np.hanning(n_window).astype(np.float32), n_fft)
    n_rows = min(int(top_hz / rate * n_fft) + 1, spectrum.shape[1])
    magnitude = np.abs(spectrum[:, :n_rows]).T
    level: NDArray[np.float32] = 20 * np.log10(np.maximum(magnitude, 1e-9)).astype(np.float32)
    return level


def wav_of(span: SoundSpan) -> bytes:
    """Encode the sound for a browser, amplified to LOUDEST by at most MAX_GAIN."""
    lowest, highest = PLAYED_HZ
    rate = min(max(span.sample_rate, lowest), highest)
    waveform = span.waveform if rate == span.sample_rate else resample(span.waveform, span.sample_rate, rate)
    peak = float(np.abs(waveform).max())
    gain = min(LOUDEST / peak, MAX_GAIN) if peak else 1.0
    buffer = io.BytesIO()
    sf.write(buffer, np.clip(waveform * gain, -1, 1), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
