"""Make the confidence of an exit mean what it says: one temperature an exit, fitted on val by its likelihood.

Source: temperature scaling, Guo et al., arXiv 1706.04599, section 4.2.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

COLDEST, WARMEST = 0.05, 20.0  # bounds of a temperature: where all of val is right, the likelihood knows none
HALVINGS = 60


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature that makes labels (N,) most likely under softmax(logits (N, K) / temperature), within the bounds.

    The mean negative log-likelihood is convex in 1 / temperature: its slope is bisected, without the 0.4 s of importing scipy.optimize.
    """
    low, high = 1 / WARMEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, labels, middle) > 0:
            high = middle
        else:
            low = middle
    return 2 / (low + high)


def probabilities(logits: Floats, *, temperature: float) -> Floats:
    """Return softmax(logits (N, K) / temperature)."""
    shifted = (logits - logits.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(shifted)
    softmax: Floats = powers / powers.sum(axis=1, keepdims=True)
    return softmax


def calibration_error(logits: Floats, labels: Labels, *, temperature: float, bins: int = 15) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy over bins of confidence."""
    softmax = probabilities(logits, temperature=temperature)
    confidence, is_right = softmax.max(axis=1), logits.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=confidence - is_right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _slope(logits: Floats, labels: Labels, inverse: float) -> float:
    """Return the derivative of the mean negative log-likelihood by the inverse temperature."""
    expected = (probabilities(logits, temperature=1 / inverse) * logits).sum(axis=1)
    return float((expected - logits[np.arange(len(labels)), labels]).mean())
