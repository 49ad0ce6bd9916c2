"""How long a step takes in several processes, beside one of several threads: `torchrun --nproc-per-node 2 -m benchmarks.processes`.

A step is the product's own: a batch of random images, augmented, forward, backward, Muon's update. Four ways take turns, a step each: all
processes share a batch, a thread each; each process has a network and a batch of its own, as rungs or seeds side by side have; the first
alone on one thread; the first alone on as many threads as there are processes. The least time of each counts, as other work on the machine
only ever delays; a busy machine blurs the ratios all the same. A gain is that in images a second over one thread.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
import torch.distributed as dist

from benchmarks.threads import configured, random_data
from odn.config import Config
from odn.data.batches import training_batches
from odn.ladder.fitting import rung_of
from odn.models.network import build
from odn.processes import rank, world_size
from odn.searching.data import SearchData, backbone_of, costs_at, search_data
from odn.training.depth_task import DepthTask, Phase
from odn.training.device import Machine, processor_name
from odn.training.fit import Position, step_of
from odn.training.group import ALONE, joined
from odn.training.seed import generator
from odn.training.state import TrainState

NETWORKS = ((0.25, 1, 32), (0.25, 1, 128), (0.25, 6, 128), (1.0, None, 128))  # width, rung or the whole backbone, batch size
LEAST_STEPS = 5


def stepper(config: Config, *, machine: Machine, rung: int | None, side: int) -> tuple[Callable[[], object], int]:
    """Return a call that takes a step in this process's way, and the MACs of a batch, forward."""
    split, manifest = random_data(side=side, n=config.train.batch_size)
    data: SearchData = search_data(split, split, manifest=manifest, machine=machine, backbone=backbone_of(config, manifest))
    architecture = data.backbone if rung is None else rung_of(rung, data=data, config=config)
    state = TrainState.fresh(machine.to_device(build(architecture, generator(0))))
    phase = Phase(name="stable", depth=architecture.depth, epochs=1, seed=0, warmup_epochs=0.0)
    task = DepthTask(state, phase, settings=config.train, machine=machine, steps=1)
    task.begin(Position(1, 0, 1))
    take, group = step_of(task, hits=torch.zeros((), dtype=torch.int64), machine=machine), machine.group

    def step() -> None:
        task.announce(Position(1, 0, 1))
        draws, size = generator(0), config.train.batch_size
        shares = {"process": group.rank, "processes": group.size}
        for images, labels in training_batches(data.train, batch_size=size, augment=config.augment, generator=draws, **shares):
            take(images, labels)

    return step, costs_at(architecture, manifest).macs * config.train.batch_size


def least_ms(ways: Sequence[tuple[Callable[[], object], int, bool]], *, seconds: float) -> list[float]:
    """Return the least milliseconds of each way, until the last process is done: a step, its threads, and whether all processes take it."""
    taken: list[list[float]] = [[] for _ in ways]
    began, goes_on = perf_counter(), torch.ones(1)
    while goes_on.item():
        for times, (step, threads, by_all) in zip(taken, ways, strict=True):
            torch.set_num_threads(threads)
            dist.barrier()
            started = perf_counter()
            if by_all or rank() == 0:
                step()
            took = torch.tensor((perf_counter() - started) * 1000, dtype=torch.float64)
            dist.all_reduce(took, dist.ReduceOp.MAX)
            times.append(took.item())
        goes_on.fill_(len(taken[0]) <= LEAST_STEPS or perf_counter() - began < seconds)
        dist.broadcast(goes_on, 0)
    return [min(times[1:]) for times in taken]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and tell; return 0, or 2 where torchrun has not started this."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description="Time a training step by the number of processes.")
    parser.add_argument("--side", type=int, default=28, help="pixels (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network (default: %(default)s)")
    options = parser.parse_args(arguments)
    n, device = world_size(), torch.device("cpu")
    if n == 1:
        print("processes: start it with torchrun --nproc-per-node 2 -m benchmarks.processes", file=sys.stderr)
        return 2
    together, alone = Machine(device, "fp32", group=joined(device)), Machine(device, "fp32", group=ALONE)
    if rank() == 0:
        print(f"- processor: {processor_name(device)}\n- torch: {torch.__version__}\n")
        print(
            f"| network | batch | work, MACs | 1 thread, ms | {n} threads, ms | {n} processes, ms | {n} side by side, ms "
            "| gain by threads | by processes | side by side |"
        )
        print(f"| --- |{' ---: |' * 9}", flush=True)
    for width, rung, size in NETWORKS:
        config = configured(width=width, batch_size=size, backbone="resnet18")
        shared, work = stepper(config, machine=together, rung=rung, side=options.side)
        single, _ = stepper(config, machine=alone, rung=rung, side=options.side)
        ways = [(shared, 1, True), (single, 1, True), (single, 1, False), (single, n, False)]
        both, apart, one, threads = least_ms(ways, seconds=options.seconds)
        if rank() == 0:
            name = f"ResNet-18 at width {width:g}" + (f", rung {rung}" if rung else ", whole")
            gains = f"{one / threads:.2f} | {one / both:.2f} | {n * one / apart:.2f}"
            print(f"| {name} | {size} | {work:.1e} | {one:.3g} | {threads:.3g} | {both:.3g} | {apart:.3g} | {gains} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
