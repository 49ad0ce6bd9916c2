"""Keep the splits of an interrupted `prepare`, for a run on the same data with the same settings to go on with."""

import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from odn import __version__
from odn.config import Config
from odn.data.checksums import NAME
from odn.data.dataset import read_split
from odn.data.shards import OpenObjects
from odn.data.sources import Part
from odn.errors import OdnError, StorageError
from odn.files import locked, sha256_of


@contextmanager
def unfinished(folder: Path, *, key: str) -> Iterator[Path]:
    """Yield the folder of this key, with what a run that was killed left in it, and remove it when the block ends or refuses its input.

    What runs of other keys left is removed.
    """
    with locked(folder):
        for stale in folder.iterdir():
            if stale.is_dir() and stale.name != key:
                shutil.rmtree(stale)
        place = folder / key
        if place.exists():
            sys.stderr.write("odn: going on with the images that an interrupted prepare has written\n")
        place.mkdir(exist_ok=True)
        try:
            yield place
        except StorageError:  # what is in a bucket already stays good
            raise
        except OdnError:  # what is refused is written anew when it is mended
            shutil.rmtree(place)
            raise
        shutil.rmtree(place)


def key_of(config: Config, *, data: Path) -> str:
    """Return a name that only runs share that write the same images: raw files, seed, settings and versions; `duplicates` comes later."""
    settings = config.data.model_dump(mode="json", exclude={"root", "duplicates"})
    code = sha256_of(*(Path(__file__).with_name(f"{name}.py") for name in ("decoding", "folder", "official", "selection", "splits")))
    content = [__version__, code, importlib.metadata.version("pillow"), config.seed, settings, sha256_of(data / NAME)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def reread(folder: Path, *, objects: OpenObjects) -> Part:
    """Return the images of a split that is written as a part of their own."""
    split = read_split(folder, objects=objects)
    return Part(labels=split.labels, read=lambda indices: split.images[indices], name=str)
