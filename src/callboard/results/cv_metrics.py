"""Descriptions of the CV metrics of a result."""

from collections.abc import Iterable

POOLED = "lwlrap"
"""Name of the CV that the board shows."""

CV_NAMES: dict[str, str] = {
    POOLED: "pooled LWLRAP",
    "fold_mean": "mean over folds of LWLRAP",
    "lwlrap_known": "LWLRAP, judged species only",
    "lrap": "LRAP by recording, mean over folds",
    "macro_ap": "mean over species of AP",
    "prevalence": "LWLRAP at the test set's expected shares",
}
"""Estimates of CV with descriptions; their functions are analysis.cv_estimates.ESTIMATES (needs pandas)."""

SPREAD = {"fold_sd": "standard deviation over folds of LWLRAP"}


def meanings(metrics: Iterable[str]) -> str:
    """Describe the metrics that have a description, except pooled LWLRAP; empty if none has.

    Args:
        metrics: Keys such as `cv.lrap`.
    """
    words = {f"cv.{name}": text for name, text in (CV_NAMES | SPREAD).items() if name != POOLED}
    return "; ".join(f"{key.removeprefix('cv.')}: {words[key]}" for key in metrics if key in words)
