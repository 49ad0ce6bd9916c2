"""What a network costs in parameters, bytes and multiply-accumulates: counted, exact."""

import copy
import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from odn.models.abilities import Skippable
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, empty
from odn.models.prefixes import Prefixes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Count a network with one head.

    n_params: trainable numbers. size_bytes: of every tensor in the state dict, BatchNorm's buffers included; a file adds a few hundred
    bytes a tensor. macs: multiply-accumulates of all convolutions and matrix products, forward, for one image.
    """

    n_params: int
    size_bytes: int
    macs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartMacs:
    """Count multiply-accumulates part by part, forward, for one image: `residuals` and `shortcuts` by block, `heads` by depth.

    A block that cannot be skipped is all residual.
    """

    stem: int
    residuals: tuple[int, ...]
    shortcuts: tuple[int, ...]
    heads: dict[int, int]

    @property
    def total(self) -> int:
        """Count all parts."""
        return self.stem + sum(self.residuals) + sum(self.shortcuts) + sum(self.heads.values())


@runtime_checkable
class CountsByFormula(Protocol):
    """Be a family that knows what its parts cost without computing them."""

    def part_macs(self, architecture: Architecture, height: int, width: int) -> tuple[int, list[tuple[int, int]]]:
        """Count the stem, and of each block the residual and the shortcut."""


@functools.lru_cache(maxsize=256)
def cost(architecture: Architecture, height: int, width: int) -> Cost:
    """Count the network with only the head at its depth, for images of `height` x `width`."""
    if isinstance(architecture.made_by, Prefixes):
        return _prefix_costs(architecture.whole, height, width)[architecture.depth - 1]
    network = empty(architecture, heads=(architecture.depth,), device="meta")
    return _cost(network, part_macs(network, height, width))


@functools.lru_cache(maxsize=64)
def _prefix_costs(whole: Architecture, height: int, width: int) -> tuple[Cost, ...]:
    """Count every prefix of a backbone by one pass through the whole: making a large network, and computing it, takes a second."""
    network = empty(whole, heads=range(1, whole.n_blocks + 1), device="meta")
    macs, size = part_macs(network, height, width), _Size.of(network.stem)
    macs_so_far, found = macs.stem, []
    for depth, block in enumerate(network.blocks, start=1):
        size += _Size.of(block)
        macs_so_far += macs.residuals[depth - 1] + macs.shortcuts[depth - 1]
        there = size + _Size.of(network.head(depth))
        found.append(Cost(n_params=there.n_params, size_bytes=there.size_bytes, macs=macs_so_far + macs.heads[depth]))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class _Size:
    """Count the parameters, and the bytes of the state dict, of a part of a network."""

    n_params: int
    size_bytes: int

    @classmethod
    def of(cls, module: torch.nn.Module) -> "_Size":
        """Count a module's."""
        return cls(
            n_params=sum(parameter.numel() for parameter in module.parameters()),
            size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values()),
        )

    def __add__(self, other: "_Size") -> "_Size":
        return _Size(self.n_params + other.n_params, self.size_bytes + other.size_bytes)


def cost_of(network: DepthNetwork, height: int, width: int) -> Cost:
    """Count a network as it is, with all its heads, whatever its channels: by computing one image."""
    return _cost(network, counted_macs(network, height, width))


def _cost(network: DepthNetwork, macs: PartMacs) -> Cost:
    size = _Size.of(network)
    return Cost(n_params=size.n_params, size_bytes=size.size_bytes, macs=macs.total)


def part_macs(network: DepthNetwork, height: int, width: int) -> PartMacs:
    """Count the parts of a network: by its family's formula, else by computing one image and counting what torch is asked for."""
    made_by = network.architecture.made_by
    if isinstance(made_by, CountsByFormula):
        stem, blocks = made_by.part_macs(network.architecture, height, width)
        # A head reads an average: each of its weights is used once.
        heads = {
            depth: sum(weight.numel() for weight in network.head(depth).parameters() if weight.ndim > 1) for depth in network.head_depths
        }
        residuals, shortcuts = zip(*blocks, strict=True)
        return PartMacs(stem=stem, residuals=residuals, shortcuts=shortcuts, heads=heads)
    return counted_macs(network, height, width)


def counted_macs(network: DepthNetwork, height: int, width: int) -> PartMacs:
    """Compute one image, and count the products of every operation: those of modules and of functions alike."""
    network = copy.deepcopy(network).eval().requires_grad_(True)  # without gradients attention is one operation that nothing counts
    like = next(network.parameters())
    x = torch.zeros(1, network.architecture.in_channels, height, width, device=like.device, dtype=like.dtype)
    residuals, shortcuts, heads = [], [], {}
    stem, x = _counted(network.stem, x)
    for number, block in enumerate(network.blocks, start=1):
        shortcut, _ = _counted(block.shortcut, x) if isinstance(block, Skippable) else (0, x)
        whole, x = _counted(block, x)
        residuals.append(whole - shortcut)
        shortcuts.append(shortcut)
        if number in network.head_depths:
            heads[number], _ = _counted(network.head(number), x)
    return PartMacs(stem=stem, residuals=tuple(residuals), shortcuts=tuple(shortcuts), heads=heads)


def _counted(part: Any, x: Tensor) -> tuple[int, Tensor]:
    counter = _Counter()
    (were_enabled, *_) = torch.backends.mkldnn.set_flags(False, _allow_tf32=None)  # oneDNN computes an LSTM in one operation
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), counter:
            y = part(x)
    finally:
        torch.backends.mkldnn.set_flags(were_enabled, _allow_tf32=None)
    return counter.macs, y.detach()


class _Counter(TorchDispatchMode):
    """Add up the multiply-accumulates of the operations that torch has a formula for: half of its floating-point operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        from torch.utils.flop_counter import flop_registry

        self._formulas, self.macs = flop_registry, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave torch's compiler alone, whose import takes a second: nothing here is compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=out) // 2
        return out
