"""What is done to scores after the network, one step at a time left out to measure what it gains."""

from collections.abc import Callable, Iterator
from typing import Any

from callboard.params.scoring import InferParams

OFF: dict[str, Any] = {
    "temperature": 1.0,
    "smoothing": [],
    "blend_weights": [],
    "stack": False,
    "prevalence": 0.0,
}
"""The steps: keys of `infer`, with the value that leaves scores as they are. Without blend_weights or stack,
a blend is the plain mean."""

STEPS = "steps.csv"
"""Lists the active steps, beside a score table without each."""

OF_OWN_NETWORKS = {"temperature", "smoothing"}
"""These do nothing to a blend, whose parts have their own."""


def without_each(params: InferParams) -> Iterator[tuple[str, InferParams]]:
    """Each active step with the parameters that lack it, in the order of OFF."""
    for step, off in OFF.items():
        if getattr(params, step) != off and not (params.blend and step in OF_OWN_NETWORKS):
            yield step, params.model_copy(update={step: off})


def gains(params: InferParams, score: Callable[[InferParams], float]) -> dict[str, float]:
    """`gain_<step>` of each active step: the score with all steps minus the score without this one.

    Args:
        params: The `infer` section.
        score: Of the same recordings each time, so that differences are paired.
    """
    scores_without = {step: score(without) for step, without in without_each(params)}
    with_all = score(params) if scores_without else 0.0
    return {f"gain_{step}": with_all - score_without for step, score_without in scores_without.items()}
