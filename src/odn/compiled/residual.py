"""Train a thin residual network through compiled code: forward and backward pass of `residual.cpp`, in place of the module's own.

PyTorch's convolutions and BatchNorm want channels by the eight or the sixteen; the networks at the foot of a ladder have a dozen. With the
images of a batch side by side in memory every channel count is as good. A step takes a half to an eighth of the time where channels are
few, and about as long where they are `WIDEST`. The sums are those of the module in another order: gradients differ in their last digits.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odn.compiled.library import library
from odn.models.network import DepthNetwork
from odn.models.resnet import BasicBlock, Bottleneck, ResidualBlock, ShortcutBlock, Stem

LANES = 8  # a batch is a multiple of it
WIDEST = 160  # channels; with more, PyTorch's kernels are no slower


@dataclass(frozen=True)
class Layer:
    """Be one row of the table that says what is computed; map 0 is the image, map i what row i, from 1, computes."""

    reads: int
    conv: nn.Conv2d | None  # None: the mean of 2 x 2 pixels
    norm: nn.BatchNorm2d | None
    channels: int
    stride: int
    adds: int = -1  # the map that is added before the rectifier
    rectifies: bool = False

    def row(self) -> tuple[int, ...]:
        """Return it as numbers."""
        kernel = 0 if self.conv is None else self.conv.kernel_size[0]
        return kernel, self.reads, self.adds, self.channels, self.stride, int(self.rectifies)

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return kernel, scale and shift; and mean, variance and number of batches that BatchNorm keeps. Of a pool nothing."""
        if self.conv is None or self.norm is None:
            return (), ()
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        return (self.conv.weight, norm.weight, norm.bias), (norm.running_mean, norm.running_var, norm.num_batches_tracked)


class CompiledPass:
    """Stand in the place of a network in training; hold the room for one batch through it."""

    def __init__(self, network: DepthNetwork, layers: Sequence[Layer], compiled: ctypes.CDLL) -> None:
        self._network, self._layers, self._library = network, layers, compiled
        self._tensors = [layer.tensors() for layer in layers]
        self._gradients = [[torch.empty_like(weight) for weight in weights] for weights, _ in self._tensors]
        self._shape: torch.Size | None = None
        self._made: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W), as the module does in train mode; running statistics move as they do there.

        The graph of autograd begins at the features: a loss that is taken back to them goes on through compiled code, down to the
        parameters. What these get as gradients is overwritten by the next pass.
        """
        if images.shape != self._shape:
            self._release()
            self._make(images.shape)
        features = torch.empty(len(images), self._layers[-1].channels)
        strides = (ctypes.c_int64 * 4)(*images.stride())
        self._library.odn_forward(self._made, images.data_ptr(), strides, self._addresses(), features.data_ptr())
        features.requires_grad_().register_hook(self._backward)
        logits: Tensor = self._network.head(self._network.depth)(features)
        return logits

    def _backward(self, gradient: Tensor) -> None:
        """Take the gradient at the features of the last pass down to the parameters."""
        self._library.odn_backward(self._made, gradient.contiguous().data_ptr())
        for (weights, _), gradients in zip(self._tensors, self._gradients, strict=True):
            for weight, its_own in zip(weights, gradients, strict=True):
                weight.grad = its_own

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._made is not None:
            self._library.odn_release(self._made)
            self._made = None

    def _make(self, shape: torch.Size) -> None:
        rows = [number for layer in self._layers for number in layer.row()]
        norm = next(layer.norm for layer in self._layers if layer.norm is not None)
        assert norm.momentum is not None
        table = (ctypes.c_int * len(rows))(*rows)
        self._made = self._library.odn_make(table, len(self._layers), *shape, norm.eps, norm.momentum)
        if self._made is None:
            raise MemoryError(f"a batch of shape {tuple(shape)} through {len(self._layers)} layers")
        self._shape = shape

    def _addresses(self) -> ctypes.Array[ctypes.c_void_p]:
        """Return where all weights, their gradients, and running statistics are, nine a layer."""
        addresses: list[int | None] = []
        for (weights, buffers), gradients in zip(self._tensors, self._gradients, strict=True):
            addresses += [tensor.data_ptr() for tensor in (*weights, *gradients, *buffers)] or [None] * 9
        return (ctypes.c_void_p * len(addresses))(*addresses)


def compiled_pass(network: DepthNetwork, *, batch_size: int) -> CompiledPass | None:
    """Return a faster way to train a network on the processor; None where there is none.

    There is one for a residual network with the stem for small images, of no more than `WIDEST` channels.
    """
    compiled = library()
    if compiled is None or batch_size % LANES:
        return None
    layers = layers_of(network)
    fits = bool(layers) and max(layer.channels for layer in layers) <= WIDEST
    plain = all(
        parameter.requires_grad and parameter.dtype == torch.float32 and parameter.device.type == "cpu"
        for parameter in network.parameters()
    )
    return CompiledPass(network, layers, compiled) if fits and plain else None


def layers_of(network: DepthNetwork) -> list[Layer]:
    """List what a residual network computes, layer by layer; nothing where it is another, or a layer of another kind is in it."""
    if not isinstance(network.stem, Stem) or list(dict(network.stem.named_children())) != ["conv", "bn", "relu"]:
        return []
    made = [_layer(network.stem, "conv", "bn", reads=0, rectifies=True)]
    for block in network.blocks:
        if type(block) not in {BasicBlock, Bottleneck, ShortcutBlock}:
            return []
        assert isinstance(block, ResidualBlock)
        if not _add_block(made, block):
            return []
    return made if all(_is_known(layer) for layer in made) else []


def _add_block(made: list[Layer], block: ResidualBlock) -> bool:
    """Add the layers of a block; False where its shortcut takes one pixel of four, as the published one does."""
    before = around = len(made)
    residual = block.residual_layers()
    if not block.passes_on:
        pool = dict(block.shortcut.named_children()).get("pool")
        if isinstance(pool, nn.AvgPool2d):
            if pool.kernel_size != pool.stride or pool.stride != 2:
                return False
            made.append(Layer(reads=before, conv=None, norm=None, channels=made[before - 1].channels, stride=2))
        made.append(_layer(block, "shortcut.conv", "shortcut.bn", reads=len(made), rectifies=not residual))
        around = len(made)
    reads = before
    for number, (conv, norm) in enumerate(residual, start=1):
        is_last = number == len(residual)
        reads = len(made) if number > 1 else before
        made.append(_layer(block, conv, norm, reads=reads, adds=around if is_last else -1, rectifies=True))
    return True


def _layer(module: nn.Module, conv: str, norm: str, *, reads: int, adds: int = -1, rectifies: bool) -> Layer:
    convolution, normalisation = module.get_submodule(conv), module.get_submodule(norm)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(normalisation, nn.BatchNorm2d)
    return Layer(reads, convolution, normalisation, convolution.out_channels, convolution.stride[0], adds, rectifies)


def _is_known(layer: Layer) -> bool:
    """Return whether the compiled code computes a layer, and finds its weights as they lie: channels last."""
    if layer.conv is None or layer.norm is None:
        return True
    kernel, stride = layer.conv.kernel_size, layer.conv.stride
    known = kernel in {(1, 1), (3, 3)} and stride in {(1, 1), (2, 2)} and layer.conv.padding == (kernel[0] // 2,) * 2
    return known and layer.conv.weight.is_contiguous(memory_format=torch.channels_last)
