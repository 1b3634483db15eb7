"""Synthetic species: parametrised call models in similar pairs that band energy alone cannot separate."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from callboard.core.errors import UserError
from callboard.data.soundscapes import difficulty

Subset = Literal["train", "test"]
Waveform = NDArray[np.float32]

TOP_HZ = 11_000.0
"""Highest fundamental of any model at 24 kHz; lower sample rates scale all pitches down alike."""
REFERENCE_RATE = 24_000
TOP_SHARE = 0.48
"""Upper limit of every caller's fundamental, variation included, as a share of the sample rate."""
CYCLES = ((1.0, 1.0), (1.25, 1.5), (0.78, 0.7), (1.12, 0.6), (0.88, 1.7))
"""(pitch, tempo) factors of each dozen of species."""
EDGE_SHARE = 0.25
"""Share of a note that its rise takes, and its fall."""


@dataclass(frozen=True)
class Template:
    """Size of the boxes that a species' template detector proposes."""

    duration_s: float
    f_min_hz: float
    f_max_hz: float


@dataclass(frozen=True)
class Call:
    """One call, scaled to root mean square 1."""

    waveform: Waveform
    f_min_hz: float
    f_max_hz: float


class Voice(Protocol):
    """A caller: a species, or a source of sounds that is not listed."""

    @property
    def templates(self) -> tuple[Template, ...]:
        """One or two box sizes, the main one first."""
        ...

    def call(self, rng: np.random.Generator, pitch: float, subset: Subset) -> Call:
        """Return one call by a caller whose pitch is `pitch` times that of its species."""
        ...


@dataclass(frozen=True)
class CallModel:
    """A sequence of notes, each a sweep with harmonics, frequency modulation and amplitude modulation."""

    start_hz: float
    end_hz: float
    note_s: float
    gap_s: float = 0.0
    n_notes: int = 1
    second_note: float = 1.0
    """Pitch of every second note, relative to the first."""
    last_gap: float = 1.0
    """Gap before the last note, relative to the first gap; below 1 the call speeds up."""
    fm_hz: float = 0.0
    fm_depth: float = 0.0
    am_hz: float = 0.0
    am_depth: float = 0.0
    harmonics_db: tuple[float, ...] = (0.0,)
    """Level of each harmonic, fundamental first."""

    @property
    def band_hz(self) -> tuple[float, float]:
        """Lowest and highest frequency of the modelled call."""
        pitches = [hz * note for hz in (self.start_hz, self.end_hz) for note in (1.0, self.second_note)]
        return min(pitches) * (1 - self.fm_depth), max(pitches) * (1 + self.fm_depth) * len(self.harmonics_db)

    @property
    def top_hz(self) -> float:
        """Highest frequency of the fundamental."""
        return max(self.start_hz, self.end_hz) * max(1.0, self.second_note) * (1 + self.fm_depth)

    @property
    def duration_s(self) -> float:
        """Duration of the modelled call."""
        return self.n_notes * self.note_s + float(self._gaps().sum())

    def scaled(self, pitch: float, tempo: float) -> "CallModel":
        """Return the call `pitch` times higher and `tempo` times faster."""
        return replace(
            self,
            start_hz=self.start_hz * pitch,
            end_hz=self.end_hz * pitch,
            note_s=self.note_s / tempo,
            gap_s=self.gap_s / tempo,
            fm_hz=self.fm_hz * tempo,
            am_hz=self.am_hz * tempo,
        )

    def towards(self, other: "CallModel", share: float) -> "CallModel":
        """Move `share` of the way to `other` in pitch, tempo and modulation rate; the note count stays."""
        fields = ("start_hz", "end_hz", "note_s", "gap_s", "second_note", "last_gap", "fm_hz", "am_hz")
        return replace(
            self, **{f: (1 - share) * getattr(self, f) + share * getattr(other, f) for f in fields}
        )

    def render(self, sample_rate: int) -> Waveform:
        """Return the modelled call, (samples,), with root mean square 1."""
        waveform = np.zeros(round(self.duration_s * sample_rate) + 1, dtype=np.float32)
        notes = [self._note(sample_rate, 1.0)]
        notes.append(self._note(sample_rate, self.second_note) if self.second_note != 1.0 else notes[0])
        onsets_s = np.arange(self.n_notes) * self.note_s + np.concatenate([[0.0], np.cumsum(self._gaps())])
        for number, start in enumerate(np.rint(onsets_s * sample_rate).astype(int)):
            note = notes[number % 2]
            waveform[start : start + len(note)] += note[: len(waveform) - start]
        return waveform / np.float32(np.sqrt(np.mean(np.square(waveform))))

    def _gaps(self) -> NDArray[np.float64]:
        steps = np.arange(self.n_notes - 1) / max(self.n_notes - 2, 1)
        return self.gap_s * self.last_gap**steps

    def _note(self, sample_rate: int, pitch: float) -> Waveform:
        n_samples = round(self.note_s * sample_rate)
        turns_per_hz = np.arange(n_samples, dtype=np.float32) * np.float32(2 * np.pi / sample_rate)
        hz = np.linspace(pitch * self.start_hz, pitch * self.end_hz, n_samples, dtype=np.float32)
        if self.fm_depth:
            hz *= 1 + np.float32(self.fm_depth) * np.sin(np.float32(self.fm_hz) * turns_per_hz)
        phase = np.cumsum(hz, dtype=np.float64) * (2 * np.pi / sample_rate)
        phase = np.mod(phase, 2 * np.pi).astype(np.float32)
        note = np.zeros(n_samples, dtype=np.float32)
        for harmonic, level_db in enumerate(self.harmonics_db, start=1):
            if harmonic * hz.max(initial=0.0) < sample_rate / 2:
                note += np.float32(10 ** (level_db / 20)) * np.sin(np.float32(harmonic) * phase)
        if self.am_depth:
            note *= 1 - np.float32(self.am_depth) * (
                0.5 + 0.5 * np.cos(np.float32(self.am_hz) * turns_per_hz)
            )
        return note * _fade(n_samples)


def _fade(n_samples: int) -> Waveform:
    """Return the envelope of a note, (n_samples,)."""
    n_edge = max(int(EDGE_SHARE * n_samples), 1)
    rise = np.sin(np.linspace(0, np.pi / 2, n_edge, dtype=np.float32)) ** 2
    fade = np.ones(n_samples, dtype=np.float32)
    fade[:n_edge] *= rise
    fade[n_samples - n_edge :] *= rise[::-1]
    return fade


TRILL = CallModel(start_hz=2700, end_hz=1500, note_s=0.08, gap_s=0.08, n_notes=9)
WARBLE = CallModel(start_hz=2300, end_hz=2300, note_s=1.6, fm_hz=3.5, fm_depth=0.12)
PULSES = CallModel(
    start_hz=900, end_hz=900, note_s=2.8, am_hz=6.0, am_depth=1.0, harmonics_db=(-6, 0, -3, -9)
)
COQUI = CallModel(start_hz=1250, end_hz=1250, note_s=0.2, gap_s=0.08, n_notes=2, second_note=1.65)
STACK = CallModel(start_hz=560, end_hz=820, note_s=0.4, harmonics_db=(-3, 0, -2, -5, -8))
CHIRPS = CallModel(start_hz=7800, end_hz=5600, note_s=0.06, gap_s=0.07, n_notes=18)

PAIRS: tuple[tuple[CallModel, CallModel], ...] = (
    (TRILL, replace(TRILL, start_hz=1650, end_hz=2950)),
    (WARBLE, replace(WARBLE, start_hz=2550, end_hz=2550, fm_hz=9.0)),
    (PULSES, replace(PULSES, start_hz=1000, end_hz=1000, am_hz=14.0)),
    (COQUI, replace(COQUI, start_hz=2400, end_hz=2400, second_note=1 / 1.65, n_notes=3)),
    (STACK, replace(STACK, start_hz=1050, end_hz=720)),
    (CHIRPS, replace(CHIRPS, start_hz=8600, end_hz=6200, gap_s=0.22, last_gap=0.2, n_notes=14)),
)
"""Pairs of species with similar bands and lengths that differ in modulation: rate, direction or order."""


@dataclass(frozen=True)
class SyntheticVoice:
    """A species that calls according to its model, with the variation set in `difficulty`."""

    model: CallModel
    templates: tuple[Template, ...]
    sample_rate: int

    def call(self, rng: np.random.Generator, pitch: float, subset: Subset) -> Call:
        """Return one call; the subset makes no difference, because a model never repeats a call."""
        pitch *= 1 + 0.1 * difficulty.PITCH_SD * rng.standard_normal()
        pitch = min(pitch, TOP_SHARE * self.sample_rate / self.model.top_hz)
        tempo = float(np.exp(difficulty.TEMPO_SD * rng.standard_normal()))
        model = self.model.scaled(pitch, tempo)
        if model.n_notes > 3:
            model = replace(model, n_notes=max(3, round(model.n_notes * rng.uniform(0.7, 1.2))))
        model = replace(
            model, harmonics_db=tuple(db + 2 * rng.standard_normal() for db in model.harmonics_db)
        )
        return Call(model.render(self.sample_rate), *model.band_hz)


def synthetic_voices(n_species: int, sample_rate: int, rng: np.random.Generator) -> list[SyntheticVoice]:
    """Return the species of a world, shuffled so that their order does not reveal the similar pairs.

    Raises:
        UserError: There are more species than call models.
    """
    dozen = [model for pair in PAIRS for model in _contrasted(*pair)]
    if n_species > len(dozen) * len(CYCLES):
        raise UserError(f"data.demo.n_species {n_species}: at most {len(dozen) * len(CYCLES)} can be made")
    pair_pitch = 1 + 0.05 * rng.uniform(-1, 1, size=(len(CYCLES), len(PAIRS)))
    pair_tempo = 1 + 0.05 * rng.uniform(-1, 1, size=(len(CYCLES), len(PAIRS)))
    models = []
    for species in range(n_species):
        cycle, member = divmod(species, len(dozen))
        pitch, tempo = CYCLES[cycle]
        pair = cycle, member // 2
        models.append(dozen[member].scaled(pitch * pair_pitch[pair], tempo * pair_tempo[pair]))
    return [_voice(models[species], sample_rate, rng) for species in rng.permutation(n_species)]


def distractor_voices(sample_rate: int, rng: np.random.Generator) -> list[SyntheticVoice]:
    """Return callers of no listed species: the same kinds of call, with clearly different pitch and tempo."""
    dozen = [model for pair in PAIRS for model in pair]
    return [
        _voice(
            dozen[rng.integers(len(dozen))].scaled(
                float(rng.choice([0.68, 0.75, 1.3, 1.4])), float(rng.choice([0.5, 0.6, 1.8, 2.2]))
            ),
            sample_rate,
            rng,
        )
        for _ in range(difficulty.N_DISTRACTOR_VOICES)
    ]


def _contrasted(first: CallModel, second: CallModel) -> tuple[CallModel, CallModel]:
    share = (1 - difficulty.PAIR_CONTRAST) / 2
    return first.towards(second, share), second.towards(first, share)


def _voice(model: CallModel, sample_rate: int, rng: np.random.Generator) -> SyntheticVoice:
    model = model.scaled(min(1.0, TOP_HZ / model.top_hz) * min(1.0, sample_rate / REFERENCE_RATE), 1.0)
    f_min, f_max = model.band_hz
    main = _template(model.duration_s * 1.15, f_min * 0.85, min(f_max * 1.15, 0.49 * sample_rate))
    other = _template(model.duration_s * 0.8, f_min * 0.9, main.f_max_hz)
    return SyntheticVoice(model, (main, other) if rng.random() < 0.4 else (main,), sample_rate)


def _template(duration_s: float, f_min_hz: float, f_max_hz: float) -> Template:
    return Template(round(float(duration_s), 4), round(float(f_min_hz), 2), round(float(f_max_hz), 2))
