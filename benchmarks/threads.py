"""How long a training step takes on 1, 2 … threads, by the size of the work: `python -m benchmarks.threads`.

A step is the product's own: a batch of random images, augmented, forward, backward, Muon's update, through the whole backbone. Numbers of
threads take turns, a step each, and the least time of each counts, as other work on the machine only ever delays. `work` are the MACs of a
batch, forward: what `train.threads: auto` decides by. Run it on an idle machine; `taskset -c 0,1` in front gives it two cores.
"""

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F

from odn.config import Config, load_config, make_config
from odn.cores import usable_cores
from odn.data.batches import training_batches
from odn.data.dataset import Manifest, Split
from odn.errors import OdnError
from odn.files import write_json
from odn.searching.data import backbone_of, costs_at, search_data
from odn.searching.growth import grown
from odn.training.device import WORK_OF_A_THREAD, choose_machine, processor_name
from odn.training.optim import Updates
from odn.training.seed import generator

PARAMS = Path(__file__).parent.parent / "params.yaml"  # gives every setting that no option names
N_CLASSES = 10
LEAST_STEPS = 5  # of each number of threads


def configured(*, width: float, batch_size: int, backbone: str) -> Config:
    """Return the repository's settings with another backbone and batch, on the processor."""
    settings = load_config(PARAMS).model_dump(mode="json")
    settings["model"] |= {"width": width, "backbone": backbone}
    settings["train"] |= {"batch_size": batch_size, "device": "cpu"}
    return make_config(settings)


def random_data(*, side: int, n: int) -> tuple[Split, Manifest]:
    """Return `n` grey images of random pixels, `side` pixels a side."""
    draws = np.random.Generator(np.random.PCG64(0))
    images = draws.integers(0, 256, (n, 1, side, side), np.uint8)
    manifest = Manifest(
        source="random", classes=tuple(map(str, range(N_CLASSES))), channels=1, height=side, width=side, mean=(0.5,), std=(0.3,),
        counts={}, sha256={},
    )  # fmt: skip
    return Split(images=images, labels=draws.integers(0, N_CLASSES, n)), manifest


def one_step(config: Config, *, side: int) -> tuple[Callable[[], object], int]:
    """Return a call that takes a step of training at full depth, and the MACs of a batch."""
    split, manifest = random_data(side=side, n=config.train.batch_size)
    backbone = backbone_of(config, manifest)
    macs = costs_at(backbone, manifest).macs
    data = search_data(split, split, manifest=manifest, machine=choose_machine(config.train, macs=macs), backbone=backbone)
    depth = config.search.schedule[-1]
    state = grown(None, data=data, config=config, depth=depth)
    state.network.train()
    updates = Updates(state, train=config.train, machine=data.machine, steps_per_epoch=1)

    def step() -> None:
        batches = training_batches(data.train, batch_size=config.train.batch_size, augment=config.augment, generator=generator(0))
        updates.announce(rate=0.01)
        for images, labels in batches:
            with data.machine.autocast():
                logits = state.network(images)
            F.cross_entropy(logits.float(), labels, label_smoothing=config.train.label_smoothing).backward()
            updates.take()

    return step, macs * config.train.batch_size


def least_ms(step: Callable[[], object], *, threads: Sequence[int], seconds: float) -> dict[int, float]:
    """Return the least milliseconds of a step by the number of threads."""
    taken: dict[int, list[float]] = {n: [] for n in threads}
    began = perf_counter()
    while len(taken[threads[-1]]) < LEAST_STEPS + 1 or perf_counter() - began < seconds:
        for n in threads:
            torch.set_num_threads(n)
            started = perf_counter()
            step()
            taken[n].append((perf_counter() - started) * 1000)
    return {n: min(times[1:]) for n, times in taken.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 0, or 2 after one plain line on what is wrong."""
    cores = usable_cores()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description="Time a training step by the number of threads.")
    parser.add_argument("--backbone", default="resnet18", help="(default: %(default)s)")
    parser.add_argument("--width", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1.0], help="(default: %(default)s)")
    parser.add_argument("--side", type=int, nargs="+", default=[8, 28], help="pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 128], help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, 2, cores}), help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each size of the work (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the same numbers")
    options = parser.parse_args(arguments)
    device = torch.device("cpu")
    print(f"- processor: {processor_name(device)}, {cores} cores\n- torch: {torch.__version__}, python: {platform.python_version()}")
    print(f"- `train.threads: auto` takes more than one thread from {WORK_OF_A_THREAD:.1e} MACs a batch on\n")
    heads = [f"{n} threads, ms" if n > 1 else "1 thread, ms" for n in options.threads]
    print(
        f"| width | side | batch | work, MACs | {' | '.join(heads)} | gain |\n| ---: | ---: | ---: | ---: |{' ---: |' * (len(heads) + 1)}"
    )
    rows = []
    try:
        for side in options.side:
            for width in options.width:
                for size in options.batch_size:
                    step, work = one_step(configured(width=width, batch_size=size, backbone=options.backbone), side=side)
                    ms = least_ms(step, threads=options.threads, seconds=options.seconds)
                    gain = ms[options.threads[0]] / min(ms.values())
                    rows.append({"width": width, "side": side, "batch size": size, "work": work, "ms": ms, "gain": gain})
                    cells = " | ".join(f"{value:.3g}" for value in ms.values())
                    print(f"| {width:g} | {side} | {size} | {work:.2e} | {cells} | {gain:.2f} |", flush=True)
        if options.out:
            write_json(options.out, {"processor": processor_name(device), "cores": cores, "torch": torch.__version__, "rows": rows})
    except (OdnError, OSError) as error:
        print(f"threads: {'; '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
