"""The noise of one setting, for a terminal."""

from collections.abc import Sequence
from math import isfinite

from callboard.better.noise import HEADS, METRICS, MIN_DOF, SeedNoise, least_change, seed_noise
from callboard.runs.rows import Row
from callboard.words import MISSING, counted


def noise_lines(name: str, runs: Sequence[Row]) -> list[str]:
    """Each run's scores, their spread, and what it means for a difference.

    Args:
        name: What the runs are called together.
        runs: That differ in nothing but the seed.
    """
    noise = seed_noise(runs)
    if noise is None:
        return [f"{name}: {counted(len(runs), 'finished run')}; noise needs two seeds"]
    title = f"{name}: {len(runs)} runs that differ in nothing but the seed"
    body = [
        _line(row.params["seed"], row.metrics, ".4f") + "  " + (row.names or (row.name,))[0] for row in runs
    ]
    return [
        title,
        _line("seed", HEADS),
        *body,
        _line("sd of a run", noise.sd, ".4f"),
        _line("range", {key: _range(runs, key) for key in METRICS}, ".4f"),
        "",
        f"A difference of CV has a standard error of {noise.recordings:.4f} by which recordings there are "
        f"and of {noise.beyond:.4f} by seeds beyond that.",
        *(_meaning(noise, key) for key in METRICS if key in noise.sd),
        *_caution(noise),
    ]


def _line(label: str, values: dict[str, float] | dict[str, str], form: str = "") -> str:
    cells = [format(values[key], form) if key in values else MISSING for key in METRICS]
    return f"{label:>12}" + "".join(f"{cell:>12}" for cell in cells)


def _range(runs: Sequence[Row], key: str) -> float:
    values = [row.metrics[key] for row in runs if key in row.metrics and isfinite(row.metrics[key])]
    return max(values) - min(values) if values else float("nan")


def _meaning(noise: SeedNoise, key: str) -> str:
    return (
        f"A difference of {HEADS[key]} below {least_change(noise, key):.3f} between two separate runs is "
        "within noise."
    )


def _caution(noise: SeedNoise) -> list[str]:
    if noise.dof >= MIN_DOF:
        return []
    return [f"{noise.n_runs} seeds say little: the true spread may be several times that, or a fraction."]
