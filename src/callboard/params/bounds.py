"""Bounds of numbers in params.yaml, each with the reason for it."""

from dataclasses import dataclass
from typing import Any

from pydantic import AfterValidator, GetCoreSchemaHandler

MAX_FRAMES = 100_000
"""Largest number of frames of a clip: 27 minutes in the competition's resolution."""

MAX_MELS = 2048
"""Largest number of mel rows: more than an n_fft of 4096 has bins."""


@dataclass(frozen=True)
class Within:
    """Bounds of a number, or of each number of a list; null and names are accepted.

    Stands in `Annotated` beside the type of a field. Every number of params.yaml has bounds, far enough apart
    for any real use: beyond them a value is a typing error, has no effect, or never ends.
    """

    low: float
    high: float
    why: str
    """Reason, as it follows a colon in the error."""
    open_low: bool = False
    """Whether `low` itself is refused."""
    open_high: bool = False
    """Whether `high` itself is refused."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Return pydantic's schema of the field with this check after that of its type."""
        return AfterValidator(self.checked).__get_pydantic_core_schema__(source, handler)

    def __str__(self) -> str:
        low = f"above {self.low}" if self.open_low else f"at least {self.low}"
        high = f"below {self.high}" if self.open_high else f"at most {self.high}"
        return f"{low} and {high}"

    def checked(self, value: Any) -> Any:
        """Return a value if it is within the bounds.

        Raises:
            ValueError: it, or one of its numbers, is not; the message has the bounds and the reason.
        """
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not self._has(number):
                raise ValueError(f"{shortened(number)} must be {self}: {self.why}")
        return value

    def _has(self, number: float) -> bool:
        is_high_enough = number > self.low if self.open_low else number >= self.low
        is_low_enough = number < self.high if self.open_high else number <= self.high
        return is_high_enough and is_low_enough


def shortened(value: object, most: int = 60) -> str:
    """Return a value's representation, cut after `most` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


PROBABILITY = Within(0, 1, "it is a probability")

WEIGHT = Within(
    0, 1000, "it is a factor in a sum; 0 leaves the term out, and 1000 leaves nothing of the others"
)

THRESHOLD = Within(
    0, 1, "a probability is compared with it; 0 and 1 select all or none", open_low=True, open_high=True
)

FRAMES = Within(0, MAX_FRAMES, "no clip has more frames")

MEL_ROWS = Within(0, MAX_MELS, "no image has more mel rows")

EPOCHS = Within(0, 10_000, "no training has more epochs")

RELATIVE_WEIGHT = Within(0, 1e6, "weights are relative to each other; 0 leaves a part out")

SOFTENING = Within(0.01, 100, "below, all probabilities become 0 or 1; above, all become alike")
