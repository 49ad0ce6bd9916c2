"""odn as a library: search a network's depth on one's own data, certify what is found, save and load it.

Nothing global is changed: PyTorch's switches, generators and threads are as they were whenever control is with the caller.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from odn.config import Config, settings
from odn.data.batches import Images
from odn.data.own import Data
from odn.errors import ConfigError, DataError
from odn.files import new_folder
from odn.models.cost import cost_of
from odn.models.ladder import Spreadable
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import resnet_architecture
from odn.models.stored_networks import load_network, save_network
from odn.models.timing import forward_pass, timed
from odn.modes import MODES
from odn.searching.climb import SearchResult, SearchStep, conclude, expand
from odn.searching.data import costs_at, search_data
from odn.searching.statistics import wilson_interval
from odn.training.device import Machine, chosen, repeatable
from odn.training.evaluation import evaluate


@dataclass(frozen=True)
class Step:
    """Say what became of a depth. The last step of a search holds its result.

    `val_accuracy` is that of the network that was judged: annealed for a trial where the depth was promising, else averaged weights.
    """

    depth: int
    val_accuracy: float
    verdict: Literal["expand", "target_reached", "exhausted"]
    reason: str
    full_network_epochs: float  # that this depth cost: passes over train through the whole network
    result: SearchResult | None = None


@dataclass(frozen=True)
class Certificate:
    """Hold what a network gets right on a split, with its Wilson interval, and what it costs for one image on this machine."""

    accuracy: float
    interval: tuple[float, float]
    n: int
    n_params: int
    size_bytes: int
    macs: int
    latency_ms: float  # the least of many passes
    busy: bool  # the machine did something else meanwhile: the latency is too long

    def __str__(self) -> str:
        """Return one line."""
        low, high = self.interval
        time = f"{self.latency_ms:.2f} ms{' on a busy machine' if self.busy else ''}"
        return (
            f"{self.accuracy:.2%} of {self.n} images right ({low:.2%} to {high:.2%}); "
            f"{self.n_params:,} parameters, {self.size_bytes:,} bytes, {self.macs:,} MACs, {time}"
        )


def search(network: DepthNetwork, data: Data, *, target: float, changes: Mapping[str, Any] | None = None) -> Iterator[Step]:
    """Find the shallowest prefix of a network that reaches a target accuracy on val, yielding a step a depth.

    `network` is the whole one; it stays as it is. Every network is trained from scratch or from the depth before it: where the
    network is of modules of your own, a block sets off with the weights that it has there, or copies the block before it
    (`growth.init`). `changes` are settings by name, such as {"train.lr": 0.05, "search.mode": "grid", "search.schedule": [2, 4]}; what
    they are is in docs/configuration.md. The same network, data and settings give the same steps, to the byte.

    Settings and data are looked at at once; a depth is trained when its step is asked for.

    Raises:
        ConfigError: a setting is unknown or out of range; at the first step: the network cannot do what a method needs.
        DataError: the data is not for this network.
        TrainingError: a loss that is not finite.
    """
    config = _configured(network, target=target, changes=changes or {})
    _require_fit(network, data)
    with _passing(data.manifest.height, data.manifest.width):
        macs = costs_at(network.architecture, data.manifest).macs
    if config.train.processes > 1:
        raise ConfigError(f"train.processes: {config.train.processes}, but a search in memory has one; set it to 1, or run the stages")
    machine = chosen(config.train, macs=macs)
    return _repeatably(_steps(network, data, config, machine), machine)


def certify(model: DepthNetwork, split: Images, *, confidence: float = 0.95) -> Certificate:
    """Count what a network gets right on a split that nothing was chosen by, and what it costs; the network stays as it is.

    Raises:
        DataError: the images are not for this network.
    """
    _, channels, height, width = split.pixels.shape
    mine = model.architecture
    if channels != mine.in_channels:
        raise DataError(f"the images have {channels} channels, the network reads {mine.in_channels}")
    if int(split.labels.max()) >= mine.n_classes:
        raise DataError(f"the images have labels up to {int(split.labels.max())}, the network tells {mine.n_classes} classes, from 0")
    device = next(model.parameters()).device
    images = replace(split, labels=split.labels.to(device), mean=split.mean.to(device), std=split.std.to(device))
    machine = Machine(device=device, precision="fp32", threads=torch.get_num_threads())
    was_training = model.training
    try:
        with repeatable(machine):
            with _passing(height, width):
                cost = cost_of(model, height, width)
            seen = evaluate(model, images, machine=machine)
            call = forward_pass(model, batch_size=1, height=height, width=width, device=device.type)
            timing = timed({"": call})
    finally:
        model.train(was_training)
    return Certificate(
        accuracy=seen.accuracy,
        interval=wilson_interval(seen.n_correct, seen.n, confidence=confidence),
        n=seen.n,
        n_params=cost.n_params,
        size_bytes=cost.size_bytes,
        macs=cost.macs,
        latency_ms=timing.ms[""],
        busy=timing.busy,
    )


def save(model: DepthNetwork, folder: str | Path) -> None:
    """Write architecture.json and weights.safetensors, whole or not at all; no pickle.

    Raises:
        OutputError: the folder holds what odn did not write.
    """
    with new_folder(Path(folder)) as place:
        save_network(model, place)


def load(folder: str | Path, *, like: DepthNetwork | None = None) -> DepthNetwork:
    """Read what `save` wrote, in eval mode on the CPU.

    `like` is needed for a network of modules of your own, unless its family was registered: one made by the same code, which stays as it
    is.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or the weights are not those of the network.
    """
    return load_network(Path(folder), like=like)


def resnet(
    name: str = "resnet18",
    *,
    in_channels: int,
    n_classes: int,
    width: float = 1.0,
    stem: Literal["cifar", "imagenet"] = "cifar",
    shortcut: Literal["avgpool", "conv"] = "avgpool",
    seed: int = 0,
) -> DepthNetwork:
    """Make a whole residual network with first weights from the seed: resnet18 (8 blocks), resnet34 or resnet50 (16).

    `width` multiplies every channel count. Its search draws weights of its own, from `seed` of the settings.

    Raises:
        ValueError: there is no such network, or an argument is out of range.
    """
    architecture = resnet_architecture(name, in_channels=in_channels, n_classes=n_classes, width=width, stem=stem, shortcut=shortcut)
    return build(architecture, torch.Generator().manual_seed(seed))


def _configured(network: DepthNetwork, *, target: float, changes: Mapping[str, Any]) -> Config:
    taken = {name for name in changes if name.startswith("model.") or name in ("search.target", "data.source")}
    if taken:
        raise ConfigError(f"{', '.join(sorted(taken))}: said by the arguments network, data and target; leave it out")
    whole = network.architecture.whole
    family = whole.made_by
    mode = changes.get("search.mode", "climb" if isinstance(family, Spreadable) else "growth")
    ladder = changes.get("search.ladder", "spread" if isinstance(family, Spreadable) else "prefix")
    n_rungs = family.n_rungs(whole) if isinstance(family, Spreadable) else None
    n_steps = n_rungs if n_rungs is not None and ladder == "spread" and mode in MODES and MODES[mode].any_ladder else whole.n_blocks
    init = {"growth.init": "pretrained"} if hasattr(whole, "weights") else {}
    defaults = {**init, "search.mode": mode, "search.ladder": ladder, "search.schedule": list(range(1, n_steps + 1))}
    return settings({**defaults, **changes, "search.target": target}, n_blocks=whole.n_blocks, n_rungs=n_rungs)


def _require_fit(network: DepthNetwork, data: Data) -> None:
    mine, theirs = network.architecture, data.manifest
    if (mine.in_channels, mine.n_classes) != (theirs.channels, theirs.n_classes):
        raise DataError(
            f"the network is for {mine.in_channels} channels and {mine.n_classes} classes, "
            f"the data has {theirs.channels} and {theirs.n_classes}"
        )
    if network.depth != mine.n_blocks:
        raise DataError(f"the network holds {network.depth} of its {mine.n_blocks} blocks; search the whole one")


@contextlib.contextmanager
def _passing(height: int, width: int) -> Iterator[None]:
    """Say it plainly where images of this size do not pass through a network.

    Raises:
        DataError: they do not.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise DataError(f"images of {height} x {width} pixels do not pass through the network: {error}") from None


def _steps(network: DepthNetwork, data: Data, config: Config, machine: Machine) -> Iterator[Step]:
    train, val, backbone = data.splits["train"], data.splits["val"], network.architecture
    known = search_data(train, val, manifest=data.manifest, machine=machine, backbone=backbone)
    done: list[SearchStep] = []
    for step in expand(known, config):
        done.append(step)
        ended = step.verdict.verdict != "expand"
        yield Step(
            depth=step.step.depth,
            val_accuracy=step.verdict.val_accuracy,
            verdict=step.verdict.verdict,
            reason=step.verdict.reason,
            full_network_epochs=step.step.cost + step.verdict.cost,
            result=conclude(done, data=known, config=config) if ended else None,
        )


def _repeatably(steps: Iterator[Step], machine: Machine) -> Iterator[Step]:
    """Compute each step under PyTorch's repeatable switches; they are the caller's again while a step is theirs."""
    while True:
        with repeatable(machine):
            step = next(steps, None)
        if step is None:
            return
        yield step
