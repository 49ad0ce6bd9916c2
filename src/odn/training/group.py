"""Let the processes of one training agree: each computes the gradients of its share of a batch, and all take the mean's step.

After every step all hold the same bytes: weights, momentum, averages and BatchNorm's running statistics. One sum of one long vector a step
does that. `DistributedDataParallel` hooks the forward pass of a whole network; methods here run parts of it, several times a step.
Source: data-parallel training by a sum of gradients, Goyal et al., arXiv 1706.02677, section 2.
"""

import atexit
import contextlib
import datetime
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from odn.errors import LostError, TrainingError
from odn.processes import rank, world_size

PATIENCE = datetime.timedelta(hours=1)  # with one that waits, as the first does for the lock of an interrupted phase
PARENT_SECONDS = 0.5  # between two looks whether torchrun is still there
LEAST_DIGEST = 8  # bytes of a digest that processes compare


@dataclass(frozen=True)
class Group:
    """Say which of how many processes this one is; alone, nothing is sent anywhere."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return whether this is the process that writes and tells."""
        return self.rank == 0

    def sum_(self, *tensors: Tensor) -> None:
        """Put the sum over the processes in the place of each tensor."""
        if self.size > 1:
            with _together():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def shared_bytes(self, content: bytes | None, *, device: torch.device) -> bytes | None:
        """Return what the first process holds: bytes, or None."""
        if self.size == 1:
            return content
        length = torch.tensor(-1 if content is None else len(content), device=device)
        with _together():
            dist.broadcast(length, 0)
            if length < 0:
                return None
            there = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8) if self.leads else torch.empty(0, dtype=torch.uint8)
            data = there[: int(length)].to(device) if self.leads else torch.empty(int(length), dtype=torch.uint8, device=device)
            dist.broadcast(data, 0)
        return data.cpu().numpy().tobytes()

    def require_equal(self, tensors: Mapping[str, Tensor], *, device: torch.device, where: str) -> None:
        """Require that all processes hold the same bytes.

        Raises:
            TrainingError: they do not, as where a module keeps numbers of its own that it computes from its images.
        """
        if self.size == 1:
            return
        mine = torch.tensor(int.from_bytes(_digest(tensors), "big", signed=True), device=device)
        each = [torch.zeros_like(mine) for _ in range(self.size)]
        with _together():
            dist.all_gather(each, mine)
        if differing := [number for number, one in enumerate(each) if not torch.equal(one, each[0])]:
            numbers = ", ".join(map(str, differing))
            raise TrainingError(
                f"the processes of this training hold different numbers {where}: {numbers} differ from 0; machines of different types, "
                "or a module that keeps numbers of its own; set train.processes to 1"
            )


ALONE = Group()


@dataclass(frozen=True)
class Shared:
    """Name what the processes of a training average in a step: gradients, and the running statistics of BatchNorm."""

    parameters: Sequence[Tensor]
    statistics: Sequence[Tensor]

    @classmethod
    def of(cls, network: nn.Module, *others: Tensor) -> "Shared":
        """Name those of a network, and other tensors that have gradients."""
        norms = batchnorms(network)
        running = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]
        return cls([*network.parameters(), *others], running)

    @torch.no_grad()
    def average_(self, loss: Tensor, right: Tensor, *, group: Group) -> tuple[Tensor, Tensor]:
        """Average gradients and statistics in place; return the mean loss, and the sum of the counts of images that are right."""
        learning = [parameter for parameter in self.parameters if parameter.requires_grad]
        for parameter in learning:  # where a module was left out by chance, as stochastic depth does, the vectors are of one length
            parameter.grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        averaged = [*(parameter.grad for parameter in learning if parameter.grad is not None), *self.statistics]
        flat = torch.cat([*(tensor.reshape(-1) for tensor in averaged), loss.reshape(1), right.reshape(1).to(loss.dtype)])
        group.sum_(flat)
        means = flat[:-1] / group.size
        for tensor, mean in zip(averaged, means[:-1].split([tensor.numel() for tensor in averaged]), strict=True):
            tensor.copy_(mean.view(tensor.shape))
        return means[-1], flat[-1].to(right.dtype)


def batchnorms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """List the modules that keep running statistics."""
    return [one for one in network.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.track_running_stats]


def joined(device: torch.device) -> Group:
    """Join the processes that torchrun started, for the rest of the process; where it started none, be alone."""
    if world_size() == 1:
        return ALONE
    if not dist.is_initialized():
        _end_with_parent()
        with _together():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Group(rank(), world_size())


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Name what is behind a failure of the others.

    Raises:
        LostError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:  # torch's own errors of a group are its children
        raise LostError(
            f"process {rank()} of {world_size()} lost the others ({' '.join(str(error).split()).partition('. ')[0]}); "
            "the same command goes on from the last checkpoint"
        ) from None


def _digest(tensors: Mapping[str, Tensor]) -> bytes:
    digest = hashlib.sha256()
    for part in _parts(tensors):
        digest.update(part)
    return digest.digest()[:LEAST_DIGEST]


def _parts(tensors: Mapping[str, Tensor]) -> Iterable[bytes]:
    for name, tensor in sorted(tensors.items()):
        yield name.encode()
        yield tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def _end_with_parent() -> None:
    """End this process when torchrun is gone: killed, it does not end its processes, which would train on and hold the lock."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
