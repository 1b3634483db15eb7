"""The sections of the front end, which turns recordings into frames."""

from typing import Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params


class AudioParams(Params):
    """The `audio` section."""

    sample_rate: int = Field(24000, gt=0)
    """Sample rate at which features are computed, Hz; recordings are expected to have it."""
    on_other_rate: Literal["error", "resample"] = "error"
    """Treatment of a recording with a different sample rate."""


class FeatureParams(Params):
    """The `features` section; parameters of log-mel frames have torchaudio's names."""

    kind: Literal["log_mel", "birdnet"] = "log_mel"
    """Content of a frame. birdnet: BirdNET v2.4's embedding of 3 s of sound, 1024 numbers; only
    embedding_hop_s then has an effect in this section."""
    embedding_hop_s: float = Field(0.5, gt=0, le=3)
    """Seconds from the start of one embedding to the next."""
    n_fft: int = Field(1024, gt=1)
    """STFT window, samples."""
    hop_length: int = Field(384, gt=0)
    """Samples from one frame to the next."""
    n_mels: int = Field(64, gt=0)
    f_min: float = Field(50.0, ge=0)
    """Hz, lower edge of the mel filterbank."""
    f_max: float = Field(11500.0, gt=0)
    """Hz, upper edge of the mel filterbank."""
    top_db: float = Field(80.0, gt=0)
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

    @property
    def frames_per_s(self) -> float:
        """Frames per second of recording."""
        if self.features.kind == "log_mel":
            return self.audio.sample_rate / self.features.hop_length
        return 1 / self.features.embedding_hop_s
