"""Choose which raw images become train, val and test."""

from dataclasses import dataclass

import numpy as np

from odn.data import splits
from odn.data.sources import Part, Raw
from odn.data.splits import Indices
from odn.sections import DataConfig


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Name some images of a part, in the order in which they are written."""

    part: Part
    indices: Indices

    def name(self, position: int) -> str:
        """Name the image at a position, for a person."""
        return self.part.name(int(self.indices[position]))

    def at(self, positions: Indices) -> "Selection":
        """Keep the images at some positions."""
        return Selection(part=self.part, indices=self.indices[positions])


def select(raw: Raw, *, config: DataConfig, seed: int) -> dict[str, Selection]:
    """Draw test (unless the source has its own), then `max_images` of what is left, then val (likewise); train is the rest.

    Val and test of the source's own are kept whole and in their order; what is drawn is shuffled, and so is train.

    Raises:
        DataError: a label is out of range, or a class has too few images.
        ConfigError: a fraction or `max_images` leaves a split without a class.
    """
    n_classes = len(raw.classes)
    n_drawn = 1 + (raw.test is None) + (raw.val is None)
    splits.check_labels(raw.train.labels, classes=raw.classes, at_least=n_drawn, where=f"{config.source}, training images")
    pool: Indices
    if raw.test is None:
        rng = splits.generator(seed, stream=splits.TEST)
        pool, taken = splits.take_fraction(
            raw.train.labels, n_classes=n_classes, fraction=config.test_fraction, leave=n_drawn - 1, setting="data.test_fraction", rng=rng
        )
        test = Selection(part=raw.train, indices=taken)
    else:
        pool, test = np.arange(len(raw.train.labels)), _whole(raw.test, raw, where=f"{config.source}, test images")
    if config.max_images is not None and config.max_images < len(pool):
        rng = splits.generator(seed, stream=splits.SUBSET)
        labels = raw.train.labels[pool]
        pool = pool[splits.take_subset(labels, n_classes=n_classes, size=config.max_images, setting="data.max_images", rng=rng)]
    rng = splits.generator(seed, stream=splits.VAL)
    if raw.val is not None:
        val = _whole(raw.val, raw, where=f"{config.source}, val images")
        # Shuffled, as files come class by class: BatchNorm's statistics are averaged over batches in the order of train.
        return {"train": Selection(part=raw.train, indices=rng.permutation(pool)), "val": val, "test": test}
    rest, taken = splits.take_fraction(
        raw.train.labels[pool], n_classes=n_classes, fraction=config.val_fraction, leave=1, setting="data.val_fraction", rng=rng
    )
    return {"train": Selection(part=raw.train, indices=pool[rest]), "val": Selection(part=raw.train, indices=pool[taken]), "test": test}


def _whole(part: Part, raw: Raw, *, where: str) -> Selection:
    """Take a split as it is, after a look at its labels."""
    splits.check_labels(part.labels, classes=raw.classes, at_least=1, where=where)
    return Selection(part=part, indices=np.arange(len(part.labels)))
