"""Turn raw data into stratified train, val and test arrays and their manifest.

Reads: data
Writes: work/prepared/train, work/prepared/val, work/prepared/test, work/prepared/dataset.json
Config: seed, data, model.backbone, model.weights
"""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from odn.config import Config
from odn.data.arrays import Written, statistics, write_split
from odn.data.checksums import verify_checksums
from odn.data.dataset import Labels, Manifest
from odn.data.duplicates import Compared, Twins, find_twins, small_classes, told
from odn.data.normalisation import normalisation
from odn.data.selection import Selection, select
from odn.data.sources import open_raw
from odn.data.splits import check_labels
from odn.errors import DataError
from odn.files import new_folder, require_own_folder, sha256_of
from odn.sanitize import sanitized


def run(config: Config, *, data: Path, train: Path, val: Path, test: Path, manifest: Path) -> Manifest:
    """Split raw data, write each split as memory-mappable uint8 arrays, and describe them; warn of what makes a result doubtful.

    All three splits are written beside their places before the first takes it; the manifest goes first and comes last, so
    that there is no manifest of splits that are not there.

    Raises:
        MissingInputError: raw data is not there.
        OutputError: the output's place holds what odn did not write.
        DataError: raw data is damaged or cannot be split, or has duplicates that `data.duplicates` refuses.
        ConfigError: a fraction or a size leaves a split without a class.
    """
    for path in (train, val, test):
        require_own_folder(path)
    verify_checksums(data)
    raw = open_raw(config.data, folder=data)
    selection = select(raw, config=config.data, seed=config.seed)
    shape = (raw.channels, raw.height, raw.width)
    with ExitStack() as stack:
        folders = {name: stack.enter_context(new_folder(path)) for name, path in (("train", train), ("val", val), ("test", test))}

        def write(name: str) -> Written:
            return write_split(folders[name], part=selection[name].part, indices=selection[name].indices, shape=shape)

        written = {name: write(name) for name in folders}
        twins, dropped = _compared(written, selection), {"train": 0, "val": 0}
        if config.data.duplicates == "refuse" and any(twins.counts().values()):
            raise DataError(*twins.problems(), "remove them from the raw data, or set data.duplicates to warn or drop")
        if config.data.duplicates == "drop":
            for name in dropped:
                goes = twins.dropped(name)
                dropped[name] = int(goes.sum())
                selection[name] = replace(selection[name], indices=selection[name].indices[~goes])
                check_labels(
                    written[name].labels[~goes], classes=raw.classes, at_least=1, where=f"{name} without its duplicates (data.duplicates)"
                )
            written |= {name: write(name) for name, n in dropped.items() if n}
            twins = _compared(written, selection)
        pixels = statistics(written["train"].histogram)
        counts = {name: _counts(one.labels, n_classes=len(raw.classes)) for name, one in written.items()}
        for line in (*told(twins, dropped=dropped), *small_classes(counts, classes=raw.classes)):
            sys.stderr.write(f"odn: warning: {sanitized(line)}\n")
        mean, std = normalisation(config, channels=raw.channels) or (pixels.mean, pixels.std)
        digests = {name: sha256_of(folder / "images.npy", folder / "labels.npy") for name, folder in folders.items()}
        manifest.unlink(missing_ok=True)
    result = Manifest(
        source=config.data.source, classes=raw.classes, channels=raw.channels, height=raw.height, width=raw.width,
        mean=mean, std=std, counts=counts, sha256=digests,
        duplicates=twins.counts() | {f"dropped_{name}": n for name, n in dropped.items()},
    )  # fmt: skip
    result.write(manifest)
    return result


def _compared(written: dict[str, Written], selection: dict[str, Selection]) -> Twins:
    return find_twins({name: Compared(digests=one.digests, labels=one.labels, name=selection[name].name) for name, one in written.items()})


def _counts(labels: Labels, *, n_classes: int) -> dict[str, Any]:
    return {"total": len(labels), "per_class": np.bincount(labels, minlength=n_classes).tolist()}
