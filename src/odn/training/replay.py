"""Replay a training step as one CUDA graph: on a GPU a small network's kernels take less time to run than to launch one by one.

Source: "CUDA Graphs" in PyTorch's notes on CUDA semantics. A replay runs the kernels that were captured: it gives the step's own bytes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from odn.training.device import Machine

EAGER_STEPS = 3  # before the capture: libraries choose their kernels and allocate their workspaces in them

Step = Callable[[Tensor, Tensor], Tensor]  # images (n, C, H, W), labels (n,) -> loss, without gradient


def replayed(step: Step, *, machine: Machine) -> Step:
    """Return a step that does the same; on a GPU from the fourth call on as a replay of what the GPU did.

    A replay repeats no Python: `step` must read what changes from call to call, such as the rate, out of tensors that stay where they
    are, and every call must bring batches of one shape. The loss that it returns is overwritten by the next call.
    """
    return _Replayed(step) if machine.device.type == "cuda" else step


class _Replayed:
    """Call a step, later its graph."""

    def __init__(self, step: Step) -> None:
        self._step, self._n_eager, self._stream = step, 0, torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if self._n_eager < EAGER_STEPS:
            self._n_eager += 1
            return self._aside(images, labels)
        if self._graph is None:
            self._images, self._labels = images.clone(), labels.clone()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._loss = self._step(self._images, self._labels)
        else:
            self._images.copy_(images)
            self._labels.copy_(labels)
        self._graph.replay()
        return self._loss

    def _aside(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run the step on the stream that will be captured, between what this stream did and what it does next."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = self._step(images, labels)
        here.wait_stream(self._stream)
        return loss
