"""Steps after training; each is left out in turn to measure its gain.

Steps of `predict` change the scores of windows, so `predict` also writes scores without each step. Steps of
`infer` act on these scores.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from callboard.data.annotations import read_table
from callboard.params.scoring import InferParams, PredictParams

SectionT = TypeVar("SectionT", PredictParams, InferParams)

OFF_IN_PREDICT: dict[str, Any] = {"weights": "last", "tta": 0}
"""The steps of `predict`, with the value that switches each off."""

WITHOUT = "without"
"""Folder next to the window scores, with a folder of window scores without each active step of `predict`."""

OFF: dict[str, Any] = {
    "fold_weights": [],
    "temperature": 1.0,
    "smoothing": [],
    "blend_weights": [],
    "stack": False,
    "prevalence": 0.0,
}
"""The steps of `infer`, with the value that switches each off. Without blend_weights and stack, a blend is
the plain mean."""

STEPS = "steps.csv"
"""File that lists the active steps, next to the scores without each."""

OF_OWN_NETWORKS = {"fold_weights", "temperature", "smoothing"}
"""Steps that do nothing to a blend, because its parts have their own."""


def predict_without_each(params: PredictParams) -> Iterator[tuple[str, PredictParams]]:
    """Yield each active step of `predict` with the parameters without it, in the order of OFF_IN_PREDICT."""
    return _without_each(params, OFF_IN_PREDICT)


def write_steps(steps: list[str], folder: Path) -> None:
    """Write the list of active steps, which can be empty."""
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"step": steps}).to_csv(folder / STEPS, index=False)


def read_steps(folder: Path) -> list[str]:
    """Read the list of active steps.

    Raises:
        UserError: The list is missing.
    """
    steps: list[str] = read_table(folder / STEPS, ["step"])["step"].tolist()
    return steps


def without_each(params: InferParams) -> Iterator[tuple[str, InferParams]]:
    """Yield each active step of `infer` with the parameters without it, in the order of OFF."""
    idle = OF_OWN_NETWORKS if params.blend else ()
    return _without_each(params, {step: off for step, off in OFF.items() if step not in idle})


def _without_each(params: SectionT, neutral: Mapping[str, Any]) -> Iterator[tuple[str, SectionT]]:
    for step, off in neutral.items():
        if getattr(params, step) != off:
            yield step, params.model_copy(update={step: off})


def gains(params: InferParams, score: Callable[[InferParams], float]) -> dict[str, float]:
    """Return `gain_<step>` of each active step of `infer`: the score with all steps minus that without it.

    Args:
        params: The `infer` section.
        score: Function that scores the same recordings each time, so that differences are paired.
    """
    scores_without = {step: score(without) for step, without in without_each(params)}
    with_all = score(params) if scores_without else 0.0
    return {f"gain_{step}": with_all - score_without for step, score_without in scores_without.items()}
