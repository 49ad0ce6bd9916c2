"""What a block or a stem can do beyond being computed. Each ability is a small protocol; only methods that need one ask for it.

Axes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from odn.errors import ConfigError

T = TypeVar("T")
Layers = list[tuple[str, str]]  # names of convolutions in the module, each with that of the BatchNorm behind it


@runtime_checkable
class Growable(Protocol):
    """Be a block that can start without changing what the network computes: `growth.init: zero`."""

    def start_silent(self, features: Tensor | None) -> Tensor | None:
        """Set the weights so that the input is passed on; return what comes out of `features` (N, C, H, W) while training, if given.

        `features` are an example of what comes in while training.
        """


@runtime_checkable
class Skippable(Protocol):
    """Be a block that adds a residual to a shortcut, so that the residual can be left out for some images."""

    in_channels: int
    passes_on: bool  # without the residual the block gives its input as it is

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added."""

    def shortcut(self, x: Tensor) -> Tensor:
        """Compute what it is added to."""

    def joined(self, shortcut: Tensor) -> Tensor:
        """Compute what follows the addition, in place where that pays."""


@runtime_checkable
class Narrowable(Protocol):
    """Be a block whose inner channels can be left out, the last ones first."""

    in_channels: int
    out_channels: int

    def residual_layers(self) -> Layers:
        """Name the layers of the residual in the order of computing; the last one's output is no inner channel."""

    def forward_narrowed(self, x: Tensor, inner: Sequence[int]) -> Tensor:
        """Compute the block in training with the first of its inner channels only; BatchNorm takes the statistics of the batch."""


@runtime_checkable
class Prunable(Protocol):
    """Be a block of which channels, or the whole residual, can be removed."""

    in_channels: int
    out_channels: int
    passes_on: bool

    def residual_layers(self) -> Layers:
        """Name the layers of the residual in the order of computing."""

    def shortcut_layers(self) -> Layers:
        """Name the layers of the shortcut; none where it passes its input on."""

    def without_residual(self) -> nn.Module:
        """Return what is left of the block when its residual is removed."""


@runtime_checkable
class PrunableStem(Protocol):
    """Be a stem of one convolution with its BatchNorm."""

    def layer(self) -> tuple[str, str]:
        """Name both."""


def able(modules: Sequence[nn.Module], ability: type[T], *, asked_by: str, way_out: str) -> list[T]:
    """Return the modules, all of which have the ability.

    Raises:
        ConfigError: one has not; the message says who asked for it, which module it is, what it lacks, and what to do.
    """
    for number, module in enumerate(modules, start=1):
        if not isinstance(module, ability):
            wanted = [name for name in vars(ability) if name[0] != "_"] + list(ability.__annotations__)
            lacks = ", ".join(sorted(name for name in wanted if not hasattr(module, name)))
            raise ConfigError(
                f"{asked_by} needs modules that are {ability.__name__} (odn.models.abilities); "
                f"number {number}, a {type(module).__name__}, has no {lacks}; {way_out}"
            )
    return list(modules)  # type: ignore[arg-type]
