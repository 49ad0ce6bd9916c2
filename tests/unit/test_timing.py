"""Milliseconds are believed only where the machine was quiet, and a ratio survives a machine that is not."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from odn.files import write_json
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import resnet_architecture
from odn.models.timing import Timing, combined, forward_pass, timed
from odn.records import Record
from odn.searching.records import known_timing, steadier

BUSY_SECONDS = 20.0  # after which a busy process ends by itself


def network(*, depth: int) -> DepthNetwork:
    """Build a narrow ResNet-18 for images of 8x8."""
    first = resnet_architecture("resnet18", stem="cifar", width=0.125, shortcut="avgpool", in_channels=1, n_classes=10, depth=depth)
    return build(first, torch.Generator().manual_seed(0))


def keep_busy(core: int) -> None:
    """Compute on a core until somebody ends it."""
    os.sched_setaffinity(0, {core})
    until = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < until:
        pass


@pytest.fixture
def one_core() -> Iterator[int]:
    """Run on one core and on one thread."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    yield min(cores)
    torch.set_num_threads(threads)
    os.sched_setaffinity(0, cores)


@pytest.fixture
def busy(one_core: int) -> Iterator[None]:
    """Let two other processes have the same core, which is left a third of the time."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=keep_busy, args=(one_core,), daemon=True) for _ in range(2)]
    for other in others:
        other.start()
    time.sleep(0.5)
    yield
    for other in others:
        other.kill()
        other.join()


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("batch_size", [1, 128, 1024])
def test_beside_a_busy_process_the_ratio_holds_or_it_is_told(batch_size: int) -> None:
    """A block takes between 5 and 40 % of all eight; where a measurement says otherwise, it says that the machine was busy."""
    calls = {str(depth): forward_pass(network(depth=depth), batch_size=batch_size, height=8, width=8) for depth in (1, 8)}
    found = timed(calls, seconds=1.0)
    assert found.busy or 0.05 < found.ms["1"] / found.ms["8"] < 0.4


def test_a_process_that_does_not_run_is_told() -> None:
    """Passes of equal length are no proof: the process's own clock says that it stood still."""
    assert timed({"": lambda: time.sleep(0.002)}, seconds=0.1).busy


def test_calls_take_turns() -> None:
    """What disturbs the machine for a while hits all alike."""
    order: list[str] = []
    found = timed({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.01)
    assert order == ["a", "b"] * (len(order) // 2)
    assert len(order) // 2 == found.passes + 3


def test_a_passing_disturbance_is_waited_out() -> None:
    """A machine that is slow for 100 passes, but for three of them, is timed on until a quarter of all were quick."""
    n = 0

    def call() -> None:
        nonlocal n
        n += 1
        until = time.perf_counter() + (0.001 if 10 <= n <= 12 or n > 100 else 0.005)
        while time.perf_counter() < until:
            pass

    found = timed({"": call}, seconds=5.0)
    assert found.ms[""] < 2
    assert found.passes > 100


def test_the_worst_of_several_measurements_is_recorded() -> None:
    """One that was disturbed makes the record doubtful."""
    calm, rough = (
        Timing(ms={}, median_ms={}, p95_ms={}, passes=passes, spread=spread, busy=busy)
        for passes, spread, busy in ((60, 0.01, False), (30, 0.5, True))
    )
    assert combined([calm, rough]) == {"passes": 30, "spread": 0.5, "busy": True}


@dataclass(frozen=True)
class Measured(Record):
    """Hold what any record of times holds."""

    machine: str
    busy: bool
    spread: float


@pytest.mark.parametrize(
    ("before", "is_known"),
    [
        ({"machine": "a", "busy": False, "spread": 0.01}, True),
        ({"machine": "b", "busy": False, "spread": 0.01}, False),
        ({"machine": "a", "latency_ms": 1.0}, False),  # of an odn that did not look
        ({"machine": "a", "busy": "no", "spread": 0.01}, False),
    ],
)
def test_what_another_machine_or_nobody_vouches_for_is_measured_anew(tmp_path: Path, before: dict[str, Any], is_known: bool) -> None:
    """A record is good for the machine that it names, if it says whether that was quiet."""
    write_json(tmp_path / "latency.json", before)
    assert (known_timing(Measured, tmp_path / "latency.json", {"machine": "a"}) is not None) == is_known


@pytest.mark.parametrize(
    ("busy", "spread", "kept"), [(False, 0.09, "now"), (True, 0.2, "now"), (True, 0.3, "before"), (True, 0.5, "before")]
)
def test_a_busy_measurement_makes_way_for_a_better_one_alone(busy: bool, spread: float, kept: str) -> None:
    """Against one of a spread of 0.3 on a busy machine: a quiet one wins, a busy one if it is steadier."""
    before, now = {"busy": True, "spread": 0.3, "is": "before"}, {"busy": busy, "spread": spread, "is": "now"}
    assert steadier(before, now)["is"] == kept
    assert steadier(None, now) is now
