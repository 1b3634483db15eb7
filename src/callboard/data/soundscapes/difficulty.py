"""Settings of the soundscapes' difficulty; the domain shift is the difference between TRAIN and TEST."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conditions:
    """Acoustic conditions of a set of recordings."""

    snr_mean_db: float
    """Mean call level over the background of its own band."""
    snr_sd_db: float
    """Spread of this level between callers; calls of one caller vary by `CALL_LEVEL_SD_DB`."""
    pitch_offset: float
    """Pitch offset of the whole population from the species' model, as a fraction: a dialect."""
    rms_mean_dbfs: float
    rms_sd_db: float
    tilt_db_per_octave: float
    """Added to the background's colour: the site and its microphone."""
    chorus_share: float
    """Share of recordings with a frog chorus of no listed species at 1–4 kHz."""
    rain_share: float
    wind_share: float
    insects_share: float
    n_species_shares: tuple[float, ...]
    """Shares of recordings with 1, 2, … calling species."""
    n_distractors_mean: float
    """Calls of no listed species per 20 s."""


TRAIN = Conditions(
    snr_mean_db=10.0,
    snr_sd_db=4.0,
    pitch_offset=0.0,
    rms_mean_dbfs=-39.0,
    rms_sd_db=4.5,
    tilt_db_per_octave=0.0,
    chorus_share=0.25,
    rain_share=0.10,
    wind_share=0.25,
    insects_share=0.25,
    n_species_shares=(0.65, 0.25, 0.07, 0.02, 0.01),
    n_distractors_mean=3.0,
)
TEST = Conditions(
    snr_mean_db=0.0,
    snr_sd_db=4.0,
    pitch_offset=0.13,
    rms_mean_dbfs=-34.0,
    rms_sd_db=4.5,
    tilt_db_per_octave=-3.0,
    chorus_share=0.7,
    rain_share=0.50,
    wind_share=0.30,
    insects_share=0.40,
    n_species_shares=(0.55, 0.28, 0.12, 0.04, 0.01),
    n_distractors_mean=8.0,
)

DENSE_SHARES: dict[Literal["train", "test"], tuple[float, ...]] = {
    "train": (0.05, 0.15, 0.25, 0.25, 0.30),
    "test": (0.20, 0.30, 0.25, 0.15, 0.10),
}
"""`n_species_shares` if `data.demo.crowding` is dense: most calls in training recordings are unlabelled."""

SNR_RANGE_DB = (0.0, 20.0)
"""Range to which every call's level is clipped: calls can be faint, but not inaudible."""
CALL_LEVEL_SD_DB = 2.5
PITCH_SD = 0.05
"""Spread of pitch between callers of a species, as a fraction; between calls of one caller a tenth of it."""
TEMPO_SD = 0.10
"""Spread of tempo between calls, as a fraction."""
PAIR_CONTRAST = 1.0
"""Difference between the two species of a similar pair: 1 as defined in `calls.PAIRS`, 0 makes them equal."""
CALLS_PER_CALLER_MEAN = 4.0
MAX_CALLS_PER_CALLER = 12
N_DISTRACTOR_VOICES = 16
DOMINANT_TEST_SHARE = 0.27
"""Share of the test set's true (recording, species) pairs that belong to its most common species."""
MIN_TEST_RECORDINGS_PER_SPECIES = 3
MATCHER_NOISE_DB = 2.0
"""Error of the template matcher that proposes boxes; a high value makes it propose faint calls too."""
BOX_JITTER = 0.2
"""Largest shift of a box relative to its call, as a fraction of the box's duration."""
