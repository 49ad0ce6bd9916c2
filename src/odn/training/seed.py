"""Derive every random draw from the seed and from what it is for."""

import hashlib

import torch

# A phase that once had another name keeps its draws: the same seed gives the same weights as before.
STREAMS: dict[str | int, str] = {"trial": "probe"}


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the purpose alone, e.g. `generator(0, "order", depth, epoch)`."""
    text = "/".join(str(STREAMS.get(part, part)) for part in (seed, *purpose))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)
