"""How fast ODN trains, in one process beside two other loops: `python -m benchmarks.throughput`.

- ours: `fit` as the product runs it, from augmentation to the checkpoint after the epoch (here in the system's temporary folder).
- ours with `--bytes`: an epoch of a rung of that size, of the looks at val as much as comes to one of `climb.epochs`.
- bare: the least that trains the same network: normalised floats in memory, random order, cross-entropy, torch.optim.SGD.
- bare, compiled: the same, its forward and backward pass compiled by torch.compile, without the time that this takes; with `--bytes` alone.
- C++: the same, all of it in compiled C++, with `--bytes` and a C++ compiler alone (`peers/compiled_loop.cpp`).
- naive: the usual loop: DataLoader over PIL and torchvision transforms, fp32, loss and accuracy fetched every step.

A round runs one epoch of each on a fresh network, and begins with another variant each time, so that what disturbs the machine hits all
alike. Ratios are taken within a round. ours runs under the repeatable arithmetic of `choose_machine`, the others under torch's defaults.
With `--images` val shrinks in proportion, but BatchNorm's re-estimation still takes up to 2,048 images: its share comes out too large.
"""

import argparse
import functools
import platform
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.compiled_loop import can_train, compiled_loop
from benchmarks.peers.usual_loop import naive, usual_sgd
from odn.config import Config, load_config, make_config
from odn.data.batches import Images, n_steps, training_batches
from odn.data.dataset import Split, read_manifest, read_split
from odn.errors import ConfigError, OdnError
from odn.files import write_json
from odn.models.architecture import Architecture
from odn.models.cost import cost
from odn.models.ladder import fitting
from odn.models.network import build
from odn.searching.data import SearchData, backbone_of, costs_at, search_data
from odn.searching.growth import grown
from odn.sections import AugmentConfig
from odn.training.checkpoint import Checkpoint, save_checkpoint
from odn.training.depth_task import DepthTask, Phase
from odn.training.device import choose_machine, processor_name
from odn.training.evaluation import evaluate, reestimate_batchnorm
from odn.training.fit import fit
from odn.training.optim import Updates
from odn.training.seed import generator
from odn.training.state import TrainState

PARAMS = Path(__file__).parent.parent / "params.yaml"  # gives every setting that no option names
WARMUP_STEPS = 4  # of each variant, before the first round
READING = ("averaging of weights", "BatchNorm re-estimation", "evaluation on val")  # what an epoch needs for its evaluation on val
PARTS = (*READING, "the three together", "batches and augmentation", "checkpoint")
START_UP = {"python": ["-c", ""], "import torch": ["-c", "import torch"], "import odn.cli": ["-c", "import odn.cli"]}
START_UP["odn --help"] = ["-m", "odn", "--help"]


Table = dict[str, dict[str, float]]  # {row: {column: number}}


@dataclass(frozen=True)
class Bench:
    """Hold what every variant trains, and on what."""

    config: Config
    data: SearchData
    split: Split  # train, as it is on disk
    floats: Tensor  # train (N, C, H, W) float32, normalised, channels last, on the device
    rung: Architecture | None  # what is trained, where it is not the first depth of the schedule

    @property
    def steps(self) -> int:
        """Count the steps of an epoch."""
        return n_steps(self.data.train, batch_size=self.config.train.batch_size)

    def fresh(self) -> TrainState:
        """Build the network as ours trains it."""
        if self.rung is not None:
            return TrainState.fresh(self.data.machine.to_device(build(self.rung, generator(self.config.seed, "weights"))))
        return grown(None, data=self.data, config=self.config, depth=self.config.search.schedule[0])

    def seconds(self, work: Callable[[], object], *, repeatable: bool) -> float:
        """Return how long `work` takes, to the end of what it leaves on the GPU."""
        torch.use_deterministic_algorithms(repeatable)
        started = self._now()
        work()
        return self._now() - started

    def _now(self) -> float:
        if self.data.machine.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()


def open_bench(prepared: Path, *, config: Config, n_images: int | None, most_bytes: int | None) -> Bench:
    """Open train and val, or the first `n_images` of train and as large a part of val; `most_bytes` names a rung."""
    manifest = read_manifest(prepared / "dataset.json")
    backbone = backbone_of(config, manifest)
    size = {"height": manifest.height, "width": manifest.width}
    rung = fitting(backbone, {"bytes": most_bytes}, **size) if most_bytes is not None else None
    machine = choose_machine(config.train, macs=costs_at(rung or backbone, manifest).macs)
    train, val = read_split(prepared / "train"), read_split(prepared / "val")
    n = len(train) if n_images is None else n_images
    if not config.train.batch_size <= n <= len(train):
        raise ConfigError(f"--images: expected --batch-size {config.train.batch_size} to {len(train)}, all there are; got {n}")
    n_val = -(-n * len(val) // len(train))
    train, val = (Split(images=split.images[:m], labels=split.labels[:m]) for split, m in ((train, n), (val, n_val)))
    data = search_data(train, val, manifest=manifest, machine=machine, backbone=backbone)
    return Bench(config=config, data=data, split=train, floats=data.train.normalised(data.train.batch(slice(None))), rung=rung)


class Unread(DepthTask):
    """Train without a look at val, as most epochs of a rung do."""

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> None:
        """Look at nothing."""


def ours(bench: Bench, *, optimizer: Literal["muon", "sgd"]) -> float:
    """Return the seconds of an epoch of the product's own loop."""
    data, settings, state = bench.data, bench.config.train.model_copy(update={"optimizer": optimizer}), bench.fresh()
    phase = Phase(name="stable", depth=state.network.depth, epochs=1, seed=bench.config.seed, warmup_epochs=settings.warmup_epochs)
    with tempfile.TemporaryDirectory() as folder:
        kind = DepthTask if bench.rung is None else Unread
        task = kind(state, phase, settings=settings, machine=data.machine, steps=n_steps(data.train, batch_size=settings.batch_size))
        events = fit(
            task, train=data.train, val=data.val, settings=settings, augment=bench.config.augment,
            machine=data.machine, checkpoint=Path(folder) / "phase.safetensors",
        )  # fmt: skip
        return bench.seconds(lambda: deque(events, maxlen=0), repeatable=True)


def bare(bench: Bench, *, compiles: bool = False) -> float:
    """Return the seconds of an epoch of the least loop that there is."""
    machine, labels, size = bench.data.machine, bench.data.train.labels, bench.config.train.batch_size
    module = bench.fresh().network.train()
    network: Callable[[Tensor], Tensor] = torch.compile(module) if compiles else module
    optimizer = usual_sgd(module)
    if compiles:
        network(bench.floats[:size]).sum().backward()  # compiled here

    def epoch() -> None:
        order = torch.randperm(len(labels), device=labels.device)
        for index in order[: bench.steps * size].split(size):
            with machine.autocast():
                logits = network(bench.floats[index])
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels[index]).backward()
            optimizer.step()

    return bench.seconds(epoch, repeatable=False)


OURS = ("ours, sgd", "ours, muon")
VARIANTS: dict[str, Callable[[Bench], float]] = {
    "ours, sgd": functools.partial(ours, optimizer="sgd"),
    "ours, muon": functools.partial(ours, optimizer="muon"),
    "bare": bare,
    "bare, compiled": functools.partial(bare, compiles=True),
    "C++, sgd": functools.partial(compiled_loop, optimizer="sgd"),
    "C++, muon": functools.partial(compiled_loop, optimizer="muon"),
    "naive, 0 workers": functools.partial(naive, workers=0),
    "naive, 2 workers": functools.partial(naive, workers=2),
}


def parts(bench: Bench) -> dict[str, float]:
    """Return the seconds that parts of an epoch of ours take by themselves."""
    data, settings, state = bench.data, bench.config.train, bench.fresh()
    updates = Updates(state, train=settings, machine=data.machine, steps_per_epoch=bench.steps)
    batches = training_batches(data.train, batch_size=settings.batch_size, augment=bench.config.augment, generator=generator(0))

    def average() -> None:
        for _ in range(bench.steps):
            torch._foreach_lerp_(updates.averages, updates.parameters, 0.01)

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        works: dict[str, Callable[[], object]] = {
            "averaging of weights": average,
            "BatchNorm re-estimation": lambda: reestimate_batchnorm(
                state.average, data.train, augment=bench.config.augment, machine=data.machine
            ),
            "evaluation on val": lambda: evaluate(state.average, data.val, machine=data.machine),
            "batches and augmentation": lambda: deque(batches, maxlen=0),
            "checkpoint": lambda: save_checkpoint(Path(folder) / "phase.safetensors", Checkpoint(state.tensors(), {})),
        }
        seconds = {name: bench.seconds(work, repeatable=True) for name, work in works.items()}
    return seconds | {"the three together": sum(seconds[name] for name in READING)}


def start_up() -> dict[str, float]:
    """Return the seconds that fresh processes take."""
    taken = {}
    for name, arguments in START_UP.items():
        started = perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken[name] = perf_counter() - started
    return taken


def measured(bench: Bench, *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds, one a round, of each variant, of the parts of ours, and of start-up."""
    left_out = ({"bare, compiled"} if bench.rung is None else set()) | (set() if can_train(bench) else {"C++, sgd", "C++, muon"})
    variants = [name for name in VARIANTS if name not in left_out]
    seconds: dict[str, list[float]] = {name: [] for name in (*variants, *PARTS, *START_UP)}
    for turn in (number % len(variants) for number in range(rounds)):
        names = variants[turn:] + variants[:turn]
        taken = {name: VARIANTS[name](bench) for name in names}
        within = parts(bench)
        if bench.rung is not None:
            for name in OURS:
                taken[name] += looks(bench.config.climb.epochs) / bench.config.climb.epochs * within["the three together"]
        for name, value in (taken | within | start_up()).items():
            seconds[name].append(value)
    return seconds


def looks(epochs: int) -> int:
    """Count the epochs after which a rung is looked at: 1, 2, 4, 8, … and the last."""
    return epochs.bit_length() + (epochs & (epochs - 1) != 0)


def summary(seconds: dict[str, list[float]], *, n_images: int) -> dict[str, Table]:
    """Return what the rounds say together: a ratio is the median of the ratios within each round."""

    def ratio(above: list[float], below: str) -> float:
        return median(a / b for a, b in zip(above, seconds[below], strict=True))

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": median(values), "min": min(values), "max": max(values)}

    usual = [min(both) for both in zip(seconds["naive, 0 workers"], seconds["naive, 2 workers"], strict=True)]
    rates = {name: spread([n_images / value for value in seconds[name]]) for name in seconds if name in VARIANTS}
    ratios = {name: {"of bare": ratio(seconds["bare"], name), "of the better naive": ratio(usual, name)} for name in rates}
    shares = {name: {f"of {whole}": ratio(seconds[name], whole) for whole in OURS} for name in PARTS}
    return {
        "images/s": {name: rates[name] | ratios[name] for name in rates},
        "part of an epoch, s": {name: spread(seconds[name]) | shares[name] for name in PARTS},
        "fresh process, s": {name: spread(seconds[name]) for name in START_UP},
    }


def settings_of(bench: Bench, *, rounds: int) -> dict[str, str | int | float]:
    """Say what was measured, and on what."""
    config, machine, manifest = bench.config, bench.data.machine, bench.data.manifest
    return {
        "data": f"{manifest.source}, {manifest.channels}x{manifest.height}x{manifest.width}",
        "train images": len(bench.data.train), "val images": len(bench.data.val),
        "backbone": config.model.backbone, "width": config.model.width, "depth": config.search.schedule[0],
        **({"rung": f"{cost(bench.rung, manifest.height, manifest.width)}"} if bench.rung is not None else {}),
        "batch size": config.train.batch_size, "augmentation": ", ".join(f"{name} {value}" for name, value in config.augment),
        "precision": machine.precision, "device": machine.device.type, "processor": processor_name(machine.device),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(), "rounds": rounds,
        "goals": "ours ≥ 0.95 of bare, ≥ 3 of naive on a CPU and ≥ 5 on a GPU; the three together ≤ 0.1 of ours",
    }  # fmt: skip


def tables(settings: dict[str, str | int | float], result: dict[str, Table]) -> str:
    """Return Markdown."""
    lines = [f"- {name}: {value}" for name, value in settings.items()]
    for title, rows in result.items():
        columns = [title, *next(iter(rows.values()))]
        lines += ["", f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join([name, *(_shown(value) for value in row.values())])} |" for name, row in rows.items()]
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


class _Parser(argparse.ArgumentParser):
    """Refuse options in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m benchmarks.throughput", description="Measure how fast ODN trains, beside two other loops.")
    parser.add_argument("--prepared", type=Path, default=Path("work/prepared"), help="what 'odn prepare' wrote (default: %(default)s)")
    parser.add_argument("--backbone", default="resnet18", help="(default: %(default)s)")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies every channel count (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=2, help="blocks (default: %(default)s)")
    parser.add_argument("--bytes", type=int, help="at most, of a rung of the ladder that is trained instead")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, help="of train, an epoch (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the same numbers")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        raise ConfigError(f"--rounds: expected at least 1; got {options.rounds}")
    return options


def _config(options: argparse.Namespace) -> Config:
    settings = load_config(PARAMS).model_dump(mode="json")
    settings["model"] |= {"backbone": options.backbone, "width": options.width}
    settings["train"]["batch_size"] = options.batch_size
    settings["search"]["schedule"] = [options.depth]
    return make_config(settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 0, or 2 after one plain line on what is wrong."""
    try:
        options = _options(arguments)
        config = _config(options)
        bench = open_bench(options.prepared, config=config, n_images=options.images, most_bytes=options.bytes)
        few = min(WARMUP_STEPS * config.train.batch_size, len(bench.data.train))
        measured(open_bench(options.prepared, config=config, n_images=few, most_bytes=options.bytes), rounds=1)
        seconds = measured(bench, rounds=options.rounds)
        settings, result = settings_of(bench, rounds=options.rounds), summary(seconds, n_images=bench.steps * config.train.batch_size)
        print(tables(settings, result))
        if options.out:
            write_json(options.out, {"settings": settings, "result": result, "seconds": seconds})
    except (OdnError, OSError) as error:
        print(f"throughput: {'; '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
