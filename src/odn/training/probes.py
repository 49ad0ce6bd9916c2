"""Read frozen features at every depth of a network once, and fit a linear probe to each: what each depth knows before anything is trained.

Source: linear probes, Alain and Bengio, arXiv 1610.01644; ridge regression on one-hot labels, its penalty by leave-one-out in closed form
(Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10).
N images, C features, K classes, R the rank of the features, L penalties.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from odn.data.batches import Images, plain_batches
from odn.models.network import DepthNetwork
from odn.training.device import Machine
from odn.training.evaluation import batch_size

PENALTIES = tuple(10.0**power for power in range(-3, 6))  # on standardised features
MOST_IMAGES = 20_000  # of train: more change a probe of a few hundred features little


@dataclass(frozen=True)
class Read:
    """Tell how many images of how many are read: for a display."""

    done: int
    of: int


@dataclass(frozen=True)
class Features:
    """Hold the features behind every block, (N, C) each, and the labels (N,)."""

    by_depth: tuple[Tensor, ...]
    labels: Tensor


@torch.no_grad()
def read_features(network: DepthNetwork, split: Images, *, machine: Machine, most: int = MOST_IMAGES) -> Iterator[Read | Features]:
    """Pass images through a network with a head at every depth, once; end with the `Features` that its heads would classify."""
    network.eval()
    index = torch.arange(0, len(split), -(-len(split) // most))
    parts: list[list[Tensor]] = [[] for _ in network.blocks]
    labels = []
    for images, found in plain_batches(split, batch_size=batch_size(split), index=index):
        with machine.autocast():
            x = network.stem(images)
            for number, block in enumerate(network.blocks, start=1):
                x = block(x)
                parts[number - 1].append(network.head(number).features(x).float().cpu())  # type: ignore[operator]
        labels.append(found.cpu())
        yield Read(done=sum(map(len, labels)), of=len(index))
    yield Features(tuple(torch.cat(part) for part in parts), torch.cat(labels))


def probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], *, n_classes: int) -> tuple[int, float]:
    """Fit a linear classifier to features of train (N, C) with labels (N,); return how many of val it gets right, and its penalty.

    The penalty is the one of `PENALTIES` whose squared leave-one-out error on train is the least: val chooses nothing.
    """
    (x, labels), (x_val, labels_val) = train, val
    mean, deviation = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x, x_val = ((one - mean).double() / deviation for one in (x, x_val))
    y = torch.nn.functional.one_hot(labels, n_classes).double()
    offset = y.mean(dim=0)
    u, s, v = torch.linalg.svd(x, full_matrices=False)  # (N, R), (R,), (R, C)
    projected = u.T @ (y - offset)  # (R, K)
    errors = []
    for penalty in PENALTIES:
        shrunk = s**2 / (s**2 + penalty)
        residual = y - offset - u @ (shrunk[:, None] * projected)
        leverage = (u**2 @ shrunk) + 1 / len(x)
        errors.append(float(((residual / (1 - leverage).clamp_min(1e-6)[:, None]) ** 2).mean()))
    best = PENALTIES[min(range(len(errors)), key=errors.__getitem__)]
    weight = v.T @ ((s / (s**2 + best))[:, None] * projected)  # (C, K)
    predicted = (x_val @ weight + offset).argmax(dim=1)
    return int((predicted == labels_val).sum()), best
