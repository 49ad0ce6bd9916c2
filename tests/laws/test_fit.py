"""Every method's training is one task of one loop: broken off within an epoch, at any step, it goes on to the same bytes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from laws.search_data import open_data, prepare_digits, small_config
from odn.config import Config, changed
from odn.models.cost import part_macs
from odn.models.network import build
from odn.pruning.fitting import Pruned, train_pruned
from odn.routing.fitting import gate_costs
from odn.routing.gate_task import Gated, train_gates
from odn.searching.data import SearchData
from odn.searching.growth import Cooled, Grown, cool_down, grown, train_depth
from odn.searching.published import Published, Warm, train_published, untrained, warm_up
from odn.supernet.fitting import Supernet, train_supernet, untrained_supernet
from odn.training import checkpoint as checkpoints
from odn.training import fit as fitting

Start = Callable[[SearchData, Config, Path | None], Iterator[object]]

CONFIG: dict[str, Any] = {
    "data": {"max_images": 120},
    "model": {"width": 1 / 16},
    "train": {"batch_size": 16, "precision": "fp32"},
    "growth": {"min_epochs": 2, "max_epochs": 2, "patience": 1},
    "paper": {"warmup_epochs": 2, "patience": 2, "max_epochs": 2},
    "supernet": {"epochs": 3, "widths": [0.5, 1.0], "shrink": 0.3},
    "prune": {"budget": 0.3, "epochs": 4, "gate_lr": 0.5},
    "route": {"epochs": 2},
}
PHOTOGRAPHS = {"augment.crop": 0.5, "augment.jitter": 0.2, "augment.trivial": True, "augment.mixup": 0.2, "augment.cutmix": 1.0}


def _gates(data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[object]:
    teacher = build(untrained_supernet(data, config).architecture, torch.Generator().manual_seed(0), heads=(3,))
    macs = part_macs(teacher, data.manifest.height, data.manifest.width)
    costs = gate_costs(macs, depth=3, gates=[0, 0, 0])
    return train_gates(teacher, costs=costs, budget=0.6 * costs.full, data=data, config=config, checkpoint=checkpoint)


def _pruned(data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[object]:
    return train_pruned(data=data, config=config, depth=8, checkpoint=checkpoint)


def _cooled(data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[object]:
    state = grown(None, data=data, config=config, depth=2)
    return cool_down(state, data=data, config=config, name="finish", epochs=2, checkpoint=checkpoint)


def _published(data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[object]:
    return train_published(untrained(data, config), data=data, config=config, depth=1, is_first=True, checkpoint=checkpoint)


METHODS: dict[str, Start] = {
    "a depth": lambda data, config, checkpoint: train_depth(None, data=data, config=config, depth=1, checkpoint=checkpoint),
    "a cooldown": _cooled,
    "the published warm-up": lambda data, config, checkpoint: warm_up(data=data, config=config, checkpoint=checkpoint),
    "a published depth": _published,
    "a supernet": lambda data, config, checkpoint: train_supernet(data=data, config=config, checkpoint=checkpoint),
    "pruning": _pruned,
    "routing gates": _gates,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SearchData:
    """Open a few digits."""
    config = small_config(**CONFIG)
    return open_data(config, prepare_digits(config, tmp_path_factory.mktemp("digits")))


def outcome(last: object) -> tuple[dict[str, torch.Tensor], Any]:
    """Return the weights that a training left, and its rows."""
    match last:
        case Grown() | Pruned():
            network: nn.Module = last.state.average
        case Cooled() | Warm() | Published() | Supernet() | Gated():
            network = last.network
    return network.state_dict(), getattr(last, "rows", None)


@pytest.mark.parametrize(("method", "augment"), [*((method, {}) for method in METHODS), (next(iter(METHODS)), PHOTOGRAPHS)])
def test_a_training_broken_off_after_every_step_ends_with_the_same_bytes(
    method: str, augment: dict[str, Any], data: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while each checkpoint is written, one a step, and begun anew: rows and weights are those of a quiet run."""
    config, start = changed(small_config(**CONFIG), augment), METHODS[method]
    *_, last = start(data, config, None)
    quiet_tensors, quiet_rows = outcome(last)
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    kept, steps = tmp_path / "kept.safetensors", []

    class Killed(BaseException):
        """What a kill is to the code that it hits."""

    def save_and_die(path: Path, checkpoint: checkpoints.Checkpoint[Any]) -> None:
        checkpoints.save_checkpoint(path, checkpoint)
        steps.append(checkpoint.record["step"])
        raise Killed

    monkeypatch.setattr(fitting, "save_checkpoint", save_and_die)
    while True:
        try:
            *_, last = start(data, config, kept)
            break
        except Killed:
            continue
    assert any(step > 0 for step in steps), "it must have been broken off within an epoch"
    tensors, rows = outcome(last)
    assert rows == quiet_rows
    assert tensors.keys() == quiet_tensors.keys()
    assert all(torch.equal(tensors[name], quiet_tensors[name]) for name in tensors)
