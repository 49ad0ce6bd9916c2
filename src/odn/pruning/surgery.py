"""Cut a network where its gates are closed: blocks are taken out here, channels by the dependency graph of Torch-Pruning.

Source: Fang et al. (DepGraph), arXiv 2301.12900; the package torch-pruning, imported here alone.
"""

import copy

import torch
from torch import Tensor, nn

from odn.models.architecture import Architecture, Cut, CutBlock
from odn.models.network import DepthNetwork, empty
from odn.pruning.gates import Gates, prunable, prunable_family


def cut(network: DepthNetwork, gates: Gates, open_: Tensor, *, height: int, width: int) -> DepthNetwork:
    """Return what is left of a network whose gates are open where `open_` (G,) is 1: plain weights, described by what was cut.

    In eval mode it gives the logits of the gated network, to rounding.
    """
    device = next(network.parameters()).device
    working = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    example = torch.zeros(1, network.architecture.in_channels, height, width)
    with torch.enable_grad():  # the graph is traced along the gradients
        _cut_channels(working, gates, open_, example)
    numbers = _cut_blocks(working, gates, open_)
    architecture = prunable_family(network.architecture).with_cut(network.architecture, _what_is_left(working, numbers))
    return _holding(architecture, working, device=device).train(network.training)


def _what_is_left(network: DepthNetwork, numbers: list[int]) -> Cut:
    """Read off the channels of a network that was worked on; `numbers` says which of the backbone's blocks are there."""
    stem, blocks = prunable(network)

    def written(module: nn.Module, names: list[tuple[str, str]]) -> list[int]:
        return [int(module.get_parameter(f"{conv}.weight").shape[0]) for conv, _ in names]

    (out,) = first = written(network.stem, [stem.layer()])
    left = []
    for number, block, module in zip(numbers, blocks, network.blocks, strict=True):
        (out,) = written(module, block.shortcut_layers()) or (out,)
        left.append(CutBlock(number=number, inner=tuple(written(module, block.residual_layers()[:-1])), out=out))
    return Cut(stem=first[0], blocks=tuple(left))


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
    kept: list[tuple[int, nn.Module]] = []
    _, blocks = prunable(network)
    for number, (gate, block, module) in enumerate(zip(gates.blocks, blocks, list(network.blocks), strict=True), start=1):
        if open_[gate]:
            kept.append((number, module))
        elif not block.passes_on:
            kept.append((number, block.without_residual()))
    head = network.heads[str(network.depth)]
    network.blocks = nn.ModuleList(block for _, block in kept)
    network.heads = nn.ModuleDict({str(len(kept)): head})
    return [number for number, _ in kept]


def _holding(architecture: Architecture, working: DepthNetwork, *, device: torch.device) -> DepthNetwork:
    """Return a network of the architecture with the weights of the one that was worked on."""
    left = empty(architecture, heads=(architecture.depth,))
    left.load_state_dict({name: tensor.detach() for name, tensor in working.state_dict().items()})
    return left.to(device)
