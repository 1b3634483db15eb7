"""The sections of the front end, which turns recordings into frames."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from callboard.params.base import Params
from callboard.params.bounds import MAX_MELS, Within

MAX_N_FFT = 2**16
MAX_HZ = 1_000_000
MAX_FRAMES_PER_S = 5000
"""Most frames per second: 80 times the competition's, enough for the calls of bats."""

Channel = Literal["mean"] | int | None
"""Part that is taken of a file of several channels."""


class AudioParams(Params):
    """The `audio` section."""

    sample_rate: Annotated[int, Within(100, MAX_HZ, "recorders sample at 100 Hz to 1 MHz")] = 24000
    """Sample rate at which features are computed, Hz; recordings are expected to have it."""
    on_other_rate: Literal["error", "resample"] = "error"
    """Treatment of a recording with a different sample rate."""
    channel: Annotated[Channel, Within(0, 1023, "libsndfile reads at most 1024 channels")] = None
    """Channel to take, counted from 0, or the mean of all; null accepts only recordings of one channel."""


class FeatureParams(Params):
    """The `features` section; parameters of log-mel frames have torchaudio's names."""

    kind: Literal["log_mel", "birdnet"] = "log_mel"
    """Content of a frame. birdnet: BirdNET v2.4's embedding of 3 s of sound, 1024 numbers; only
    embedding_hop_s then has an effect in this section."""
    embedding_hop_s: Annotated[
        float, Within(0.01, 3, "an embedding covers 3 s, and each costs a pass of BirdNET")
    ] = 0.5
    """Seconds from the start of one embedding to the next."""
    n_fft: Annotated[int, Within(2, MAX_N_FFT, "longer windows blur every call and take memory")] = 1024
    """STFT window, samples."""
    hop_length: Annotated[int, Within(1, MAX_N_FFT, "it is at most one window of n_fft")] = 384
    """Samples from one frame to the next."""
    n_mels: Annotated[int, Within(1, MAX_MELS, "more rows than FFT bins would be empty")] = 64
    f_min: Annotated[float, Within(0, MAX_HZ / 2, "no recording has higher frequencies")] = 50.0
    """Hz, lower edge of the mel filterbank."""
    f_max: Annotated[float, Within(0, MAX_HZ / 2, "no recording has higher frequencies", open_low=True)] = (
        11500.0
    )
    """Hz, upper edge of the mel filterbank."""
    top_db: Annotated[
        float,
        Within(1, 200, "1 dB has no contrast, and from the floor of -100 dB it is 200 to the loudest sound"),
    ] = 80.0
    """Range kept below each recording's maximum, dB; the uint8 cache is off by at most top_db / 510 dB."""

    @model_validator(mode="after")
    def _band_in_order(self) -> Self:
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min {self.f_min} must be below f_max {self.f_max}")
        if self.hop_length > self.n_fft:
            raise ValueError(
                f"hop_length {self.hop_length} must not exceed n_fft {self.n_fft}: it would skip samples"
            )
        return self


class FrontEndParams(Params):
    """The sections `audio` and `features`, which together turn a recording into frames."""

    audio: AudioParams
    features: FeatureParams

    @model_validator(mode="after")
    def _band_below_nyquist(self) -> Self:
        if self.features.f_max > self.audio.sample_rate / 2:
            raise ValueError(
                f"features.f_max {self.features.f_max} Hz is above half of "
                f"audio.sample_rate {self.audio.sample_rate} Hz"
            )
        return self

    @model_validator(mode="after")
    def _not_too_many_frames(self) -> Self:
        if self.frames_per_s > MAX_FRAMES_PER_S:
            raise ValueError(
                f"features.hop_length {self.features.hop_length} at audio.sample_rate "
                f"{self.audio.sample_rate} Hz makes {self.frames_per_s:.0f} frames per second, more than "
                f"{MAX_FRAMES_PER_S}: cropping would take hours and fill the disk; raise features.hop_length"
            )
        return self

    @property
    def frames_per_s(self) -> float:
        """Frames per second of recording."""
        if self.features.kind == "log_mel":
            return self.audio.sample_rate / self.features.hop_length
        return 1 / self.features.embedding_hop_s

    @property
    def band_hz(self) -> tuple[float, float]:
        """Lowest and highest frequency that frames depend on; embeddings depend on all."""
        if self.features.kind == "log_mel":
            return self.features.f_min, self.features.f_max
        return 0.0, self.audio.sample_rate / 2
