"""The compiled pass of a residual network computes what its module computes, and is taken where it can be, and only there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.compiled import library
from odn.compiled.orthogonal import compiled_orthogonalised
from odn.compiled.residual import compiled_pass
from odn.config import settings
from odn.errors import TrainingError
from odn.models.configured import configured
from odn.models.ladder import fitting
from odn.models.network import DepthNetwork, build
from odn.training.depth_task import _compiled
from odn.training.device import Machine
from odn.training.group import Group
from odn.training.muon import orthogonalised

pytestmark = pytest.mark.skipif(library.library() is None, reason="compiled for Linux on processors with AVX2")


class Case(NamedTuple):
    """Say which rung is built, and what images it reads."""

    backbone: str = "resnet18"
    width: float = 0.25
    shortcut: str = "avgpool"
    most_bytes: int = 20_000
    channels: int = 1
    size: int = 8
    n: int = 8


CASES = {
    "a small rung": Case(n=32),
    "odd maps": Case(most_bytes=57_408, channels=3, size=15, n=16),
    "blocks without strides": Case("resnet34", 0.125, most_bytes=400_000, size=12, n=40),
    "bottlenecks": Case("resnet50", 1.0, most_bytes=120_000, channels=3, size=16, n=24),
    "few channels": Case(most_bytes=9_000, size=28),
}


def network_of(case: Case) -> DepthNetwork:
    """Build the largest rung of so many bytes, its weights channels last."""
    config = settings({"model.backbone": case.backbone, "model.width": case.width, "growth.shortcut": case.shortcut})
    whole = configured(config, in_channels=case.channels, n_classes=7, height=case.size, width=case.size)
    rung = fitting(whole, {"bytes": case.most_bytes}, height=case.size, width=case.size)
    return build(rung, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last).train()


def batch_of(case: Case) -> tuple[Tensor, Tensor]:
    """Draw images, channels last, and labels."""
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(case.n, case.channels, case.size, case.size, generator=draws).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(7, (case.n,), generator=draws)


def learn(network: DepthNetwork, images: Tensor, labels: Tensor, *, compiled: bool) -> Tensor:
    """Compute the gradients one way or the other; return the loss."""
    one = compiled_pass(network, batch_size=len(images)) if compiled else None
    assert (one is not None) == compiled
    logits = one(images) if one is not None else network(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("name", CASES)
def test_loss_gradients_and_running_statistics_are_the_module_s(name: str) -> None:
    """They differ by rounding, and where an input of a rectifier rounds to another side of 0; and repeat to the byte."""
    case = CASES[name]
    theirs, ours, again = (network_of(case) for _ in range(3))
    images, labels = batch_of(case)
    losses = [learn(one, images, labels, compiled=one is not theirs) for one in (theirs, ours, again)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for expected, found, repeated in zip(*(one.named_parameters() for one in (theirs, ours, again)), strict=True):
        gradients = [one[1].grad for one in (expected, found, repeated)]
        by_torch, compiled, anew = (one for one in gradients if one is not None)
        assert (compiled - by_torch).norm() <= 0.02 * by_torch.norm(), expected[0]
        assert torch.equal(compiled, anew), expected[0]
    for (module, buffer), moved in zip(theirs.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(moved, buffer, rtol=1e-4, atol=1e-5, msg=module)


def test_room_is_made_anew_for_a_batch_of_another_shape() -> None:
    """The same pass takes batches of several shapes."""
    network = network_of(Case())
    one = compiled_pass(network, batch_size=8)
    assert one is not None
    for case in (Case(), Case(n=16, size=10), Case()):
        images, _ = batch_of(case)
        torch.testing.assert_close(one(images), network(images), rtol=1e-4, atol=1e-5)


OTHERS: dict[str, Callable[[], DepthNetwork]] = {
    "wide": lambda: network_of(Case(width=1.0, most_bytes=40_000_000)),
    "the published shortcut": lambda: network_of(Case(shortcut="conv")),
    "float64": lambda: network_of(Case()).double(),
    "frozen": lambda: network_of(Case()).requires_grad_(False),
    "channels first": lambda: network_of(Case()).to(memory_format=torch.contiguous_format),
    "own blocks": lambda: DepthNetwork(nn.Conv2d(1, 4, 3), [nn.Conv2d(4, 4, 3)], n_classes=7),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_networks_are_torch_s(other: str) -> None:
    """What the compiled code does not compute, or not faster, is left to the module."""
    assert compiled_pass(OTHERS[other](), batch_size=8) is None


def test_it_is_taken_in_float32_on_one_thread_of_a_processor() -> None:
    """bf16 that is asked for, several threads and a share of a batch that fills no vectors are torch's."""
    network = network_of(Case())
    cpu = torch.device("cpu")

    def taken(machine: Machine, precision: str = "auto") -> bool:
        return _compiled(network, settings=settings({"train.precision": precision}).train, machine=machine) is not None

    assert taken(Machine(cpu, "fp32"))
    assert taken(Machine(cpu, "bf16"))  # of train.precision: auto
    assert not taken(Machine(cpu, "bf16"), precision="bf16")
    assert not taken(Machine(cpu, "fp32", threads=2))
    assert taken(Machine(cpu, "fp32", group=Group(0, 4)))
    assert not taken(Machine(cpu, "fp32", group=Group(0, 8)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_small_matrices_are_orthogonalised_as_torch_does(layout: torch.memory_format) -> None:
    """Wide and tall ones, of one row and of many, kernels and matrices; and where one is large all are left to torch."""
    draws = torch.Generator().manual_seed(0)
    shapes = [(4, 11, 3, 3), (11, 4, 3, 3), (128, 64, 1, 1), (40, 3, 1, 1), (1, 5, 3, 3), (16, 16, 3, 3)]
    kernels = [torch.randn(shape, generator=draws).contiguous(memory_format=layout) for shape in shapes] + [
        torch.randn(9, 30, generator=draws)
    ]
    taken = compiled_orthogonalised(kernels)
    assert taken is not None
    for kernel, ours in zip(kernels, taken, strict=True):
        (by_torch,) = orthogonalised([kernel.double()], dtype=torch.float64)
        assert ours.stride() == kernel.stride() or 1 in kernel.shape
        torch.testing.assert_close(ours.double(), by_torch, rtol=0, atol=2e-4)
    assert compiled_orthogonalised([*kernels, torch.randn(200, 200, generator=draws)]) is None


def test_a_library_of_another_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights must not hang on what was compiled some time ago."""
    load = library.library.__wrapped__
    (tmp_path / "residual.cpp").write_text("// newer\n")
    monkeypatch.setattr(library, "HERE", tmp_path)
    with pytest.raises(TrainingError, match="libodn.so is not made of the C\\+\\+ beside it as it is; install odn again"):
        load()
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "libodn.so")
    with pytest.raises(TrainingError, match="libodn.so is missing; install odn again"):
        load()
    monkeypatch.setattr(library, "SYSTEM", ("Plan 9", "mips"))
    assert load() is None
