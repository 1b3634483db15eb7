"""Every number of params.yaml has a lower and an upper bound, which an error gives with the reason."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import pytest
from pydantic.fields import FieldInfo

from callboard.core.errors import UserError
from callboard.params.base import Params, section_of, validate
from callboard.params.bounds import Within
from callboard.params.experiment import Experiment
from callboard.params.features import FrontEndParams
from callboard.params.model import ModelParams


class Number(NamedTuple):
    """A field with a number, or several."""

    key: str
    section: type[Params]
    name: str
    field: FieldInfo

    @property
    def is_whole(self) -> bool:
        return float not in leaves(self.field.annotation)

    def bounds(self) -> Within:
        (bounds,) = [one for one in self.field.metadata if isinstance(one, Within)]
        return bounds

    def beyond(self, end: str) -> float:
        """The nearest number that is too low or too high."""
        bounds = self.bounds()
        edge, is_open = (bounds.low, bounds.open_low) if end == "low" else (bounds.high, bounds.open_high)
        if is_open:
            return edge if self.is_whole else float(edge)
        sign = -1 if end == "low" else 1
        return edge + sign if self.is_whole else math.nextafter(edge, sign * math.inf)

    def as_found(self, number: Any) -> Any:
        """A value of the field with this number in it."""
        kinds = str(self.field.annotation)
        return [number] * 2 if "list" in kinds or "tuple" in kinds else number

    def errors(self, number: Any) -> str:
        """What is said of the field itself, whatever the rest of its section says."""
        try:
            validate(self.section, {self.name: self.as_found(number)}, "params.yaml")
        except UserError as error:
            return "\n".join(line for line in str(error).splitlines() if line.startswith(f"  {self.name}"))
        return ""


def leaves(annotation: Any) -> set[Any]:
    inner = get_args(annotation)
    return set().union(*map(leaves, inner)) if inner else {annotation}


def numbers(cls: type[Params], prefix: str = "") -> Iterator[Number]:
    for name, field in cls.model_fields.items():
        if section := section_of(field):
            yield from numbers(section, f"{prefix}{name}.")
        elif {int, float} & leaves(field.annotation):
            yield Number(f"{prefix}{name}", cls, name, field)


NUMBERS = {number.key: number for number in numbers(Experiment)}


@pytest.fixture(params=NUMBERS)
def number(request: pytest.FixtureRequest) -> Number:
    return NUMBERS[request.param]


def test_the_numbers_of_all_sections_are_found() -> None:
    """Against a few of different types and depths."""
    known = {"seed", "data.demo.recording_length_s", "clip.offsets", "clip.mel_rows", "infer.smoothing"}
    assert known | {"pseudo.negative_threshold", "augment.freq_crop", "split.folds"} <= NUMBERS.keys()
    assert len(NUMBERS) > 60


def test_a_number_has_finite_bounds_with_a_reason(number: Number) -> None:
    bounds = number.bounds()
    assert -math.inf < bounds.low < bounds.high < math.inf
    assert len(bounds.why.split()) >= 3


def test_just_beyond_a_bound_is_refused_with_range_and_reason(number: Number) -> None:
    bounds = number.bounds()
    for end in ("low", "high"):
        value = number.beyond(end)
        said = number.errors(value)
        assert f"{number.name}: {value!r} must be {bounds}: {bounds.why}" in said
        assert str(bounds.low) in said
        assert str(bounds.high) in said


def test_a_bound_itself_is_accepted_unless_it_is_open(number: Number) -> None:
    bounds = number.bounds()
    for edge, is_open in ((bounds.low, bounds.open_low), (bounds.high, bounds.open_high)):
        said = number.errors(int(edge) if number.is_whole else float(edge))
        assert (f"must be {bounds}" in said) == is_open


NO_PLAIN_NUMBERS = [math.inf, -math.inf, math.nan, 1e308, True, False, "1", 10**400, -(10**400), [1, [2]]]


def test_what_is_not_a_plain_number_is_refused_in_one_short_line(number: Number) -> None:
    for value in NO_PLAIN_NUMBERS:
        said = number.errors(value)
        assert said, value
        assert all(len(line) < 400 for line in said.splitlines())


def test_a_default_is_within_its_bounds(number: Number) -> None:
    default = number.field.get_default(call_default_factory=True)
    assert number.bounds().checked(default) == default


def test_bounds_by_hand() -> None:
    bounds = Within(0, 1, "it is a share", open_low=True)
    assert bounds.checked(1) == 1
    assert bounds.checked(None) is None
    assert bounds.checked([0.5, 1]) == [0.5, 1]
    with pytest.raises(ValueError, match=r"^0 must be above 0 and at most 1: it is a share$"):
        bounds.checked([0.5, 0])
    with pytest.raises(ValueError, match=r"^2 must be at least 0 and below 2: none is left$"):
        Within(0, 2, "none is left", open_high=True).checked(2)


@pytest.mark.parametrize("value", [1e9, [64, 10**9], -20_000, math.inf])
def test_numbers_of_a_backbone_are_within_bounds(value: Any) -> None:
    with pytest.raises(
        UserError, match=r"backbone_args: channels .* must be at least -10000 and at most 10000"
    ):
        validate(ModelParams, {"backbone_args": {"channels": value}}, "params.yaml")


@pytest.mark.parametrize(("sample_rate", "hop_length"), [(24_000, 1), (24_000, 4), (384_000, 64)])
def test_more_frames_than_a_disk_holds_are_refused(sample_rate: int, hop_length: int) -> None:
    tree = {"audio": {"sample_rate": sample_rate}, "features": {"hop_length": hop_length}}
    told = rf"hop_length {hop_length} at audio.sample_rate {sample_rate} Hz makes .* more than 5000"
    with pytest.raises(UserError, match=told):
        validate(FrontEndParams, tree, "params.yaml")
    validate(FrontEndParams, {**tree, "features": {"hop_length": 128}}, "params.yaml")
