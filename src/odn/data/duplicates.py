"""Find images that are there twice, byte for byte as they are written: within a split, in two splits, under two labels.

N images. An image is known by a digest of 16 bytes, so that a million of them take 16 MB.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Images, Labels
from odn.data.splits import Indices

SPLITS = ("test", "val", "train")  # an image that is in several stays in the first of these
FEW = {"train": 10, "val": 5, "test": 5}  # images of a class; with fewer in val or test one image is more than 20 % of it
NAMED = 3  # of a kind of problem: the others are counted
DIGEST_BYTES = 16

Digests = npt.NDArray[np.uint64]  # (N, 2)
Flags = npt.NDArray[np.bool_]  # (N,)


def digests_of(images: Images) -> Digests:
    """Return a digest of each image: (N, C, H, W) -> (N, 2)."""
    joined = b"".join(hashlib.blake2b(image.tobytes(), digest_size=DIGEST_BYTES).digest() for image in images)
    return np.frombuffer(joined, np.uint64).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Hold what is compared of a split."""

    digests: Digests
    labels: Labels
    name: Callable[[int], str]  # of the image at a position


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Hold, for every image of the splits one after the other, which images it is equal to."""

    parts: Mapping[str, Compared]
    groups: Indices  # (N,) equal images have the same number
    conflicting: Flags  # it has an equal under another label
    seen: Mapping[str, Flags]  # by split: an image of that split is equal, an earlier one for the split's own images

    def counts(self) -> dict[str, int]:
        """Count what `dataset.json` says: repeats within each split, images that are in another one too, and images of two labels."""
        within = {name: self._n(name, self.seen[name]) for name in self.parts}
        pairs = [pair for pair in (("val", "train"), ("test", "train"), ("test", "val")) if set(pair) <= set(self.parts)]
        between = {f"{name}_in_{other}": self._n(name, self.seen[other]) for name, other in pairs}
        return within | between | {"conflicts": int(self.conflicting.sum())}

    def dropped(self, split: str) -> Flags:
        """Tell which images of train or val go: all of two labels, and each that is earlier in its split or in a split that keeps it."""
        keeps = SPLITS[: SPLITS.index(split) + 1]
        flags = self.conflicting | np.logical_or.reduce([self.seen[name] for name in keeps])
        return self._own(split, flags)

    def problems(self) -> Iterator[str]:
        """Say in a line each what was found, the first few images by their names."""
        counts = self.counts()
        for name, other in (("test", "train"), ("test", "val"), ("val", "train")):
            if n := counts.get(f"{name}_in_{other}"):
                yield self._sentence(f"{_images(n)} of {name} {_are(n)} in {other} too", name, self.seen[other], other=other)
        for name in self.parts:
            if n := counts[name]:
                yield self._sentence(f"{_images(n)} of {name} {_repeat(n)} another one of {name}", name, self.seen[name], other=name)
        if n := counts["conflicts"]:
            names = [self._pair(at, self._twin(at, other_label=True)) for at in self._firsts(self.conflicting)]
            yield f"{_images(n)} {_are(n)} there under another label too: {_listed(names, self._n_groups(self.conflicting))}"

    def _sentence(self, what: str, split: str, flags: Flags, *, other: str) -> str:
        own = np.zeros_like(flags)
        own[self._places(split)] = self._own(split, flags)
        names = [self._pair(at, self._twin(at, split=other)) for at in np.flatnonzero(own)[:NAMED].tolist()]
        return f"{what}: {_listed(names, int(own.sum()))}"

    def _pair(self, at: int, twin: int) -> str:
        return f"{self._name(at)} = {self._name(twin)}"

    def _twin(self, at: int, *, split: str | None = None, other_label: bool = False) -> int:
        same = np.flatnonzero(self.groups == self.groups[at])
        if split is not None:
            places = self._places(split)
            same = same[(same >= places.start) & (same < places.stop) & (same != at)]
        if other_label:
            labels = np.concatenate([part.labels for part in self.parts.values()])
            same = same[labels[same] != labels[at]]
        return int(same[0])

    def _firsts(self, flags: Flags) -> list[int]:
        at = np.flatnonzero(flags)
        _, first = np.unique(self.groups[at], return_index=True)
        return [int(at[one]) for one in np.sort(first)[:NAMED]]

    def _n_groups(self, flags: Flags) -> int:
        return len(np.unique(self.groups[flags]))

    def _n(self, split: str, flags: Flags) -> int:
        return int(self._own(split, flags).sum())

    def _own(self, split: str, flags: Flags) -> Flags:
        return flags[self._places(split)]

    def _places(self, split: str) -> slice:
        start = 0
        for name, part in self.parts.items():
            if name == split:
                return slice(start, start + len(part.labels))
            start += len(part.labels)
        raise ValueError(f"no split {split}")

    def _name(self, at: int) -> str:
        for part in self.parts.values():
            if at < len(part.labels):
                return part.name(at)
            at -= len(part.labels)
        raise ValueError("no such image")


def find_twins(parts: Mapping[str, Compared]) -> Twins:
    """Compare all images of the splits with one another."""
    digests = np.concatenate([part.digests for part in parts.values()])
    labels = np.concatenate([part.labels for part in parts.values()])
    of_split = np.repeat(np.arange(len(parts)), [len(part.labels) for part in parts.values()])
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal images stay in their order
    new = np.ones(len(order), np.bool_)
    new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    groups = np.empty(len(order), np.intp)
    groups[order] = np.cumsum(new) - 1
    n = int(new.sum())
    low, high = np.full(n, np.iinfo(np.int64).max), np.full(n, -1)
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    seen = {}
    for number, name in enumerate(parts):
        first = np.full(n, len(order))
        mine = np.flatnonzero(of_split == number)
        np.minimum.at(first, groups[mine], mine)
        there = first[groups]
        seen[name] = np.where(of_split == number, there < np.arange(len(order)), there < len(order))
    return Twins(parts=parts, groups=groups, conflicting=(low != high)[groups], seen=seen)


def told(twins: Twins, *, dropped: Mapping[str, int]) -> Iterator[str]:
    """Say what was dropped and what is there twice all the same, a line for each kind, and what can be done."""
    yield from (f"{_images(n)} of {name} {_are(n)} left out: elsewhere too, or under two labels" for name, n in dropped.items() if n)
    problems = list(twins.problems())
    yield from problems
    if problems and not any(dropped.values()):
        yield "data.duplicates: drop takes out of train and val what is elsewhere too, refuse stops here; docs/data.md says what counts"


def small_classes(counts: Mapping[str, Mapping[str, Any]], *, classes: tuple[str, ...]) -> Iterator[str]:
    """Say in a line for each split which classes have so few images that they are hardly learnt, or hardly measured.

    `counts` are those of `dataset.json`.
    """
    for split, least in FEW.items():
        found = counts[split]["per_class"]
        few = [one for one, n in enumerate(found) if n < least]
        if few:
            names = [f"{classes[one]!r} has {found[one]}" for one in few[:NAMED]]
            why = "are too few to learn a class from" if split == "train" else "measure a class in steps of more than 20 %"
            yield f"fewer than {least} images in {split} {why}: {_listed(names, len(few))}"


def _listed(names: list[str], n: int) -> str:
    return ", ".join(names) + (f" and {n - len(names):,} more" if n > len(names) else "")


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n:,} images"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _repeat(n: int) -> str:
    return "repeats" if n == 1 else "repeat"
