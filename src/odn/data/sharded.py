"""Write a split into an object store, a shard as soon as its images are decoded; go on where a kill broke it off.

N images, C channels, H height, W width.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from odn.data.arrays import Shape, Tally, Written, chunks_of, header_of
from odn.data.in_order import in_order
from odn.data.progress import Tick, untold
from odn.data.sharding import shard_size
from odn.data.shards import INDEX, Index, Objects, object_name, read_shard
from odn.data.sources import Part
from odn.data.splits import Indices
from odn.files import write_json

LOG = "shards.txt"  # the shards that are in the store, a line each
UPLOADS = 2  # threads, each with a shard; one more is decoded meanwhile


def write_shards(folder: Path, *, part: Part, indices: Indices, shape: Shape, place: str, objects: Objects, tick: Tick = untold) -> Written:
    """Write shards of some images of a part into the store, and shards.json and labels.npy into the folder.

    Shards that an earlier process wrote of the same are read, held to their digests, and not decoded again. Who calls sees to it that the
    folder holds nothing of another part.

    Raises:
        StorageError: the store cannot be reached or refuses.
        DataError: a shard that was written is not that any more.
    """
    tally, size, log = Tally(len(indices), shape), shard_size(shape), folder / LOG
    log.touch()
    names = [line.strip() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    log.write_text("".join(f"{name}\n" for name in names))
    for name in names:
        images = read_shard(name, objects, place=place, shape=shape)
        tally.add(images)
        tick(len(images))

    opened: set[BinaryIO] = set()

    def decoded(begin: int) -> Iterator[tuple[str, BinaryIO]]:
        for start in range(begin, len(indices), size):
            mine = indices[start : start + size]
            header = header_of(len(mine), shape)
            file = tempfile.TemporaryFile(prefix="odn-shard-")  # noqa: SIM115  # who uploads it closes it
            file.write(header)
            digest = hashlib.sha256(header)
            for images in chunks_of(part, mine, shape=shape):
                file.write(images.data)
                digest.update(images.data)
                tally.add(images)
                tick(len(images))
            file.seek(0)
            opened.add(file)
            yield digest.hexdigest(), file

    def upload(one: tuple[str, BinaryIO]) -> str:
        name, file = one
        with file:
            objects.put(object_name(name), file)
        opened.discard(file)
        return name

    try:
        with log.open("a") as lines:
            for name in in_order(upload, decoded(len(names) * size), threads=UPLOADS, ahead=1):
                lines.write(f"{name}\n")
                lines.flush()
                names.append(name)
    finally:
        for file in opened:  # what a failure of the one before it kept from its upload
            file.close()
    index = Index(place=place, count=len(indices), shape=shape, size=size, shards=tuple(names))
    write_json(folder / INDEX, asdict(index))
    return tally.written(folder, part.labels[indices])
