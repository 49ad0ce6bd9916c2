"""Train sub-networks inside one network: run it with only the first inner channels of each block, and put the important ones first.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.models.cutting import inner_channels, layers_of
from odn.models.network import DepthNetwork, block_of
from odn.models.resnet import ResidualBlock


def forward_narrowed(network: DepthNetwork, x: Tensor, depths: Iterable[int], widths: Sequence[float]) -> dict[int, Tensor]:
    """Return the logits (N, K) at each of `depths` as `cutting.narrowed` would give them while training, from one shared forward pass.

    `x` is (N, C, H, W), `widths` a fraction a group. BatchNorm takes the statistics of the batch. Where every width is 1 this is
    the network's own forward pass.
    """
    if all(width == 1 for width in widths):
        return network.forward_depths(x, depths)
    depths = tuple(depths)
    inner, logits = inner_channels(network.architecture, widths), {}
    x = network.stem(x)
    for number in range(1, max(depths) + 1):
        x = _narrow_block(block_of(network, number), x, inner[number - 1])
        if number in depths:
            logits[number] = network.heads[str(number)](x.mean(dim=(2, 3)))
    return {depth: logits[depth] for depth in depths}


def _narrow_block(block: ResidualBlock, x: Tensor, inner: tuple[int, ...]) -> Tensor:
    layers, y, n_in = layers_of(block), x, block.in_channels
    for number, ((conv, norm), n_out) in enumerate(zip(layers, (*inner, block.out_channels), strict=True), start=1):
        y = F.conv2d(y, conv.weight[:n_out, :n_in], stride=conv.stride, padding=conv.padding)
        y = F.batch_norm(y, None, None, norm.weight[:n_out], norm.bias[:n_out], training=True, eps=norm.eps)
        y = F.relu(y) if number < len(layers) else y
        n_in = n_out
    return F.relu(y + block.shortcut(x))


@torch.no_grad()
def sort_channels(states: Sequence[Mapping[str, Tensor]], *, like: DepthNetwork) -> None:
    """Put the inner channels of every block in descending order of importance in `like`, in place, in states by parameter name.

    What the network computes stays. The importance of a channel is the L1 norm of the kernels that read it.
    Source: Once-for-All, arXiv 1908.09791, section 3.3, elastic width.
    """
    orders = {
        (number, layer): reader.weight.abs().sum(dim=(0, 2, 3)).argsort(descending=True, stable=True)
        for number in range(1, like.depth + 1)
        for layer, (reader, _) in enumerate(layers_of(block_of(like, number))[1:], start=1)
    }
    for (number, layer), order in orders.items():
        for state in states:
            for name, axis in ((f"conv{layer}.weight", 0), (f"bn{layer}.weight", 0), (f"bn{layer}.bias", 0),
                               (f"bn{layer}.running_mean", 0), (f"bn{layer}.running_var", 0), (f"conv{layer + 1}.weight", 1)):  # fmt: skip
                tensor = state.get(f"blocks.{number - 1}.{name}")
                if tensor is not None:
                    tensor.copy_(tensor.index_select(axis, order))
