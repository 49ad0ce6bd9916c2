"""Turn raw data into stratified train, val and test arrays and their manifest.

Reads: data
Writes: work/prepared/train, work/prepared/val, work/prepared/test, work/prepared/dataset.json
Config: seed, data
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from odn.config import Config
from odn.data.arrays import statistics, write_split
from odn.data.checksums import verify_checksums
from odn.data.dataset import Labels, Manifest
from odn.data.selection import select
from odn.data.sources import open_raw
from odn.files import new_folder, require_own_folder, sha256_of


def run(config: Config, *, data: Path, train: Path, val: Path, test: Path, manifest: Path) -> Manifest:
    """Split raw data, write each split as memory-mappable uint8 arrays, and describe them.

    All three splits are written beside their places before the first takes it; the manifest goes first and comes last, so
    that there is no manifest of splits that are not there.

    Raises:
        MissingInputError: raw data is not there.
        OutputError: the output's place holds what odn did not write.
        DataError: raw data is damaged or cannot be split.
        ConfigError: a fraction or a size leaves a split without a class.
    """
    for path in (train, val, test):
        require_own_folder(path)
    verify_checksums(data)
    raw = open_raw(config.data, folder=data)
    selection = select(raw, config=config.data, seed=config.seed)
    shape = (raw.channels, raw.height, raw.width)
    counts, digests, histograms = {}, {}, {}
    with ExitStack() as stack:
        for split, path in (("train", train), ("val", val), ("test", test)):
            folder = stack.enter_context(new_folder(path))
            labels, histograms[split] = write_split(folder, part=selection[split].part, indices=selection[split].indices, shape=shape)
            counts[split] = _counts(labels, n_classes=len(raw.classes))
            digests[split] = sha256_of(folder / "images.npy", folder / "labels.npy")
        pixels = statistics(histograms["train"])
        manifest.unlink(missing_ok=True)
    result = Manifest(
        source=config.data.source, classes=raw.classes, channels=raw.channels, height=raw.height, width=raw.width,
        mean=pixels.mean, std=pixels.std, counts=counts, sha256=digests,
    )  # fmt: skip
    result.write(manifest)
    return result


def _counts(labels: Labels, *, n_classes: int) -> dict[str, int | list[int]]:
    return {"total": len(labels), "per_class": np.bincount(labels, minlength=n_classes).tolist()}
