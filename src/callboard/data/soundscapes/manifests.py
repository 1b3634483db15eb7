"""Real calls and real backgrounds, listed in CSV manifests next to the audio files."""

from collections import Counter
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from scipy import signal

from callboard.core.errors import UserError
from callboard.core.files import path_inside
from callboard.core.reading import reading
from callboard.data.annotations import read_table
from callboard.data.audio import PLAUSIBLE_HZ, resample
from callboard.data.soundscapes import difficulty
from callboard.data.soundscapes.backgrounds import to_level
from callboard.data.soundscapes.calls import Call, Subset, Template, Waveform
from callboard.data.soundscapes.difficulty import Conditions

Item = TypeVar("Item")

CALL_COLUMNS = ["file", "label", "call_on_s", "call_off_s", "f_min_hz", "f_max_hz"]
CALL_NUMBERS = CALL_COLUMNS[2:]
BACKGROUND_COLUMNS = ["file", "source_sr"]
TRAIN_SHARE = 0.6
"""Share of a label's files, and of the backgrounds, that training recordings are made of."""
FADE_S = 0.01
BOX_MARGIN = 1.15
"""Duration of a box relative to the median call of its label."""
CROSS_FADE_S = 0.5
MAX_DIGITS = 9
"""Digits of a plausible sample rate in Hz, at most."""
SPEED_STEPS = 100
"""Speed changes are rounded to multiples of 1 / SPEED_STEPS, as resampling needs rational factors."""
FLOOR_DB = -50.0
"""White noise added to a real background, relative to its level; otherwise its cut-off would be a cue."""


@dataclass(frozen=True)
class RealCall:
    """One call cut from its file, scaled to root mean square 1, at the world's sample rate."""

    waveform: Waveform
    f_min_hz: float
    f_max_hz: float


@dataclass(frozen=True)
class RealVoice:
    """A label of the manifest. Train and test draw from different files or, of an only file, different calls.

    A label with a single call has it in both.
    """

    templates: tuple[Template, ...]
    calls: dict[Subset, list[RealCall]]

    def call(self, rng: np.random.Generator, pitch: float, subset: Subset) -> Call:
        """Return one of the calls played faster or slower: pitch and tempo change together."""
        calls = self.calls[subset]
        original = calls[int(rng.integers(len(calls)))]
        speed = pitch * (1 + 0.3 * difficulty.TEMPO_SD * rng.standard_normal())
        steps = int(np.clip(round(SPEED_STEPS * speed), SPEED_STEPS // 2, 2 * SPEED_STEPS))
        divisor = gcd(steps, SPEED_STEPS)
        waveform = signal.resample_poly(original.waveform, SPEED_STEPS // divisor, steps // divisor)
        factor = steps / SPEED_STEPS
        return Call(
            _unit(waveform.astype(np.float32)), original.f_min_hz * factor, original.f_max_hz * factor
        )


@dataclass(frozen=True)
class RealBackdrop:
    """Real backgrounds, all limited to their lowest bandwidth so that no file has a telltale cut-off.

    Train and test draw from different files unless there is only one.
    """

    backgrounds: dict[Subset, list[Waveform]]
    conditions: dict[Subset, Conditions]
    sample_rate: int

    def render(self, rng: np.random.Generator, n_samples: int, subset: Subset) -> Waveform:
        """Return a stretch of one background from a random position, looped if it is too short."""
        choice = self.backgrounds[subset]
        source = choice[int(rng.integers(len(choice)))]
        loop = _loop(source, round(CROSS_FADE_S * self.sample_rate))
        start = int(rng.integers(len(loop)))
        background = np.tile(loop, 1 + (start + n_samples) // len(loop))[start : start + n_samples]
        floor = rng.standard_normal(n_samples, dtype=np.float32) * np.float32(10 ** (FLOOR_DB / 20))
        return to_level(_unit(background) + floor, rng, self.conditions[subset])


def read_voices(
    manifest: Path, n_species: int, sample_rate: int, longest_s: float, rng: np.random.Generator
) -> tuple[list[str], list[RealVoice], list[RealVoice]]:
    """Return the `n_species` labels with most calls, alphabetically, their voices, and the other voices.

    Args:
        manifest: CSV with CALL_COLUMNS; `file` is relative to its folder or to the folder above.
        n_species: Number of labels that become species; the others become distractors.
        sample_rate: Sample rate of the soundscapes, Hz.
        longest_s: Length to which longer calls are cut.
        rng: Deals the files of each label, or the calls of its only file, to train and test.

    Raises:
        UserError: A column, file or number is missing or wrong, or there are fewer labels than `n_species`.
    """
    table = read_table(manifest, CALL_COLUMNS)
    labels = Counter(table["label"])
    if len(labels) < n_species:
        raise UserError(
            f"{manifest.name}: {len(labels)} labels, but data.demo.n_species is {n_species}; "
            f"lower it to {len(labels)}"
        )
    calls: dict[str, dict[str, list[RealCall]]] = {label: {} for label in sorted(labels)}
    for row, cells in zip(table.index, table.to_dict("records"), strict=True):
        values = _numbers(manifest, row, [cells[name] for name in CALL_NUMBERS])
        call = _read_call(manifest, cells["file"], values, sample_rate, longest_s)
        calls[cells["label"]].setdefault(cells["file"], []).append(call)
    listed = sorted(sorted(labels, key=lambda label: (-labels[label], label))[:n_species])
    voices = {label: _voice(calls[label], sample_rate, rng) for label in calls}
    unlisted = [voice for label, voice in voices.items() if label not in listed]
    return listed, [voices[label] for label in listed], unlisted


def read_backdrop(
    manifest: Path, sample_rate: int, conditions: dict[Subset, Conditions], rng: np.random.Generator
) -> RealBackdrop:
    """Read all backgrounds of a manifest, resampled and low-passed to the bandwidth of the narrowest.

    Column `source_sr` is the sample rate of the original, before the file was resampled.

    Raises:
        UserError: A column or file is missing, a rate is not a positive integer, or a file cannot be read.
    """
    table = read_table(manifest, BACKGROUND_COLUMNS)
    if table.empty:
        raise UserError(f"{manifest.name}: no backgrounds")
    for row, text in table["source_sr"].items():
        if not text.isdecimal() or len(text) > MAX_DIGITS or int(text) == 0:
            raise UserError(f"{manifest.name} row {row}: source_sr {text!r} is not a sample rate in Hz")
    sounds = [_read_mono(manifest, file) for file in table["file"]]
    lowest_rate = min(*map(int, table["source_sr"]), *(rate for _, rate in sounds), sample_rate)
    resampled = [resample(sound, rate, sample_rate) for sound, rate in sounds]
    backgrounds = [_band_limited(sound, lowest_rate, sample_rate) for sound in resampled]
    return RealBackdrop(_deal(backgrounds, rng), conditions, sample_rate)


def _numbers(manifest: Path, row: int, cells: list[str]) -> dict[str, float]:
    try:
        values = dict(zip(CALL_NUMBERS, map(float, cells), strict=True))
    except ValueError:
        expected, found = ", ".join(CALL_NUMBERS), ", ".join(map(repr, cells))
        raise UserError(f"{manifest.name} row {row}: {expected} must be numbers, found {found}") from None
    if not (0 <= values["call_on_s"] < values["call_off_s"] and 0 <= values["f_min_hz"] < values["f_max_hz"]):
        expected = "0 <= call_on_s < call_off_s and 0 <= f_min_hz < f_max_hz"
        raise UserError(f"{manifest.name} row {row}: must have {expected}")
    return values


def _read_call(
    manifest: Path, file: str, values: dict[str, float], sample_rate: int, longest_s: float
) -> RealCall:
    sound, rate = _read_mono(manifest, file)
    on_s = min(values["call_on_s"], len(sound) / rate)
    off_s = min(values["call_off_s"], on_s + longest_s)
    cut = sound[round(on_s * rate) : round(off_s * rate)]
    f_max = min(values["f_max_hz"], 0.49 * sample_rate)
    if len(cut) < rate * FADE_S * 2 or not np.any(cut) or values["f_min_hz"] >= f_max:
        raise UserError(
            f"{manifest.name}: {file}: no sound between call_on_s {values['call_on_s']:g} and "
            f"call_off_s {off_s:g} below {f_max:g} Hz"
        )
    return RealCall(_faded(_unit(resample(cut, rate, sample_rate)), sample_rate), values["f_min_hz"], f_max)


def _voice(calls: dict[str, list[RealCall]], sample_rate: int, rng: np.random.Generator) -> RealVoice:
    """Build the voice of a label from its calls by file."""
    groups = list(calls.values())
    if len(groups) == 1:
        groups = [[call] for call in groups[0]]
    dealt = {
        subset: [call for group in chosen for call in group] for subset, chosen in _deal(groups, rng).items()
    }
    f_min = float(np.median([call.f_min_hz for call in dealt["train"]]))
    f_max = float(np.median([call.f_max_hz for call in dealt["train"]]))
    duration_s = BOX_MARGIN * float(np.median([len(call.waveform) for call in dealt["train"]])) / sample_rate
    return RealVoice((Template(round(duration_s, 4), round(f_min, 2), round(f_max, 2)),), dealt)


def _deal(items: list[Item], rng: np.random.Generator) -> dict[Subset, list[Item]]:
    """Deal items to train and test: disjoint, unless there is only one."""
    if len(items) == 1:
        return {"train": items, "test": items}
    order = [items[int(index)] for index in rng.permutation(len(items))]
    n_train = min(max(1, round(TRAIN_SHARE * len(items))), len(items) - 1)
    return {"train": order[:n_train], "test": order[n_train:]}


def _read_mono(manifest: Path, file: str) -> tuple[Waveform, int]:
    for folder in (manifest.parent, manifest.parent.parent):
        path = path_inside(folder, file, manifest.name)
        if path.is_file():
            break
    else:
        raise UserError(f"{manifest.name}: no file {file} in {manifest.parent} or {manifest.parent.parent}")
    with reading(f"{manifest.name}: {file}", "a recording"):
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate not in PLAUSIBLE_HZ:
        raise UserError(f"{manifest.name}: {file} states an implausible sample rate in its header, {rate} Hz")
    if not len(sound) or not np.isfinite(sound).all():
        raise UserError(f"{manifest.name}: {file} is empty or contains NaN or infinite samples")
    return sound.mean(axis=1), int(rate)


def _band_limited(sound: Waveform, lowest_rate: int, sample_rate: int) -> Waveform:
    edge_hz = 0.45 * lowest_rate
    if edge_hz >= 0.45 * sample_rate:
        return sound
    sections = signal.butter(10, edge_hz, fs=sample_rate, output="sos")
    return np.asarray(signal.sosfiltfilt(sections, sound), dtype=np.float32)


def _loop(sound: Waveform, n_fade: int) -> Waveform:
    """Return a sound that can be repeated: its end is cross-faded into its beginning."""
    n_fade = min(n_fade, len(sound) // 3)
    rise = np.sqrt(np.linspace(0, 1, n_fade, dtype=np.float32))
    loop = sound[: len(sound) - n_fade].copy()
    loop[:n_fade] = loop[:n_fade] * rise + sound[len(sound) - n_fade :] * rise[::-1]
    return loop


def _faded(sound: Waveform, sample_rate: int) -> Waveform:
    n_fade = min(round(FADE_S * sample_rate), len(sound) // 2)
    rise = np.linspace(0, 1, n_fade, dtype=np.float32)
    faded = sound.copy()
    faded[:n_fade] *= rise
    faded[len(faded) - n_fade :] *= rise[::-1]
    return faded


def _unit(sound: Waveform) -> Waveform:
    return sound / np.float32(max(float(np.sqrt(np.mean(np.square(sound)))), 1e-9))
