"""Orthogonalise the momentum of convolution kernels and of matrices: every direction of an update gets the same length.

Source: Jordan et al., Muon: an optimizer for hidden layers (2024), whose iteration and coefficients these are; Liu et al.,
arXiv 2502.16982, section 2.1. torch.optim.Muon takes matrices only, and imports torch._dynamo (see `optim`).
O output channels, I input channels, h rows and w columns of a kernel.
"""

from collections import defaultdict

import torch
from torch import Tensor

ITERATIONS = 5
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315  # of the polynomial that takes every singular value near 1
LEAST_NORM = 1e-7
SMALL = 1 << 14  # elements of a matrix below which a processor's products are quicker in float32 than in bf16, up to three times


def orthogonalised(kernels: list[Tensor], *, dtype: torch.dtype) -> list[Tensor]:
    """Replace each (O, I, h, w) by the nearest semi-orthogonal (O, I·h·w), or each (O, I); as long a step for tall ones as for wide ones.

    Kernels of one shape are computed together; the products are taken in `dtype`, on a processor those of small matrices in float32.
    """
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for i, kernel in enumerate(kernels):
        by_shape[kernel.shape].append(i)
    result = list(kernels)
    for shape, members in by_shape.items():
        n_out, n_in, *sides = shape
        # channels last, as the kernels lie in memory: the order of a matrix' columns does not matter
        rows = [kernels[i].permute(0, 2, 3, 1).reshape(n_out, -1) if sides else kernels[i] for i in members]
        matrices = torch.stack(rows)
        stretch = max(1.0, n_out / matrices.shape[2]) ** 0.5
        is_small = matrices.device.type == "cpu" and matrices[0].numel() < SMALL
        turned = (stretch * _newton_schulz(matrices if is_small else matrices.to(dtype))).to(kernels[members[0]].dtype)
        for i, matrix in zip(members, turned, strict=True):
            result[i] = matrix.reshape(n_out, *sides, n_in).permute(0, 3, 1, 2) if sides else matrix
    return result


def _newton_schulz(matrices: Tensor) -> Tensor:
    """Take the singular values of each matrix (B, R, S) to about 1 (0.7 to 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    given = matrices.mT if tall else matrices
    x: Tensor = given / (given.norm(dim=(1, 2), keepdim=True) + LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=CUBIC, alpha=QUINTIC), x, beta=LINEAR)
    return x.mT if tall else x
