"""Turn raw data into stratified train, val and test arrays and their manifest.

Reads: data
Writes: work/prepared/train, work/prepared/val, work/prepared/test, work/prepared/dataset.json
Config: seed, data, model.backbone, model.weights
"""

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from odn.config import Config
from odn.counting import counted
from odn.data.arrays import Written, statistics, write_split
from odn.data.balance import imbalances
from odn.data.checksums import verify_checksums
from odn.data.dataset import SPLITS, Labels, Manifest
from odn.data.duplicates import Compared, Flags, Twins, find_twins, small_classes, told
from odn.data.normalisation import normalisation
from odn.data.selection import Selection, select
from odn.data.sharded import write_shards
from odn.data.shards import INDEX
from odn.data.sources import Raw, open_raw
from odn.data.splits import check_labels
from odn.data.unfinished import key_of, reread, unfinished
from odn.errors import DataError
from odn.files import new_folder, require_own_folder, sha256_of
from odn.sanitize import sanitized
from odn.storage import Objects

FILES = {"images.npy", INDEX, "labels.npy"}  # of a split; what else lies beside them is of use only while they are written

Write = Callable[..., Written]


def run(config: Config, *, data: Path, train: Path, val: Path, test: Path, manifest: Path, progress: Path) -> Manifest:
    """Split raw data, write each split as memory-mappable uint8 arrays, or as shards in a bucket, and describe them.

    What makes a result doubtful is told.

    Images are written into `progress` first, where a run that was killed goes on from its last chunk. All three splits stand beside
    their places before the first takes it; the manifest goes first and comes last, so that there is no manifest of splits that are
    not there.

    Raises:
        MissingInputError: raw data is not there.
        OutputError: the output's place holds what odn did not write.
        DataError: raw data is damaged or cannot be split, or has duplicates that `data.duplicates` refuses.
        ConfigError: a fraction or a size leaves a split without a class.
    """
    for path in (train, val, test):
        require_own_folder(path)
    verify_checksums(data)
    raw = open_raw(config.data, folder=data, show=counted)
    selection = select(raw, config=config.data, seed=config.seed)
    with unfinished(progress / "prepare", key=key_of(config, data=data)) as begun, ExitStack() as stack:
        write = _writer(config)
        written = _write(selection, raw, into=begun, write=write)
        twins = _compared(written, selection)
        if config.data.duplicates == "refuse" and any(twins.counts().values()):
            raise DataError(*twins.problems(), "remove them from the raw data, or set data.duplicates to warn or drop")
        drops = config.data.duplicates == "drop"
        goes = {name: flags for name in ("train", "val") if drops and (flags := twins.dropped(name)).any()}
        folders = {name: stack.enter_context(new_folder(path)) for name, path in (("train", train), ("val", val), ("test", test))}
        for name, folder in folders.items():
            if name in goes:
                written[name] = _without(goes[name], begun / name, raw, name=name, into=folder, write=write)
                selection[name] = selection[name].at(np.flatnonzero(~goes[name]))
            else:
                for file in FILES & {one.name for one in (begun / name).iterdir()}:
                    shutil.move(begun / name / file, folder / file)
        dropped = {name: int(goes[name].sum()) if name in goes else 0 for name in ("train", "val")}
        twins = _compared(written, selection) if goes else twins
        pixels = statistics(written["train"].histogram)
        counts = {name: _counts(one.labels, n_classes=len(raw.classes)) for name, one in written.items()}
        for lines in (raw.notes, told(twins, dropped=dropped), *(of(counts, classes=raw.classes) for of in (small_classes, imbalances))):
            for line in lines:
                sys.stderr.write(f"odn: warning: {sanitized(line)}\n")
        brought = normalisation(config, channels=raw.channels)
        if brought is not None:
            said = f"images are normalised as those that {config.model.backbone} was trained on (data.normalise: data takes their own)"
            sys.stderr.write(f"odn: {sanitized(said)}\n")
        mean, std = brought or (pixels.mean, pixels.std)
        stored = {name: sha256_of(folder / INDEX, folder / "labels.npy") for name, folder in folders.items() if config.data.shards}
        manifest.unlink(missing_ok=True)
    result = Manifest(
        source=config.data.source, classes=raw.classes, channels=raw.channels, height=raw.height, width=raw.width,
        mean=mean, std=std, counts=counts, sha256={name: one.sha256 for name, one in written.items()}, index=stored,
        duplicates=twins.counts() | {f"dropped_{name}": n for name, n in dropped.items()},
    )  # fmt: skip
    result.write(manifest)
    return result


def _writer(config: Config) -> Write:
    """Return what writes a split: into its folder, or its images into a bucket."""
    place = config.data.shards
    return partial(write_shards, place=place, objects=Objects(place)) if place is not None else write_split


def _write(selection: dict[str, Selection], raw: Raw, *, into: Path, write: Write) -> dict[str, Written]:
    """Write every split into a folder of its name, or what is left of it to write."""
    written, shape = {}, (raw.channels, raw.height, raw.width)
    with counted("decode images", total=sum(len(selection[name].indices) for name in SPLITS)) as tick:
        for name in SPLITS:
            (into / name).mkdir(exist_ok=True)
            written[name] = write(into / name, part=selection[name].part, indices=selection[name].indices, shape=shape, tick=tick)
    return written


def _without(goes: Flags, folder: Path, raw: Raw, *, name: str, into: Path, write: Write) -> Written:
    """Write a split anew without some of its images, from its own arrays."""
    part, shape = reread(folder, objects=Objects), (raw.channels, raw.height, raw.width)
    where = f"{name} without its duplicates (data.duplicates)"
    check_labels(part.labels[~goes], classes=raw.classes, at_least=1, where=where)
    written = write(into, part=part, indices=np.flatnonzero(~goes), shape=shape)
    for file in {one.name for one in into.iterdir()} - FILES:
        (into / file).unlink()
    return written


def _compared(written: dict[str, Written], selection: dict[str, Selection]) -> Twins:
    return find_twins({name: Compared(digests=one.digests, labels=one.labels, name=selection[name].name) for name, one in written.items()})


def _counts(labels: Labels, *, n_classes: int) -> dict[str, Any]:
    return {"total": len(labels), "per_class": np.bincount(labels, minlength=n_classes).tolist()}
