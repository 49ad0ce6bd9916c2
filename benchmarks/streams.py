"""How many images a second reach a network, held, mapped, read ahead or streamed: `python -m benchmarks.streams PREPARED STREAMED`.

Both are what `odn prepare` writes of the same data, the second with `data.shards`, on a CPU. A pass is an epoch of the product's own
training batches, or its first --images, in its own order, without a network and without augmentation. `shuffled as a whole` reads the map
in an order that knows no shards, as was done before there were any. Ways take turns; the pages of the map are given up before each pass
that is to read a disk.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from odn.data.batches import Images, on_device, training_batches
from odn.data.dataset import read_manifest, read_split
from odn.sections import AugmentConfig
from odn.storage import Objects

NOTHING = AugmentConfig(shift=0, rotate=0.0, scale=0.0, flip=False)
CPU = torch.device("cpu")


def passed(images: Images, *, batch_size: int, most: int, seed: int) -> float:
    """Return the images a second of the first images of an epoch."""
    n, began = 0, perf_counter()
    for batch, _ in training_batches(images, batch_size=batch_size, augment=NOTHING, generator=torch.Generator().manual_seed(seed)):
        n += len(batch)
        if n >= most:
            break
    return n / (perf_counter() - began)


def passed_as_a_whole(images: Images, *, batch_size: int, most: int, seed: int) -> float:
    """Return the images a second of the first of an epoch in one random order of all images, each batch read when it is needed."""
    assert isinstance(images.pixels, torch.Tensor), "read without a thread"
    order, n, began = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)), 0, perf_counter()
    for part in order[:most].split(batch_size):
        n += len(images.normalised(images.batch(part)))
    return n / (perf_counter() - began)


def give_up(path: Path) -> None:
    """Let the system forget what it keeps of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line a way: images a second of each pass, and the best beside that of images that are held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("streamed", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=1 << 40, help="of a pass, at most")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    manifest, file = read_manifest(options.prepared / "dataset.json"), options.prepared / "train" / "images.npy"
    torch.set_num_threads(1)

    def mapped() -> Images:
        """Open the map anew, so that none of its pages is in this process's table."""
        split = read_split(options.prepared / "train")
        images = on_device(split, manifest=manifest, device=CPU)
        return Images(torch.from_numpy(split.images), images.labels, images.mean, images.std, images.n_classes)

    def ahead() -> Images:
        held = mapped()
        return Images(read_split(options.prepared / "train").images, held.labels, held.mean, held.std, held.n_classes)

    def held() -> Images:
        there = mapped()
        return Images(
            torch.from_numpy(np.array(read_split(options.prepared / "train").images)), there.labels, there.mean, there.std, there.n_classes
        )

    def streamed() -> Images:
        return on_device(read_split(options.streamed / "train", objects=Objects), manifest=manifest, device=CPU)

    ways: dict[str, tuple[Callable[[], Images], Callable[..., float], bool]] = {
        "held": (held, passed, False),
        "mapped, from the disk": (mapped, passed, True),
        "mapped, from the disk, shuffled as a whole": (mapped, passed_as_a_whole, True),
        "read ahead, from the disk": (ahead, passed, True),
        "streamed": (streamed, passed, False),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(options.rounds):
        for name, (opened, measured, is_cold) in ways.items():
            images = opened()
            if is_cold:
                give_up(file)
            speeds[name].append(measured(images, batch_size=options.batch_size, most=options.images, seed=seed))
            del images
            sys.stderr.write(f"{name}: {speeds[name][-1]:,.0f}\n")
    best = max(speeds["held"])
    for name, each in speeds.items():
        sys.stdout.write(f"| {name} | {', '.join(f'{one:,.0f}' for one in each)} | {max(each) / best:.2f} |\n")


if __name__ == "__main__":
    main()
