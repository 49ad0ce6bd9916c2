"""Derive every random draw from the seed and from what it is for."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch

# A phase that once had another name keeps its draws: the same seed gives the same weights as before.
STREAMS: dict[str | int, str] = {"trial": "probe"}


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the purpose alone, e.g. `generator(0, "order", depth, epoch)`."""
    text = "/".join(str(STREAMS.get(part, part)) for part in (seed, *purpose))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


@contextlib.contextmanager
def seeded(seed: int, *, device: torch.device) -> Iterator[None]:
    """Start torch's global generators, of the CPU and of a GPU that is used, at a seed; after the block they are as they were before."""
    uses_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if uses_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also keeps a stack trace for each kind of device that is not there
        if uses_cuda:
            torch.cuda.manual_seed(seed)
        yield
