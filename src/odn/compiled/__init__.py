"""Compiled code: what PyTorch's kernels are slow at."""
