"""Draw stratified subsets of labels: pure functions of the labels, a size and a generator.

Written out because scikit-learn's StratifiedShuffleSplit promises no class an image on each side, and takes 1.6 s to import.
N images, K classes. Every class gets at least one image on each side of a split, or the caller gets an error that says why.
"""

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Labels
from odn.errors import ConfigError, DataError

Indices = npt.NDArray[np.intp]

# One stream a purpose, so that a changed val_fraction draws the same test images.
TEST, SUBSET, VAL = 0, 1, 2


def generator(seed: int, *, stream: int) -> np.random.Generator:
    """Make the generator of one purpose; nothing else decides what is drawn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream])))


def check_labels(labels: Labels, *, classes: tuple[str, ...], at_least: int, where: str) -> None:
    """Require labels in 0..K-1, and `at_least` images of every class.

    Raises:
        DataError: naming the first label out of range, or the class with the fewest images.
    """
    n_classes = len(classes)
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        raise DataError(
            f"{where}: image {wrong[0]} has label {labels[wrong[0]]}, out of range 0..{n_classes - 1} "
            f"({len(wrong)} of {len(labels)} images do); mend or replace the labels file"
        )
    counts = np.bincount(labels, minlength=n_classes)
    fewest = int(counts.argmin())
    if counts[fewest] < at_least:
        n_images = f"{counts[fewest]} image" + ("" if counts[fewest] == 1 else "s")
        raise DataError(
            f"{where}: class {classes[fewest]!r} has {n_images} and needs at least {at_least}, "
            "one for each split that is drawn; add images or leave the class out"
        )


def take_fraction(
    labels: Labels, *, n_classes: int, fraction: float, leave: int, setting: str, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Split indices (N,) into the rest, with `leave` images of each class at least, and a stratified fraction; both shuffled.

    Every class must have at least `leave` + 1 images.

    Raises:
        ConfigError: the fraction leaves too few images for the classes on one side; the message gives the range that works.
    """
    n_images = len(labels)
    n_taken = round(fraction * n_images)
    if not n_classes <= n_taken <= n_images - leave * n_classes:
        raise ConfigError(
            f"{setting}: {fraction} of {n_images} images parts them into {n_images - n_taken} and {n_taken}, "
            f"too few for {n_classes} classes; take a fraction from {n_classes / n_images:.4f} to "
            f"{1 - leave * n_classes / n_images:.4f}, or add images"
        )
    taken = _draw(labels, _quotas(labels, n_classes=n_classes, total=n_taken, keep=1, leave=leave), rng)
    rest = np.setdiff1d(np.arange(n_images), taken, assume_unique=True)
    return rng.permutation(rest), taken


def take_subset(labels: Labels, *, n_classes: int, size: int, setting: str, rng: np.random.Generator) -> Indices:
    """Return a stratified subset (size,) of the indices, shuffled: at least two images a class, so that it can still be split.

    Raises:
        ConfigError: there are more classes than that many images can serve.
    """
    if size < 2 * n_classes:
        raise ConfigError(
            f"{setting}: {size} images are too few for {n_classes} classes, which need one each in train and in val; "
            f"set it to {2 * n_classes} or more, or to null"
        )
    return _draw(labels, _quotas(labels, n_classes=n_classes, total=size, keep=2, leave=0), rng)


def _quotas(labels: Labels, *, n_classes: int, total: int, keep: int, leave: int) -> npt.NDArray[np.int64]:
    """Share `total` out in proportion to the class sizes by largest remainders: >= keep of each class, >= leave left behind.

    Integers throughout: N times the quota is compared with total times the class size, so that no rounding decides a tie.
    """
    counts = np.bincount(labels, minlength=n_classes).astype(np.int64)
    n_images = int(counts.sum())
    low, high = np.minimum(keep, counts), counts - leave
    quotas = np.clip(total * counts // n_images, low, high)
    while (missing := total - int(quotas.sum())) != 0:
        due = total * counts - n_images * quotas  # how much more than its quota a class deserves
        if missing > 0:
            quotas[np.where(quotas < high, due, np.iinfo(np.int64).min).argmax()] += 1
        else:
            quotas[np.where(quotas > low, due, np.iinfo(np.int64).max).argmin()] -= 1
    return quotas


def _draw(labels: Labels, quotas: npt.NDArray[np.int64], rng: np.random.Generator) -> Indices:
    picked = [rng.permutation(np.flatnonzero(labels == label))[:quota] for label, quota in enumerate(quotas)]
    return rng.permutation(np.concatenate(picked))
