"""The network whose depth is searched: a stem, one flat list of blocks, and a head for each depth that needs one.

Axes: N images, C channels, H rows, W columns, T tokens, K classes.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from odn.models.architecture import Architecture
from odn.models.families import OWN, OwnArchitecture, OwnFamily, Registered
from odn.models.outside import Outside
from odn.models.prefixes import Parts
from odn.models.resnet import make_parts

MAKERS: dict[str, Callable[[Architecture], Parts]] = {"resnet": make_parts}  # of the families that do not make themselves
TRIED_SIZES = (32, 64, 28, 224, 16, 8)  # pixels a side, of the forward pass that finds how many features a head reads


class Head(nn.Linear):
    """Average the features over positions, or do what the `tail` does, then classify: (N, C, H, W), (N, T, C) or (N, C) -> (N, K)."""

    def __init__(self, in_features: int, out_features: int, tail: nn.Module | None = None) -> None:
        super().__init__(in_features, out_features)
        self.tail = tail

    def features(self, x: Tensor) -> Tensor:
        """Return what is classified: (N, C)."""
        return pooled(x) if self.tail is None else self.tail(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return super().forward(self.features(x))


def pooled(x: Tensor) -> Tensor:
    """Average features over positions: (N, C, H, W), (N, T, C) or (N, C) -> (N, C)."""
    if x.ndim == 4:
        return x.mean(dim=(2, 3))
    return x.mean(dim=1) if x.ndim == 3 else x


class DepthNetwork(nn.Module):
    """Classify images at any depth that has a head.

    `stem` reads images (N, C, H, W); block number d, from 1, is `blocks[d - 1]`, and its output is what block d + 1 reads: (N, C, H, W),
    (N, T, C) or (N, C). Heads are linear layers over the averaged features, at the depths `heads`, or at the last block alone; where
    there are `tails`, one a block or None, a head computes that instead of the average: (N, ...) -> (N, C).
    `image_shape` (C, H, W) is needed where neither the blocks' `out_channels` nor a forward pass of a square image says how many
    features a head reads. `architecture` is for families that describe their networks; other networks describe themselves.

    Attributes: `stem`; `blocks`; `heads`, keyed by str(depth); `architecture`.

    Raises:
        ValueError: there is no block, a head is asked for at a depth that is not there, or the features cannot be counted.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        *,
        n_classes: int,
        heads: Iterable[int] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        architecture: Architecture | None = None,
        widths: Sequence[int] | None = None,
        tails: Sequence[nn.Module | None] | None = None,
    ) -> None:
        super().__init__()
        if not blocks:
            raise ValueError("blocks: a network has one at least; got none")
        if architecture is None:
            in_channels = image_shape[0] if image_shape is not None else _in_channels(stem)
            widths = widths_of(stem, blocks, in_channels=in_channels, image_shape=image_shape, tails=tails)
            architecture = _describe(Parts(stem, list(blocks), widths, tails), in_channels=in_channels, n_classes=n_classes)
        assert widths is not None, "a family counts them"
        depths = _checked((len(blocks),) if heads is None else heads, len(blocks))
        self.architecture = architecture
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        device = next((parameter.device for parameter in self.blocks.parameters()), None)
        tails = [None] * len(blocks) if tails is None else tails
        made = {str(depth): Head(widths[depth - 1], n_classes, tails[depth - 1]).to(device) for depth in depths}
        self.heads = nn.ModuleDict(made)

    @property
    def depth(self) -> int:
        """Count the blocks that are here."""
        return len(self.blocks)

    @property
    def head_depths(self) -> tuple[int, ...]:
        """List the depths that have a head, ascending."""
        return tuple(sorted(int(name) for name in self.heads))

    @property
    def draws_inside(self) -> bool:
        """Return whether modules may draw while they compute, as dropout does: those that somebody brought may."""
        return self.architecture.made_by.draws_itself

    def head(self, depth: int) -> nn.Module:
        """Return the head that reads the features behind block `depth`.

        Raises:
            ValueError: there is none.
        """
        if str(depth) not in self.heads:
            raise ValueError(f"no head at depth {depth}; this network has {self.depth} blocks and heads at {list(self.head_depths)}")
        return self.heads[str(depth)]

    def forward(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W) at `depth`, or at all the blocks that are here."""
        depth = self.depth if depth is None else depth
        return self.forward_depths(x, (depth,))[depth]

    def forward_depths(self, x: Tensor, depths: Iterable[int]) -> dict[int, Tensor]:
        """Return the logits (N, K) at each of `depths` from one shared forward pass.

        Raises:
            ValueError: a depth has no head here.
        """
        heads = {depth: self.head(depth) for depth in depths}
        logits: dict[int, Tensor] = {}
        x = self.stem(x)
        for number, block in zip(range(1, max(heads, default=0) + 1), self.blocks, strict=False):
            x = block(x)
            if number in heads:
                logits[number] = heads[number](x)
        return {depth: logits[depth] for depth in heads}

    def truncated(self, depth: int) -> "DepthNetwork":
        """Return a new network that holds a copy of the stem, the first `depth` blocks and their head, and nothing else.

        Raises:
            ValueError: there is no head at `depth`.
        """
        return self.kept(depth, heads=(depth,))

    def kept(self, depth: int, *, heads: Iterable[int]) -> "DepthNetwork":
        """Return a copy of the first `depth` blocks with some of the heads; every parameter of it can be trained.

        Raises:
            ValueError: there is no such head.
        """
        own = nn.ModuleDict({str(one): copy.deepcopy(self.head(one)) for one in sorted(set(heads))})
        network = DepthNetwork.__new__(DepthNetwork)
        nn.Module.__init__(network)
        network.architecture = self.architecture.at(depth)
        network.stem = copy.deepcopy(self.stem)
        network.blocks = nn.ModuleList(copy.deepcopy(block) for block in self.blocks[:depth])
        network.heads = own
        return network.requires_grad_(True).train(self.training)


def build(
    architecture: Architecture, generator: torch.Generator, *, heads: Iterable[int] | None = None, as_torch: bool = False
) -> DepthNetwork:
    """Make a network on the CPU with first weights; what is random about them comes from `generator` (a CPU one) alone.

    Only blocks 1..depth exist, and only the heads asked for: the one at `architecture.depth` unless said otherwise.
    A family either draws its own weights, or they are drawn here in the order stem, blocks, heads.
    Source: convolutions as in arXiv 1502.01852, section 2.2 (normal, fan out), or with `as_torch` as torch draws them (uniform, a sixth
    of that variance at equal fans); heads as torch draws a linear layer.

    Raises:
        ValueError: a head is asked for at a depth that is not there.
    """
    heads = (architecture.depth,) if heads is None else heads
    if architecture.made_by.draws_itself:
        with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator, which is then as it was
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            network = _made(architecture, heads=heads)
        drawn = list(network.heads.values())  # what stands in their tails came with its weights
    else:
        network = empty(architecture, heads=heads)
        drawn = list(network.modules())
    for module in drawn:
        draw(module, generator, as_torch=as_torch)
    return network


class _Undrawn(TorchFunctionMode):
    """Skip torch's own initialisation, which would draw from its global generator."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def empty(architecture: Architecture, *, heads: Iterable[int], device: str = "cpu") -> DepthNetwork:
    """Allocate a network whose weights are still to be filled in; on the device `meta` there are only shapes.

    Networks that draw themselves have their first weights, and are on the CPU whatever the device: they may not know `meta`.
    """
    if architecture.made_by.draws_itself and not (device == "meta" and architecture.made_by.knows_meta):
        with torch.random.fork_rng(devices=[]):
            return _made(architecture, heads=heads)
    # Not made on `meta` and moved: the first such move in a process imports 480 modules of torch, and takes half a second.
    with torch.device(device), _Undrawn():
        return _made(architecture, heads=heads)


def _made(architecture: Architecture, *, heads: Iterable[int]) -> DepthNetwork:
    made_by = architecture.made_by
    if architecture.family in MAKERS:
        parts = MAKERS[architecture.family](architecture)
    else:
        assert isinstance(made_by, (OwnFamily, Registered, Outside)), "any other family has a maker"
        parts = made_by.parts(architecture)
    widths = parts.widths or widths_of(parts.stem, parts.blocks, in_channels=architecture.in_channels)
    return DepthNetwork(
        parts.stem,
        parts.blocks,
        n_classes=architecture.n_classes,
        heads=heads,
        architecture=architecture,
        widths=widths,
        tails=parts.tails,
    )


@torch.no_grad()
def draw(module: nn.Module, generator: torch.Generator, *, as_torch: bool = False) -> None:
    """Give one layer's own tensors their first values; containers and layers without tensors are left as they are.

    Raises:
        ValueError: it is a layer whose first values are not known here.
    """
    if isinstance(module, nn.Conv2d):
        fan_in = module.weight[0].numel()
        if as_torch:
            module.weight.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
        else:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    elif isinstance(module, nn.Linear):
        fan_in = module.in_features
        module.weight.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()  # gamma 1, beta 0, running mean 0 and variance 1: nothing is drawn
        return
    elif any(True for _ in module.parameters(recurse=False)):
        raise ValueError(f"no rule draws the first weights of a {type(module).__name__}; let its family draw itself")
    else:
        return
    if module.bias is not None:
        module.bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)


@torch.no_grad()
def widths_of(
    stem: nn.Module,
    blocks: Sequence[nn.Module],
    *,
    in_channels: int,
    image_shape: tuple[int, int, int] | None = None,
    tails: Sequence[nn.Module | None] | None = None,
) -> list[int]:
    """Count the features that a head reads behind each block: by the blocks' `out_channels`, else by a forward pass of an empty image.

    Raises:
        ValueError: the pass fails.
    """
    named = [getattr(block, "out_channels", None) for block in blocks]
    if all(isinstance(width, int) for width in named) and tails is None:
        return named  # type: ignore[return-value]
    sizes = [image_shape] if image_shape is not None else [(in_channels, size, size) for size in TRIED_SIZES]
    tails = [None] * len(blocks) if tails is None else tails
    modules = nn.ModuleList([stem, *blocks, *(tail for tail in tails if tail is not None)])
    was_training = [module.training for module in modules.modules()]
    modules.eval()
    why: Exception | None = None
    try:
        for size in sizes:
            try:
                with torch.random.fork_rng(devices=[]):  # modules may draw also while they are evaluated
                    return _passed(stem, blocks, tails, torch.zeros(1, *size, device=next(modules.parameters()).device))
            except (RuntimeError, ValueError) as error:
                why = error
    finally:
        for module, training in zip(modules.modules(), was_training, strict=True):
            module.training = training
    asked = f"an image of {sizes[0]}" if image_shape is not None else f"images of {', '.join(str(size[1]) for size in sizes)} pixels a side"
    way_out = "look at the blocks" if image_shape is not None else "say image_shape=(C, H, W), or give each block its out_channels"
    raise ValueError(f"blocks: {asked} do not pass through stem and blocks ({why}); {way_out}") from None


def _passed(stem: nn.Module, blocks: Sequence[nn.Module], tails: Sequence[nn.Module | None], x: Tensor) -> list[int]:
    widths, x = [], stem(x)
    for block, tail in zip(blocks, tails, strict=True):
        x = block(x)
        widths.append(int((pooled(x) if tail is None else tail(x)).shape[1]))
    return widths


def _in_channels(stem: nn.Module) -> int:
    """Return the channels of the images that a stem reads: those of its first layer with a weight.

    Raises:
        ValueError: it has none.
    """
    for module in stem.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError("stem: it has no convolution that says how many channels an image has; say image_shape=(C, H, W)")


def _describe(parts: Parts, *, in_channels: int, n_classes: int) -> OwnArchitecture:
    depth = len(parts.blocks)
    return OwnArchitecture(
        family=OWN,
        name=type(parts.blocks[0]).__name__,
        arguments={},
        in_channels=in_channels,
        n_classes=n_classes,
        n_blocks=depth,
        depth=depth,
        parts=parts,
    )


def _checked(heads: Iterable[int], depth: int) -> list[int]:
    depths = sorted(set(heads))
    if not depths or depths[0] < 1 or depths[-1] > depth:
        raise ValueError(f"heads: expected depths from 1 to {depth}, at least one; got {depths}")
    return depths
