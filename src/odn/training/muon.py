"""Orthogonalise the momentum of convolution kernels and of matrices: every direction of an update gets the same length.

Source: Jordan et al., Muon: an optimizer for hidden layers (2024), whose iteration and coefficients these are; Liu et al.,
arXiv 2502.16982, section 2.1. torch.optim.Muon takes matrices only, and imports torch._dynamo (see `optim`).

An iteration multiplies a matrix x by a polynomial of xxᵀ. In float32 all of them are computed on xxᵀ, which has R rows and columns however
many columns x has, and x is multiplied once, at the end; these squares are padded to a few sizes, and computed together. They need more
digits than bf16 has: there the iteration is computed as it stands.

O output channels, I input channels, h rows and w columns of a kernel; R rows and S ≥ R columns of a matrix, or of its transpose.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from odn.compiled.orthogonal import compiled_orthogonalised

ITERATIONS = 5
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315  # of the polynomial that takes every singular value near 1
LEAST_NORM = 1e-7
PADDING = 16  # squares are padded to a multiple of this


def orthogonalised(kernels: list[Tensor], *, dtype: torch.dtype) -> list[Tensor]:
    """Replace each (O, I, h, w) by the nearest semi-orthogonal (O, I·h·w), or each (O, I); as long a step for tall ones as for wide ones.

    The products are taken in `dtype`.
    """
    if dtype == torch.float32 and (compiled := compiled_orthogonalised(kernels)) is not None:
        return compiled
    # channels last, as the kernels lie in memory: the order of a matrix' columns does not matter
    matrices = [kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1) if kernel.ndim == 4 else kernel for kernel in kernels]
    wide = [matrix.mT if len(matrix) > matrix.shape[1] else matrix for matrix in matrices]
    groups: dict[object, list[int]] = defaultdict(list)
    for i, x in enumerate(wide):
        groups[-(-len(x) // PADDING) if dtype == torch.float32 else x.shape].append(i)
    result = list(kernels)
    for members in groups.values():
        given = [wide[i] for i in members]
        turned = _by_squares(given) if dtype == torch.float32 else _by_matrices(given, dtype=dtype)
        for i, x in zip(members, turned, strict=True):
            n_out, n_in, *sides = kernels[i].shape
            matrix = x if wide[i] is matrices[i] else x.mT.contiguous()
            stretch = max(1.0, n_out / matrix.shape[1]) ** 0.5
            matrix = stretch * matrix if stretch > 1 else matrix
            result[i] = matrix.reshape(n_out, *sides, n_in).permute(0, 3, 1, 2) if sides else matrix
    return result


def _by_squares(given: list[Tensor]) -> list[Tensor]:
    """Take the singular values of each (R, S) to about 1 (0.7 to 1.2)."""
    size = -(-max(map(len, given)) // PADDING) * PADDING
    gram = given[0].new_zeros(len(given), size, size)
    for square, x in zip(gram.unbind(), given, strict=True):
        square[: len(x), : len(x)] = x @ x.mT
    norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt_().add_(LEAST_NORM)[:, None, None]  # of a matrix: the root of its square's trace
    gram, factor = gram / norm.square(), 1 / norm
    for iteration in range(ITERATIONS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=CUBIC, alpha=QUINTIC)
        polynomial.diagonal(dim1=1, dim2=2).add_(LINEAR)
        factor = polynomial @ factor if iteration else polynomial * factor
        if iteration < ITERATIONS - 1:
            gram = polynomial @ gram @ polynomial
    return [square[: len(x), : len(x)] @ x for square, x in zip(factor.unbind(), given, strict=True)]


def _by_matrices(given: list[Tensor], *, dtype: torch.dtype) -> Sequence[Tensor]:
    """Take the singular values of each (R, S), all of one shape, to about 1 (0.7 to 1.2), with products in `dtype`."""
    x = torch.stack(given).to(dtype)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=CUBIC, alpha=QUINTIC), x, beta=LINEAR)
    return x.to(given[0].dtype).unbind()
