"""Choose the device and the arithmetic, and make both repeatable."""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from odn.cores import usable_cores
from odn.errors import ConfigError
from odn.processes import local_rank, world_size
from odn.sections import TrainConfig
from odn.training.group import ALONE, Group, joined

# MACs of a batch, forward through the whole backbone, from which on several threads pay; below, they mostly wait for each other, and beside
# a busy process many times as long.
WORK_OF_A_THREAD = 1_000_000_000

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS repeats itself only with a fixed one

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Machine:
    """Name where training runs, the precision of its matrix products, its threads of the processor, and the processes that share it."""

    device: torch.device
    precision: Literal["fp32", "bf16"]
    threads: int = 1
    group: Group = ALONE

    def to_device(self, network: Network) -> Network:
        """Return the network on the device, its kernels laid out channels last."""
        return network.to(self.device).to(memory_format=torch.channels_last)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which a forward pass runs."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_machine(train: TrainConfig, *, macs: int) -> Machine:
    """Resolve `auto`, and switch PyTorch to repeatable arithmetic on that device and to so many threads, for the rest of the process.

    `macs` are those of one image through the whole backbone: the size of the work decides how many threads it is shared out to.
    A process of several takes a GPU of its own, and joins the others.

    Raises:
        ConfigError: `train.device: cuda` where PyTorch sees no GPU, or fewer than processes on this node.
    """
    machine = chosen(train, macs=macs)
    if world_size() > 1:
        machine = _beside_others(machine)
    _switch(machine)
    return machine


def _beside_others(machine: Machine) -> Machine:
    if machine.device.type == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise ConfigError(
                f"train.processes: process {local_rank()} of this node finds {torch.cuda.device_count()} GPUs, and each takes one; "
                "start fewer on a node, or set train.device to cpu"
            )
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
        machine = replace(machine, device=device)
    return replace(machine, group=joined(machine.device))


def chosen(train: TrainConfig, *, macs: int) -> Machine:
    """Resolve `auto`, and change nothing.

    Raises:
        ConfigError: `train.device: cuda` where PyTorch sees no GPU.
    """
    if train.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda, but PyTorch sees no GPU here; set it to auto or cpu")
    use_gpu = train.device == "cuda" or (train.device == "auto" and torch.cuda.is_available())
    gains = torch.cuda.get_device_capability() >= (8, 0) if use_gpu else _cpu_gains_from_bf16()
    precision: Literal["fp32", "bf16"] = train.precision if train.precision != "auto" else ("bf16" if gains else "fp32")
    return Machine(torch.device("cuda" if use_gpu else "cpu"), precision, wanted_threads(train, macs=macs))


@contextlib.contextmanager
def repeatable(machine: Machine) -> Iterator[None]:
    """Switch PyTorch as `choose_machine` does, for a while: afterwards its switches, threads and generator are as they were."""
    before = torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark, threads, workspace = torch.backends.cudnn.benchmark, torch.get_num_threads(), os.environ.get(WORKSPACE)
    with torch.random.fork_rng(devices=[machine.device] if machine.device.type == "cuda" else []):
        _switch(machine)
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before[0])
            torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = benchmark
            torch.set_num_threads(threads)
            if workspace is None:
                os.environ.pop(WORKSPACE, None)


def _switch(machine: Machine) -> None:
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.set_deterministic_debug_mode("error")  # the same as use_deterministic_algorithms(True), which imports the compiler: 3 s
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads what it has not written
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(machine.threads)  # of the data's way and of arithmetic alike; nothing here uses PyTorch's other pool


def wanted_threads(train: TrainConfig, *, macs: int) -> int:
    """Return the threads that are asked for; `auto`: one for small work, so that it gives the same bytes on any number of cores."""
    if train.threads != "auto":
        return train.threads
    return usable_cores() if train.batch_size // world_size() * macs >= WORK_OF_A_THREAD else 1


def machine_identity(machine: Machine) -> dict[str, str | int]:
    """Say what a measured time is good for."""
    return {
        "machine": processor_name(machine.device),
        "device": machine.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def processor_name(device: torch.device) -> str:
    """Name the GPU, or the processor as the system knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_gains_from_bf16() -> bool:
    """Tell whether the processor multiplies bf16 itself (AVX512-BF16 or AMX); emulated, it is ten times slower than fp32."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch 2.10 has no public question for it
