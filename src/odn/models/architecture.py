"""Say which network is meant: everything that its shapes follow from, and nothing else. No torch."""

import dataclasses
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field

from odn.config import N_BLOCKS, Config
from odn.records import Record

Stem = Literal["cifar", "imagenet"]
Shortcut = Literal["avgpool", "conv"]
MOST, WIDEST = 2**20, 4  # channels and classes; the multiplier of channels, as model.width
Channels = Annotated[int, Field(ge=1, le=MOST)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutBlock(Record):
    """Say what is left of a block: which of the backbone's it is, from 1, and the channels of its inner convolutions and its output.

    Where `inner` is empty the residual is gone, and only the shortcut is left.
    """

    number: Channels
    inner: tuple[Channels, ...]
    out: Channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut(Record):
    """Say what is left of a backbone that lost channels or blocks: the stem's channels, and the blocks that remain, ascending."""

    stem: Channels
    blocks: tuple[CutBlock, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture(Record):
    """Name a backbone kept to `depth` blocks, for images of `in_channels` and `n_classes` classes.

    With a `cut` the blocks are those that it lists, with the channels that it says, and `depth` counts them.

    Raises:
        ValueError: a field is unknown to the zoo, of the wrong type or out of range.
    """

    backbone: str
    stem: Stem
    width: float
    shortcut: Shortcut
    in_channels: int
    n_classes: int
    depth: int
    cut: Cut | None = None

    def __post_init__(self) -> None:
        if self.backbone not in N_BLOCKS:
            raise ValueError(f"backbone: {self.backbone!r} is not one of {', '.join(N_BLOCKS)}")
        if self.stem not in get_args(Stem):
            raise ValueError(f"stem: {self.stem!r} is not one of {', '.join(get_args(Stem))}")
        if self.shortcut not in get_args(Shortcut):
            raise ValueError(f"shortcut: {self.shortcut!r} is not one of {', '.join(get_args(Shortcut))}")
        if isinstance(self.width, bool) or not isinstance(self.width, (int, float)) or not 0 < self.width <= WIDEST:
            raise ValueError(f"width: expected a number above 0, and at most {WIDEST}; got {self.width!r}")
        for name, most in (("in_channels", MOST), ("n_classes", MOST), ("depth", N_BLOCKS[self.backbone])):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                allowed = f"from 1 to {most}" + (f", the blocks of {self.backbone}" if name == "depth" else "")
                raise ValueError(f"{name}: expected a whole number {allowed}; got {value!r}")
        if self.cut is not None:
            self._check_cut(self.cut)

    def _check_cut(self, cut: Cut) -> None:
        numbers = [block.number for block in cut.blocks]
        counts = [cut.stem, *(count for block in cut.blocks for count in (block.number, block.out, *block.inner))]
        if any(type(count) is not int or count < 1 for count in counts):
            raise ValueError(f"cut: numbers of channels and blocks are whole and ≥ 1; got {dataclasses.asdict(cut)}")
        if len(numbers) != self.depth or any(second <= first for first, second in pairwise(numbers)) or numbers[-1] > self.n_blocks:
            raise ValueError(f"cut: expected {self.depth} blocks of {self.backbone}, ascending up to {self.n_blocks}; got {numbers}")

    @property
    def n_blocks(self) -> int:
        """Count the blocks of the whole backbone."""
        return N_BLOCKS[self.backbone]

    def at(self, depth: int) -> Self:
        """Return the same backbone kept to another depth; of a cut one, to its first `depth` blocks.

        Raises:
            ValueError: so many blocks are not there.
        """
        cut = None if self.cut is None else dataclasses.replace(self.cut, blocks=self.cut.blocks[:depth])
        return dataclasses.replace(self, depth=depth, cut=cut)

    @property
    def whole(self) -> Self:
        """Return the whole backbone, uncut."""
        return dataclasses.replace(self, depth=self.n_blocks, cut=None)

    @classmethod
    def of(cls, config: Config, *, in_channels: int, n_classes: int, depth: int) -> Self:
        """Return the configured backbone, kept to `depth` blocks, for data of this shape."""
        return cls(
            backbone=config.model.backbone,
            stem=config.model.stem,
            width=config.model.width,
            shortcut=config.growth.shortcut,
            in_channels=in_channels,
            n_classes=n_classes,
            depth=depth,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `architecture.json` holds; a `cut` only where there is one."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "cut" or value is not None}
