"""Simulated review of a template matcher's proposals: few are confirmed or rejected, most are never seen."""

from dataclasses import dataclass

import numpy as np

from callboard.data.soundscapes import difficulty
from callboard.data.soundscapes.calls import Template
from callboard.data.soundscapes.scenes import PlacedCall, Scene, World

TP_SHARES = (0.941, 0.049, 0.007, 0.002, 0.001)
"""Shares of TP recordings with 1, 2, … confirmed boxes, as in the RFCX competition (1132 recordings)."""
FP_SHARES = (0.522, 0.221, 0.140, 0.087, 0.030)
"""Shares of FP recordings with 1, 2, … rejected boxes, ibid. (3958 recordings, without the few above 5)."""
TP_AND_FP_SHARE = 0.32
"""Share of TP recordings that also have rejected boxes, ibid."""
N_RANDOM_PROPOSALS = 4
"""Random times at which the matcher can fire, in addition to the calls of other species."""
CLEARANCE_S = 0.1
"""Minimum distance of a rejected box from any call of its species."""


@dataclass(frozen=True)
class Annotation:
    """One reviewed box."""

    species: int
    t_min: float
    t_max: float
    f_min: float
    f_max: float


def confirm(world: World, scene: Scene, target: int, rng: np.random.Generator) -> list[Annotation]:
    """Draw the TP boxes: one at the target's call that the matcher ranks highest, rarely further calls."""
    n_boxes = _draw_count(TP_SHARES, rng)
    best, *rest = _ranked(scene.calls_of(target), rng)
    others = [
        call for call in scene.calls if call.species in range(len(world.voices)) and call.species != target
    ]
    chosen = [best, *rest, *_ranked(others, rng)][:n_boxes]
    return [
        _box(world, _template(world, call.species, rng), _middle(call), call.species, rng) for call in chosen
    ]


def reject(
    world: World, scene: Scene, confirmed: list[Annotation], rng: np.random.Generator
) -> list[Annotation]:
    """Draw the FP boxes, each of its species' usual size at a time when that species does not call.

    A species absent from the recording always allows a box, and `prevalence` leaves at least one absent.
    """
    n_boxes = _draw_count(FP_SHARES, rng)
    taken = {annotation.species for annotation in confirmed}
    rejected: list[Annotation] = []
    for species in rng.permutation(len(world.voices)):
        if len(rejected) == n_boxes:
            break
        if int(species) not in taken and (box := _false_alarm(world, scene, int(species), rng)):
            rejected.append(box)
    return rejected


def _false_alarm(world: World, scene: Scene, species: int, rng: np.random.Generator) -> Annotation | None:
    """Return the matcher's best proposal without a call of the species: another caller's call, or noise."""
    template = _template(world, species, rng)
    proposals = [
        (call.snr_db * _band_overlap(call, template), _middle(call))
        for call in scene.calls
        if call.species != species
    ]
    middles_s = rng.uniform(0, world.recording_length_s, size=N_RANDOM_PROPOSALS)
    proposals += [(0.0, float(middle_s)) for middle_s in middles_s]
    noisy = [
        (score + difficulty.MATCHER_NOISE_DB * rng.standard_normal(), middle) for score, middle in proposals
    ]
    own_calls = scene.calls_of(species)
    for _, middle_s in sorted(noisy, reverse=True):
        box = _box(world, template, middle_s, species, rng)
        if not any(_touches(box, call) for call in own_calls):
            return box
    return None


def _box(
    world: World, template: Template, middle_s: float, species: int, rng: np.random.Generator
) -> Annotation:
    """Return the template's box around a time, shifted by the matcher's jitter, inside the recording."""
    shift_s = difficulty.BOX_JITTER * rng.uniform(-1, 1) * template.duration_s
    latest_s = world.recording_length_s - template.duration_s
    t_min = round(float(np.clip(middle_s + shift_s - template.duration_s / 2, 0, latest_s)), 4)
    t_max = min(round(t_min + template.duration_s, 4), world.recording_length_s)
    return Annotation(species, t_min, t_max, template.f_min_hz, template.f_max_hz)


def _template(world: World, species: int, rng: np.random.Generator) -> Template:
    templates = world.voices[species].templates
    return templates[int(rng.random() < 0.25) if len(templates) > 1 else 0]


def _ranked(calls: list[PlacedCall], rng: np.random.Generator) -> list[PlacedCall]:
    scores = [call.snr_db + difficulty.MATCHER_NOISE_DB * rng.standard_normal() for call in calls]
    return [calls[index] for index in np.argsort(scores)[::-1]]


def _touches(box: Annotation, call: PlacedCall) -> bool:
    return call.t_min < box.t_max + CLEARANCE_S and box.t_min < call.t_max + CLEARANCE_S


def _band_overlap(call: PlacedCall, template: Template) -> float:
    shared_hz = min(call.f_max, template.f_max_hz) - max(call.f_min, template.f_min_hz)
    return max(0.0, shared_hz / (call.f_max - call.f_min))


def _middle(call: PlacedCall) -> float:
    return (call.t_min + call.t_max) / 2


def _draw_count(shares: tuple[float, ...], rng: np.random.Generator) -> int:
    return 1 + int(rng.choice(len(shares), p=np.array(shares) / sum(shares)))
