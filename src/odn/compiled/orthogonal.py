"""Orthogonalise small matrices in compiled code: `orthogonal.cpp`, where each of PyTorch's calls takes longer than what it computes."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from odn.compiled.library import library

LARGEST = 128  # the smaller side of a matrix; PyTorch multiplies larger ones faster


def compiled_orthogonalised(kernels: Sequence[Tensor]) -> list[Tensor] | None:
    """Return what `odn.training.muon.orthogonalised` returns, of kernels (O, I, h, w) or matrices (O, I) in float32 on a processor.

    None where there is no compiled code, or a kernel is not for it. The order of a matrix' columns, as it lies in memory, does not matter.
    """
    compiled = library()
    if compiled is None or not all(_is_small(kernel) for kernel in kernels):
        return None
    given = [kernel if _rows_lie_together(kernel) else kernel.contiguous() for kernel in kernels]
    taken = [torch.empty_like(kernel) for kernel in given]
    addresses = ctypes.c_void_p * len(given)
    sizes = ctypes.c_int * len(given)
    failed = compiled.odn_orthogonalise(
        addresses(*(kernel.data_ptr() for kernel in given)),
        addresses(*(kernel.data_ptr() for kernel in taken)),
        sizes(*(len(kernel) for kernel in given)),
        sizes(*(kernel[0].numel() for kernel in given)),
        len(given),
    )
    if failed:
        raise MemoryError(f"{len(given)} matrices of at most {LARGEST} rows")
    return taken


def _is_small(kernel: Tensor) -> bool:
    n_rows = len(kernel)
    return kernel.device.type == "cpu" and kernel.dtype == torch.float32 and 0 < min(n_rows, kernel.numel() // n_rows) <= LARGEST


def _rows_lie_together(kernel: Tensor) -> bool:
    return kernel.is_contiguous() or (kernel.ndim == 4 and kernel.is_contiguous(memory_format=torch.channels_last))
