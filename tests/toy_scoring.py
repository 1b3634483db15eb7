"""The sections behind training as a test wants them: everything off but what it names."""

from typing import Any

from callboard.params.scoring import InferParams, PredictParams, PseudoParams

PREDICT: dict[str, Any] = {"overlap_frames": 0, "batch_size": 4, "weights": "last", "tta": 0}

INFER: dict[str, Any] = {
    "fold_weights": [],
    "temperature": 1.0,
    "smoothing": [],
    "blend": [],
    "blend_weights": [],
    "stack": False,
    "prevalence": 0.0,
}

PSEUDO: dict[str, Any] = {
    "rounds": 0,
    "source": "train",
    "isolation": "recording",
    "head": "attention_max",
    "threshold": 0.9,
    "negative_threshold": None,
    "min_votes": 2,
    "labels": "hard",
    "temperature": 1.0,
    "power": 1.0,
    "n_frames": 20,
}


def predict_params(**changes: Any) -> PredictParams:
    """The predict section."""
    return PredictParams.model_validate(PREDICT | changes)


def infer_params(
    head: str = "attention_max", window_agg: str = "max", fold_agg: str = "mean", **changes: Any
) -> InferParams:
    """The infer section."""
    pooling = {"head": head, "window_agg": window_agg, "fold_agg": fold_agg}
    return InferParams.model_validate(INFER | pooling | changes)


def pseudo_params(**changes: Any) -> PseudoParams:
    """The pseudo section."""
    return PseudoParams.model_validate(PSEUDO | changes)
