"""The CV metrics of a result in words."""

from collections.abc import Iterable

POOLED = "lwlrap"
"""The CV of the board."""

CV_NAMES: dict[str, str] = {
    POOLED: "pooled LWLRAP",
    "fold_mean": "mean over folds of LWLRAP",
    "lwlrap_known": "LWLRAP, judged species only",
    "lrap": "LRAP by recording, mean over folds",
    "macro_ap": "mean over species of AP",
    "prevalence": "LWLRAP at the test set's expected shares",
}
"""Estimates of CV; their functions are analysis.cv_estimates.ESTIMATES, which needs pandas."""

SPREAD = {"fold_sd": "standard deviation over folds of LWLRAP"}


def meanings(metrics: Iterable[str]) -> str:
    """What those of the metrics are whose name does not say it; empty where there are none.

    Args:
        metrics: Keys such as `cv.lrap`.
    """
    words = {f"cv.{name}": told for name, told in (CV_NAMES | SPREAD).items() if name != POOLED}
    return "; ".join(f"{key.removeprefix('cv.')}: {words[key]}" for key in metrics if key in words)
