"""Prove that an export computes what the network computes: each logit of each image, and the class of each image.

Axes: N images, K classes.
"""

from dataclasses import dataclass

import numpy as np

from odn.errors import ExportError
from odn.export.runtimes import Logits

TOLERANCE = 1e-4  # of a logit; of the largest one where that is above 1, as float32 holds seven digits


@dataclass(frozen=True)
class Parity:
    """Hold how far an export is from the network: the largest difference of a logit, and images of another class."""

    difference: float
    n_other_class: int
    bound: float

    @property
    def holds(self) -> bool:
        """Return whether both compute the same; a logit that is not a number is not the same."""
        return self.difference <= self.bound and self.n_other_class == 0


def compare(reference: Logits, exported: Logits) -> Parity:
    """Compare the logits (N, K) of the network with those of an export of it."""
    if reference.shape != exported.shape:
        raise ExportError(f"the export gives logits {exported.shape}, the network {reference.shape}; please report this, with the network")
    difference = float(np.abs(reference - exported).max())
    n_other = int((reference.argmax(1) != exported.argmax(1)).sum())
    return Parity(difference=difference, n_other_class=n_other, bound=TOLERANCE * max(1.0, float(np.abs(reference).max())))


def require_equal(reference: Logits, exported: Logits, *, name: str, exact: bool = False) -> Parity:
    """Require that an export computes the same, `exact`: bit for bit.

    Raises:
        ExportError: it does not; its file must not be shipped.
    """
    parity = compare(reference, exported)
    if not parity.holds or (exact and parity.difference):
        bound = "0" if exact else f"{parity.bound:.2g}"
        raise ExportError(
            f"{name}: the exported file does not compute what the network computes: on {len(reference)} val images logits differ by up to "
            f"{parity.difference:.3g} (allowed: {bound}), and {parity.n_other_class} images get another class; it is not written. "
            f"Leave the format out of export.formats, or try other versions of torch and of its runtime"
        )
    return parity
