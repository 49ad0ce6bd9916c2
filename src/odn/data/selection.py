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


def select(raw: Raw, *, config: DataConfig, seed: int) -> dict[str, Selection]:
    """Draw test (unless the source has its own), then `max_images` of what is left, then val; train is the rest.

    An official test split is kept whole and in its order; the others are shuffled.

    Raises:
        DataError: a label is out of range, or a class has too few images.
        ConfigError: a fraction or `max_images` leaves a split without a class.
    """
    n_classes = len(raw.classes)
    n_drawn = 3 if raw.test is None else 2
    splits.check_labels(raw.train.labels, classes=raw.classes, at_least=n_drawn, where=f"{config.source}, training images")
    pool: Indices
    if raw.test is None:
        rng = splits.generator(seed, stream=splits.TEST)
        pool, taken = splits.take_fraction(
            raw.train.labels, n_classes=n_classes, fraction=config.test_fraction, leave=2, setting="data.test_fraction", rng=rng
        )
        test = Selection(part=raw.train, indices=taken)
    else:
        splits.check_labels(raw.test.labels, classes=raw.classes, at_least=1, where=f"{config.source}, test images")
        pool = np.arange(len(raw.train.labels))
        test = Selection(part=raw.test, indices=np.arange(len(raw.test.labels)))
    if config.max_images is not None and config.max_images < len(pool):
        rng = splits.generator(seed, stream=splits.SUBSET)
        labels = raw.train.labels[pool]
        pool = pool[splits.take_subset(labels, n_classes=n_classes, size=config.max_images, setting="data.max_images", rng=rng)]
    rng = splits.generator(seed, stream=splits.VAL)
    rest, taken = splits.take_fraction(
        raw.train.labels[pool], n_classes=n_classes, fraction=config.val_fraction, leave=1, setting="data.val_fraction", rng=rng
    )
    return {"train": Selection(part=raw.train, indices=pool[rest]), "val": Selection(part=raw.train, indices=pool[taken]), "test": test}
