"""The front end: recordings to frames."""

from typing import Literal, Self

from pydantic import Field, model_validator

from callboard.params.base import Params


class AudioParams(Params):
    """The `audio` section."""

    sample_rate: int = Field(24000, gt=0)
    """Hz at which features are computed; recordings are expected at this rate."""
    on_other_rate: Literal["error", "resample"] = "error"
    """What to do with a recording at another rate."""


class FeatureParams(Params):
    """The `features` section; what describes log-mel frames is in torchaudio's terms."""

    kind: Literal["log_mel", "birdnet"] = "log_mel"
    """What a frame is. birdnet: an embedding of 3 s of sound by BirdNET v2.4, 1024 numbers; of this section
    only embedding_hop_s then has an effect."""
    embedding_hop_s: float = Field(0.5, gt=0, le=3)
    """Seconds from embedding to embedding."""
    n_fft: int = Field(1024, gt=1)
    """STFT window, samples."""
    hop_length: int = Field(384, gt=0)
    """Samples from frame to frame."""
    n_mels: int = Field(64, gt=0)
    f_min: float = Field(50.0, ge=0)
    """Hz, lower edge of the mel filterbank."""
    f_max: float = Field(11500.0, gt=0)
    """Hz, upper edge of the mel filterbank."""
    top_db: float = Field(80.0, gt=0)
    """Range kept below each recording's maximum; the uint8 cache is off by top_db / 510 dB at most."""

    @model_validator(mode="after")
    def _band_in_order(self) -> Self:
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min {self.f_min} must be below f_max {self.f_max}")
        if self.hop_length > self.n_fft:
            raise ValueError(
                f"hop_length {self.hop_length} must not exceed n_fft {self.n_fft}: samples unseen"
            )
        return self


class FrontEndParams(Params):
    """What turns a recording into frames; the two sections belong together."""

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
