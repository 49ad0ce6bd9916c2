"""Cut a network where its gates are closed: blocks are taken out here, channels by the dependency graph of Torch-Pruning.

Source: Fang et al. (DepGraph), arXiv 2301.12900; the package torch-pruning, imported here alone.
"""

import copy

import torch
from torch import Tensor, nn

from odn.models.architecture import Architecture, Cut, CutBlock
from odn.models.gates import Gates
from odn.models.network import DepthNetwork, block_of, empty
from odn.models.resnet import BlockShape, ResidualBlock, ShortcutBlock


def cut(network: DepthNetwork, gates: Gates, open_: Tensor, *, height: int, width: int) -> DepthNetwork:
    """Return what is left of a network whose gates are open where `open_` (G,) is 1: plain weights, and `Architecture.cut`.

    In eval mode it gives the logits of the gated network, to rounding.
    """
    device = next(network.parameters()).device
    working = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    example = torch.zeros(1, network.architecture.in_channels, height, width)
    with torch.enable_grad():  # the graph is traced along the gradients
        _cut_channels(working, gates, open_, example)
    numbers = _cut_blocks(working, gates, open_)
    blocks = [block_of(working, place + 1) for place in range(len(working.blocks))]
    stem = working.stem.get_submodule("conv")
    assert isinstance(stem, nn.Conv2d)
    left, out = [], stem.out_channels
    for number, block in zip(numbers, blocks, strict=True):
        widths = [conv.out_channels for conv in block.children() if isinstance(conv, nn.Conv2d)]
        around = block.shortcut
        out = around.get_submodule("conv").weight.shape[0] if isinstance(around, nn.Sequential) else out  # type: ignore[union-attr]
        left.append(CutBlock(number=number, inner=tuple(widths[:-1]), out=out))
    architecture = _described(network.architecture, Cut(stem=stem.out_channels, blocks=tuple(left)))
    return _holding(architecture, working, device=device).train(network.training)


def _described(whole: Architecture, cut: Cut) -> Architecture:
    values = {name: value for name, value in whole.to_dict().items() if name not in ("depth", "cut")}
    return Architecture(**values, depth=len(cut.blocks), cut=cut)


def _cut_channels(network: DepthNetwork, gates: Gates, open_: Tensor, example: Tensor) -> None:
    """Remove the closed channels of each stream and of each block, with everything that reads or writes them."""
    import torch_pruning  # type: ignore[import-untyped]  # shipped without types

    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
    done: set[int] = set()
    for conv in gates.convs:
        if conv.writes.start in done:  # a stream is written by several, and cut once
            continue
        done.add(conv.writes.start)
        closed = (open_[conv.writes] == 0).nonzero().flatten().tolist()
        if closed:
            layer = network.get_submodule(conv.name)
            graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, idxs=closed).prune()


def _cut_blocks(network: DepthNetwork, gates: Gates, open_: Tensor) -> list[int]:
    """Take out the closed blocks, leaving the shortcut of those that project; return the numbers of the blocks that are left."""
    kept: list[tuple[int, ResidualBlock]] = []
    for number, (gate, projects) in enumerate(zip(gates.blocks, gates.projects, strict=True), start=1):
        block = block_of(network, number)
        if open_[gate]:
            kept.append((number, block))
        elif projects:
            kept.append((number, _only_shortcut(block)))
    head = network.heads[str(network.depth)]
    network.blocks = nn.ModuleList(block for _, block in kept)
    network.heads = nn.ModuleDict({str(len(kept)): head})
    return [number for number, _ in kept]


def _only_shortcut(block: ResidualBlock) -> ShortcutBlock:
    shape = BlockShape(in_channels=1, inner=(), out_channels=1, stride=block.stride, shortcut="conv", projects=True)
    left = ShortcutBlock(shape)
    left.shortcut = block.shortcut
    return left


def _holding(architecture: Architecture, working: DepthNetwork, *, device: torch.device) -> DepthNetwork:
    """Return a network of the architecture with the weights of the one that was worked on."""
    left = empty(architecture, heads=(architecture.depth,))
    left.load_state_dict({name: tensor.detach() for name, tensor in working.state_dict().items()})
    return left.to(device)
