"""Train sub-networks inside one network: run it with only the first inner channels of each block, and put the important ones first.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from odn.models.abilities import Narrowable, able
from odn.models.network import DepthNetwork
from odn.supernet.cutting import narrowable

WAY_OUT = "set supernet.widths to [1.0]"


def forward_narrowed(network: DepthNetwork, x: Tensor, depths: Iterable[int], widths: Sequence[float]) -> dict[int, Tensor]:
    """Return the logits (N, K) at each of `depths` as `cutting.narrowed` would give them while training, from one shared forward pass.

    `x` is (N, C, H, W), `widths` a fraction a group. BatchNorm takes the statistics of the batch. Where every width is 1 this is
    the network's own forward pass.
    """
    if all(width == 1 for width in widths):
        return network.forward_depths(x, depths)
    depths = tuple(depths)
    blocks = able(list(network.blocks)[: max(depths)], Narrowable, asked_by="supernet.widths", way_out=WAY_OUT)
    inner, logits = narrowable(network.architecture).inner_channels(network.architecture, widths), {}
    x = network.stem(x)
    for number, block in enumerate(blocks, start=1):
        x = block.forward_narrowed(x, inner[number - 1])
        if number in depths:
            logits[number] = network.head(number)(x)
    return {depth: logits[depth] for depth in depths}


@torch.no_grad()
def sort_channels(states: Sequence[Mapping[str, Tensor]], *, like: DepthNetwork) -> None:
    """Put the inner channels of every block in descending order of importance in `like`, in place, in states by parameter name.

    What the network computes stays. The importance of a channel is the L1 norm of the kernels that read it.
    Source: Once-for-All, arXiv 1908.09791, section 3.3, elastic width.
    """
    for number, block in enumerate(able(list(like.blocks), Narrowable, asked_by="supernet.widths", way_out=WAY_OUT)):
        layers = block.residual_layers()
        for (writer, norm), (reader, _) in pairwise(layers):
            conv = like.blocks[number].get_submodule(reader)
            assert isinstance(conv, nn.Conv2d)
            order = conv.weight.abs().sum(dim=(0, 2, 3)).argsort(descending=True, stable=True)
            written = (f"{writer}.weight", f"{norm}.weight", f"{norm}.bias", f"{norm}.running_mean", f"{norm}.running_var")
            for name, axis in (*((name, 0) for name in written), (f"{reader}.weight", 1)):
                for state in states:
                    tensor = state.get(f"blocks.{number}.{name}")
                    if tensor is not None:
                        tensor.copy_(tensor.index_select(axis, order))
