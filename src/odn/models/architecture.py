"""Say which network is meant: a family, a name in it, its arguments, and how many of its blocks are kept. No torch."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from odn.records import Record

if TYPE_CHECKING:
    from odn.models.families import Family

LARGEST = 2**20  # channels, classes
Size = Annotated[int, Field(ge=1, le=LARGEST)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture(Record):
    """Describe a network kept to `depth` of its `n_blocks` blocks, for images of `in_channels` and `n_classes` classes.

    It is the content of `architecture.json`. `arguments` are plain JSON, and are the family's own: what they mean, and which may stand
    there, the family says (see `odn.models.families`).

    Raises:
        ValueError: a field is of the wrong type or out of range, or the family refuses it.
    """

    family: str
    name: str
    arguments: dict[str, Any]
    in_channels: int
    n_classes: int
    n_blocks: int
    depth: int

    def __post_init__(self) -> None:
        for name, most in (("in_channels", LARGEST), ("n_classes", LARGEST), ("n_blocks", LARGEST), ("depth", self.n_blocks)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                allowed = f"from 1 to {most}" + (f", the blocks of {self.name}" if name == "depth" else "")
                raise ValueError(f"{name}: expected a whole number {allowed}; got {value!r}")
        self.made_by.check(self)

    def __hash__(self) -> int:
        return hash((self.family, self.name, json.dumps(self.arguments, sort_keys=True), self.in_channels, self.n_classes, self.depth))

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # nothing in it changes

    @property
    def made_by(self) -> "Family":
        """Return the family that makes such networks.

        Raises:
            ValueError: there is no such family.
        """
        from odn.models.families import family

        return family(self.family)

    def at(self, depth: int) -> Self:
        """Return the same network kept to its first `depth` blocks.

        Raises:
            ValueError: so many blocks are not there.
        """
        return self.made_by.at(self, depth)

    @property
    def whole(self) -> Self:
        """Return the whole backbone: every block, every channel."""
        return self.made_by.whole(self)

    @property
    def is_cut(self) -> bool:
        """Return whether blocks or channels of it are missing, so that it is no prefix of the backbone."""
        return self != self.whole.at(self.depth)

    def to_dict(self) -> dict[str, Any]:
        """Return what `architecture.json` holds."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Architecture)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutBlock(Record):
    """Say what is left of a block: which of the backbone's it is, from 1, and the channels of its inner convolutions and its output.

    Where `inner` is empty the residual is gone, and only the shortcut is left.
    """

    number: Size
    inner: tuple[Size, ...]
    out: Size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut(Record):
    """Say what is left of a backbone that lost channels or blocks: the stem's channels, and the blocks that remain, ascending."""

    stem: Size
    blocks: tuple[CutBlock, ...]
