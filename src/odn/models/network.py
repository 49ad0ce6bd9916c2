"""The network whose depth is searched: a stem, one flat list of blocks, and a head for each depth that needs one.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from odn.errors import DataError, MissingInputError
from odn.files import write_bytes, write_json
from odn.models.architecture import Architecture
from odn.models.resnet import ResidualBlock
from odn.models.zoo import BACKBONES
from odn.records import read_record


class DepthNetwork(nn.Module):
    """Classify images at any depth that has a head. Make one with `build`: this constructor draws from torch's global generator.

    Attributes: `stem`; `blocks`, where block number d (from 1) is `blocks[d - 1]`; `heads`, linear layers keyed by str(depth),
    which read the average of the map over H and W.
    """

    def __init__(self, architecture: Architecture, *, heads: Iterable[int]) -> None:
        super().__init__()
        backbone = BACKBONES[architecture.backbone]
        blocks = backbone.blocks(architecture)
        self.architecture = architecture
        self.stem = backbone.stem(architecture)
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleDict(
            {str(depth): nn.Linear(blocks[depth - 1].out_channels, architecture.n_classes) for depth in _checked(heads, architecture.depth)}
        )

    @property
    def depth(self) -> int:
        """Count the blocks that are here."""
        return len(self.blocks)

    @property
    def head_depths(self) -> tuple[int, ...]:
        """List the depths that have a head, ascending."""
        return tuple(sorted(int(name) for name in self.heads))

    def forward(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W) at `depth`, or at all the blocks that are here."""
        depth = self.depth if depth is None else depth
        return self.forward_depths(x, (depth,))[depth]

    def forward_depths(self, x: Tensor, depths: Iterable[int]) -> dict[int, Tensor]:
        """Return the logits (N, K) at each of `depths` from one shared forward pass.

        Raises:
            ValueError: a depth has no head here.
        """
        depths = tuple(depths)
        for depth in depths:
            if str(depth) not in self.heads:
                raise ValueError(f"no head at depth {depth}; this network has {self.depth} blocks and heads at {list(self.head_depths)}")
        logits: dict[int, Tensor] = {}
        x = self.stem(x)
        for number, block in zip(range(1, max(depths, default=0) + 1), self.blocks, strict=False):
            x = block(x)  # (N, C, H, W)
            if number in depths:
                logits[number] = self.heads[str(number)](x.mean(dim=(2, 3)))
        return {depth: logits[depth] for depth in depths}

    def truncated(self, depth: int) -> "DepthNetwork":
        """Return a new network that holds a copy of the stem, the first `depth` blocks and their head, and nothing else.

        Raises:
            ValueError: there is no head at `depth`.
        """
        if str(depth) not in self.heads:
            raise ValueError(f"cannot truncate at depth {depth}: there are heads at {list(self.head_depths)} only")
        kept = empty(self.architecture.at(depth), heads=(depth,), device="meta")
        mine = self.state_dict()
        kept.load_state_dict({name: mine[name].clone() for name in kept.state_dict()}, assign=True)
        return kept.train(self.training)


def build(
    architecture: Architecture, generator: torch.Generator, *, heads: Iterable[int] | None = None, as_torch: bool = False
) -> DepthNetwork:
    """Make a network on the CPU with fresh weights, drawn from `generator` (a CPU one) in the order stem, blocks, heads.

    Only blocks 1..depth exist, and only the heads asked for: the one at `architecture.depth` unless said otherwise.
    torch's global generator is left untouched.
    Source: convolutions as in arXiv 1502.01852, section 2.2 (normal, fan out), or with `as_torch` as torch draws them (uniform, a sixth
    of that variance at equal fans); heads as torch draws a linear layer.

    Raises:
        ValueError: a head is asked for at a depth that is not there.
    """
    network = empty(architecture, heads=(architecture.depth,) if heads is None else heads)
    for module in network.modules():
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
    """Allocate a network without giving its tensors values; on the device `meta` there are only shapes."""
    # Not made on `meta` and moved: the first such move in a process imports 480 modules of torch, and takes half a second.
    with torch.device(device), _Undrawn():
        return DepthNetwork(architecture, heads=heads)


@torch.no_grad()
def draw(module: nn.Module, generator: torch.Generator, *, as_torch: bool = False) -> None:
    """Give one layer's own tensors their initial values; containers and layers without tensors are left as they are."""
    if isinstance(module, nn.Conv2d) and as_torch:
        bound = 1 / math.sqrt(module.weight[0].numel())
        module.weight.uniform_(-bound, bound, generator=generator)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()  # gamma 1, beta 0, running mean 0 and variance 1: nothing is drawn
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.in_features)
        module.weight.uniform_(-bound, bound, generator=generator)
        module.bias.uniform_(-bound, bound, generator=generator)


def save_network(network: DepthNetwork, folder: Path) -> None:
    """Write `architecture.json` and `weights.safetensors`; equal networks give equal bytes."""
    write_json(folder / "architecture.json", network.architecture.to_dict())
    save_weights(network, folder / "weights.safetensors")


def save_weights(network: DepthNetwork, path: Path) -> None:
    """Write every parameter and buffer as safetensors."""
    write_bytes(path, _packed(network))


def weights_digest(network: DepthNetwork) -> str:
    """Return the hex SHA-256 of what `save_weights` writes."""
    return hashlib.sha256(_packed(network)).hexdigest()


def _packed(network: DepthNetwork) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors)


def load_network(folder: Path) -> DepthNetwork:
    """Read what `save_network` wrote, onto the CPU, in eval mode, with the heads that the weights have.

    The description is held to the weights before anything is allocated for it.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or the weights are not those of the architecture.
    """
    path, weights = folder / "architecture.json", folder / "weights.safetensors"
    architecture = read_record(Architecture, path, made_by="dvc repro")
    tensors = _read_weights(weights)
    try:
        network = described(architecture, tensors)
    except ValueError as error:
        raise DataError(f"{weights} is not for the network of {path}: {error}; delete both and run 'dvc repro'") from None
    _fill(network, tensors, weights)
    return network.eval()


def described(architecture: Architecture, tensors: Mapping[str, Tensor]) -> DepthNetwork:
    """Return the network of these weights, of shapes alone, with the heads that they have: it takes no memory, whatever it is.

    Raises:
        ValueError: there is no such network.
    """
    heads = [int(found[1]) for name in tensors if (found := re.fullmatch(r"heads\.(\d{1,4})\.weight", name))]
    return empty(architecture, heads=heads, device="meta")


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Say which tensor is not there, or not of the shape and type that is wanted, or not wanted; None where all are right."""
    for name in sorted(wanted.keys() | found.keys()):
        asked, there = (f"{tuple(t[name].shape)} {t[name].dtype}" if name in t else "none" for t in (wanted, found))
        if asked != there:
            return f"for {name} it holds {there} where {asked} is needed"
    return None


def load_weights(network: DepthNetwork, path: Path) -> None:
    """Read what `save_weights` wrote into a network of the same architecture and heads.

    Raises:
        MissingInputError: the file is not there.
        DataError: it is damaged, or holds other tensors than the network.
    """
    _fill(network, _read_weights(path), path)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run 'dvc repro' to train the network first")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}; delete it and run 'dvc repro'") from None


def _fill(network: DepthNetwork, tensors: dict[str, Tensor], path: Path) -> None:
    wrong = misfit(network.state_dict(), tensors)
    if wrong is not None:
        raise DataError(f"{path} does not fit its architecture: {wrong}; delete it and run 'dvc repro'")
    if next(network.parameters()).is_meta:  # a copy: tensors that are read may be a view of the file
        network.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    else:
        network.load_state_dict(tensors)


def _checked(heads: Iterable[int], depth: int) -> list[int]:
    depths = sorted(set(heads))
    if not depths or depths[0] < 1 or depths[-1] > depth:
        raise ValueError(f"heads: expected depths from 1 to {depth}, at least one; got {depths}")
    return depths


def block_of(network: DepthNetwork, number: int) -> ResidualBlock:
    """Return block `number`, counted from 1."""
    block = network.blocks[number - 1]
    assert isinstance(block, ResidualBlock)
    return block
