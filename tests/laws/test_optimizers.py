"""Laws of the steps that are written out beside torch's: the bytes are those of torch.optim."""

import copy

import torch
import torch.nn.functional as F

from laws.search_data import small_config
from odn.models.network import build
from odn.models.resnet_shapes import configured
from odn.searching.published_task import PlainSgd
from odn.training.adam import Adam
from odn.training.device import Machine

SHAPES = {"gates.weight": (4, 8), "gates.bias": (4,), "network.stem": (8, 1, 3, 3), "network.head": (3, 8), "frozen.head": (3, 8)}
N_STEPS = 50


def test_adam_gives_the_bytes_of_torchs() -> None:
    """Two groups at their own rates, a rate that falls, steps in which a parameter has no gradient; the others stay."""
    draws = torch.Generator().manual_seed(0)
    ours = {name: torch.nn.Parameter(torch.randn(shape, generator=draws)) for name, shape in SHAPES.items()}
    theirs = copy.deepcopy(ours)
    adam, groups = Adam(ours, groups=(("gates.", 0.01), ("network.", 0.001))), {"gates.": 0.01, "network.": 0.001}
    reference = torch.optim.Adam([{"params": [p for name, p in theirs.items() if name.startswith(one)]} for one in groups], foreach=True)
    for step in range(N_STEPS):
        for i, name in enumerate(SHAPES):
            gradient = torch.randn(SHAPES[name], generator=draws) * 10.0 ** (-2 * i) * (step % 5 != i)
            theirs[name].grad, ours[name].grad = gradient, gradient.clone() if step % 5 != i else None
        for group, rate in zip(reference.param_groups, groups.values(), strict=True):
            group["lr"] = (1 - step / N_STEPS) * rate
        adam.step(rate=1 - step / N_STEPS)
        reference.step()
    assert all(torch.equal(ours[name], theirs[name]) for name in SHAPES)


def test_the_published_steps_give_the_bytes_of_torchs_sgd() -> None:
    """With momentum, and with decay of every parameter."""
    config = small_config()
    ours = build(configured(config, in_channels=1, n_classes=10, depth=2), torch.Generator().manual_seed(0)).train()
    theirs = copy.deepcopy(ours)
    sgd = PlainSgd(ours, depths=(2,), config=config, machine=Machine(torch.device("cpu"), "fp32"))
    train, draws = config.train, torch.Generator().manual_seed(1)
    reference = torch.optim.SGD(theirs.parameters(), momentum=train.momentum, weight_decay=train.weight_decay, foreach=True)
    for step in range(5):
        images, labels = torch.randn(16, 1, 8, 8, generator=draws), torch.randint(10, (16,), generator=draws)
        reference.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        sgd.scale.set(-rate)
        sgd.learn(images, labels)
        sgd.take()
        reference.zero_grad()
        F.cross_entropy(theirs(images, 2), labels, label_smoothing=train.label_smoothing).backward()
        reference.step()
    assert all(torch.equal(one, other) for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
