"""The families of networks: how each is checked and kept to a depth. No torch, but for what a registered function does.

What only some networks can do beyond being computed (start a block as an identity, skip, narrow or prune it) is in `odn.models.abilities`.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from odn.backbones import own_builds
from odn.models.architecture import Architecture
from odn.models.outside import LIBRARIES, Outside
from odn.models.prefixes import Parts, Prefixes, is_plain
from odn.models.resnet_family import ResNet

if TYPE_CHECKING:
    from torch import nn

A = TypeVar("A", bound=Architecture)
Build = Callable[..., "tuple[nn.Module, Sequence[nn.Module]]"]


class Family(Protocol):
    """Say how networks of a kind are described; `network.MAKERS`, or the family itself, makes them."""

    draws_itself: bool  # its modules come with their first weights; else `network.draw` gives them theirs
    knows_meta: bool  # its modules can be made on the device `meta`, of shapes alone

    def check(self, architecture: Architecture) -> None:
        """Refuse a description that no network has.

        Raises:
            ValueError: a line that names the argument and what is allowed.
        """

    def at(self, architecture: A, depth: int) -> A:
        """Return the description of the first `depth` blocks."""

    def whole(self, architecture: A) -> A:
        """Return the description of the whole backbone."""

    def groups(self, architecture: Architecture) -> tuple[int, ...]:
        """Return the group of each block of the whole backbone, both counted from 0: a width is chosen for a group."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnArchitecture(Architecture):
    """Describe a network of modules that somebody brought: they stand here, and in no file."""

    parts: Parts = dataclasses.field(repr=False)

    def __hash__(self) -> int:
        return hash((id(self.parts), self.depth))


class OwnFamily(Prefixes):
    """Make networks of modules that somebody brought, each a copy with the weights that it came with."""

    def check(self, architecture: Architecture) -> None:
        """Allow any: what is not made needs no modules."""

    def parts(self, architecture: Architecture) -> Parts:
        """Copy the modules, to the CPU.

        Raises:
            ValueError: they are not there, as the description was read from a file.
        """
        if not isinstance(architecture, OwnArchitecture):
            way_out = "build it by the same code, and load the weights into it: odn.load(FOLDER, like=NETWORK)"
            raise ValueError(f"the network is made of modules of somebody's own ({architecture.name}), which no file holds; {way_out}")
        mine = architecture.parts
        blocks = [copy.deepcopy(block).cpu() for block in mine.blocks[: architecture.depth]]
        tails = None if mine.tails is None else [copy.deepcopy(tail) for tail in mine.tails[: architecture.depth]]
        return Parts(copy.deepcopy(mine.stem).cpu(), blocks, mine.widths, tails)


@dataclasses.dataclass(frozen=True)
class Registered(Prefixes):
    """Make networks by a function of somebody's own, from its keyword arguments."""

    build: Build

    def check(self, architecture: Architecture) -> None:
        """Hold the arguments to the signature of the function, and to what a file can hold."""
        self.require(architecture.in_channels, architecture.arguments)

    def require(self, in_channels: int, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that the function does not take, or that are not the same when they are read from a file.

        Raises:
            ValueError: a line that names what is allowed.
        """
        takes = inspect.signature(self.build)
        try:
            takes.bind(in_channels=in_channels, **arguments)
        except TypeError as error:
            raise ValueError(f"arguments: the function takes {takes}; {error}") from None
        for name, value in arguments.items():
            if not is_plain(value):
                raise ValueError(f"arguments: {name} must be plain JSON, which architecture.json holds; got {value!r}")

    def parts(self, architecture: Architecture) -> Parts:
        """Call the function, and keep the blocks that are asked for."""
        stem, blocks = self.build(in_channels=architecture.in_channels, **architecture.arguments)
        if len(blocks) != architecture.n_blocks:
            raise ValueError(f"n_blocks: {architecture.family} makes {len(blocks)} blocks; got {architecture.n_blocks}")
        return Parts(stem, list(blocks)[: architecture.depth])


OWN = "own"
_FAMILIES: dict[str, Family] = {"resnet": ResNet(), OWN: OwnFamily(), **{name: Outside(name) for name in LIBRARIES}}


def family(name: str) -> Family:
    """Return a family.

    Raises:
        ValueError: there is none of this name.
    """
    if name in own_builds():
        return Registered(own_builds()[name])
    if name not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        raise ValueError(f"family: must be one of {known}; got {name!r}; odn.register makes one of your own known")
    return _FAMILIES[name]


def registered(name: str) -> Registered | None:
    """Return the family of a function that `register` made known; None where there is none of this name."""
    known = _FAMILIES.get(name)
    return known if isinstance(known, Registered) else None


def register(name: str, build: Build) -> None:
    """Make a function known by a name, so that the networks that it builds are saved with its arguments and rebuilt from them.

    `build(in_channels=…, **arguments)` returns a stem and a list of blocks. The arguments are plain JSON.

    Raises:
        ValueError: the name is that of another family.
    """
    known = _FAMILIES.get(name)
    if known is not None and not (isinstance(known, Registered) and known.build.__qualname__ == build.__qualname__):
        raise ValueError(f"family: {name!r} is there already; choose another name")
    _FAMILIES[name] = Registered(build)
