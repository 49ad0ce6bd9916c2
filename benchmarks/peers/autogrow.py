"""Run AutoGrow (Wen et al., arXiv 1906.02909), its own code out of a checkout of it, on data that `prepare` wrote.

    git clone https://github.com/wenwei202/autogrow ../autogrow
    python -m benchmarks.peers.autogrow --code ../autogrow --prepared work/prepared --seed 0 --out result.json

Its script `cifar10/main_gradual.py` runs whole, with its models and its utils: the networks, when and where a block is added, how it is
initialised, what it inherits, when a group stops, SGD and its rates. `CHANGES` is all that differs: CUDA gives way to what there is,
checkpoints stay in memory, a parameter is known by its position (as in the state of today's optimizers; by its id it is not found there),
the data is ours, its plots are left out. Its defaults are the defaults here: up to 4,200 epochs.

The data is as in its data section: black borders up to 32 x 32, random crops of images that have this size, mirrors for the three sets
that it mirrors, at our normalisation (mean and deviation of train; it leaves MNIST and Fashion-MNIST at 0..1) and without an epoch's last,
incomplete batch. A set that it does not know is treated like MNIST or, at 32 x 32, like SVHN. It decides on test; here it gets val for
that, and test is read once, at the end. The network is its last, at the end of the decayed rate: of its best on val it records no depth.

N images, C channels, H height, W width.
"""

import argparse
import contextlib
import copy
import importlib
import io
import itertools
import logging
import math
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from odn.data.batches import Images, n_steps, on_device, plain_batches, training_batches
from odn.data.dataset import Manifest, Split, read_manifest, read_split
from odn.errors import ConfigError, DataError, MissingInputError, OdnError
from odn.files import write_json
from odn.sections import AugmentConfig
from odn.training.device import processor_name
from odn.training.seed import generator

SIZE = 32  # pixels a side, of every image that its networks see
SHIFT = 4  # pixels, by which a crop of an image of that size is off at most
TEST_BATCH = 100
MIRRORED = frozenset({"cifar10", "cifar100", "fashion_mnist"})
N_GROUPS = {"CifarResNetBasic": 3, "ResNetBasic": 4, "ResNetBottleneck": 4}
SETTINGS: dict[str, tuple[str, int | float, str]] = {  # ours: its script's, its script's default, what it is
    "max_epochs": ("epochs", 4000, "epochs of growing, at most; rounded up to whole intervals"),
    "tail_epochs": ("tail-epochs", 200, "epochs after growing, in which the rate is decayed"),
    "grow_interval": ("grow-interval", 1, "epochs from one block to the next"),
    "stop_interval": ("stop-interval", 100, "epochs over which a gain on val is measured"),
    "grow_threshold": ("grow-threshold", 0.05, "gain, in percentage points, below which a group stops"),
    "batch_size": ("batch-size", 128, "images a step"),
    "lr": ("lr", 0.1, "learning rate"),
}
CHANGES = {  # a pattern in its script: what stands there instead; names in capitals are given to it
    r"# Data\n.*?(?=# Model\n)": "",
    r"# plotting\n.*": "",
    r"'cuda'": "DEVICE",
    r"parse_args\(\)": "parse_args(ARGUMENTS)",
    r"torch\.save\(": "SAVE(",
    r"torch\.load\(": "LOAD(",
    r"themap\[id\(v\)\] = k": "themap[len(themap)] = k",
    r"themap\[k\] = id\(v\)": "themap[k] = len(themap)",
}


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Stand in for a data loader of its script: `n` batches a pass, (n, C, 32, 32) float32 and (n,) int64."""

    n: int
    one_pass: Callable[[], Iterator[tuple[Tensor, Tensor]]]

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.one_pass()


def framed(split: Split) -> Split:
    """Put black borders around the images, as its script does: (N, C, H, W) -> (N, C, 32, 32)."""
    H, W = split.images.shape[2:]
    top, left = (SIZE - H) // 2, (SIZE - W) // 2
    borders = ((0, 0), (0, 0), (top, SIZE - H - top), (left, SIZE - W - left))
    return Split(images=np.pad(np.asarray(split.images), borders), labels=split.labels)


def run_script(options: argparse.Namespace, *, manifest: Manifest, train: Images, val: Images) -> tuple[dict[str, Any], list[int]]:
    """Execute its script; return its global names when it has ended, and the MACs of one image through each network that it grew."""
    code = options.code.resolve() / "cifar10"
    sys.path += [str(code), str(code / "models")]  # last: its profile.py must not hide the standard library's
    shape = {"num_classes": manifest.n_classes, "image_channels": manifest.channels}
    importlib.import_module("utils").datasets["prepared"] = shape
    models: Any = importlib.import_module("models")
    build: Callable[..., nn.Module] = getattr(models, options.residual)
    macs: list[int] = []

    def counted(*args: Any, **names: Any) -> nn.Module:
        network = build(*args, **names)
        macs.append(macs_of(network, channels=manifest.channels))
        return network

    setattr(models, options.residual, counted)
    logging.getLogger("main").addFilter(lambda record: bool(re.search("epoch|Acc:|grow", record.getMessage())))
    torch.manual_seed(options.seed)  # its networks are initialised out of the global generator
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        script = Path(folder, "main_gradual.py")
        script.write_text(changed_script(code / "main_gradual.py"))
        given = given_names(options, manifest=manifest, train=train, val=val)
        return runpy.run_path(str(script), init_globals=given, run_name="autogrow"), macs


def changed_script(path: Path) -> str:
    """Return its script with `CHANGES`.

    Raises:
        DataError: there is nothing to change where there should be.
    """
    source = path.read_text()
    for pattern, replacement in CHANGES.items():
        source, found = re.subn(pattern, replacement, source, flags=re.DOTALL)
        if not found:
            raise DataError(f"{path}: found no {pattern}; this adapter was written for commit 4435ee0")
    return source


def given_names(options: argparse.Namespace, *, manifest: Manifest, train: Images, val: Images) -> dict[str, Any]:
    """Return what its script finds among its global names, instead of what `CHANGES` took away."""
    sizes = {flag: "-".join([n] * N_GROUPS[options.residual]) for flag, n in (("net", "1"), ("sub-net", "1"), ("max-net", "200"))}
    flags = sizes | {"residual": options.residual, "dataset": "prepared"}
    flags |= {flag: getattr(options, name) for name, (flag, _, _) in SETTINGS.items()}
    batch_size, draws = options.batch_size, generator(options.seed, "autogrow")
    crops = (manifest.height, manifest.width) == (SIZE, SIZE)
    augment = AugmentConfig(shift=SHIFT if crops else 0, rotate=0, scale=0, flip=manifest.source in MIRRORED)
    kept: dict[str, Any] = {}
    return {
        "ARGUMENTS": [f"--{flag}={value}" for flag, value in flags.items()],
        "DEVICE": str(train.device),
        "SAVE": lambda state, path: kept.update({path: copy.deepcopy(state)}),
        "LOAD": kept.__getitem__,
        "trainloader": Batches(
            n=n_steps(train, batch_size=batch_size),
            one_pass=lambda: training_batches(train, batch_size=batch_size, augment=augment, generator=draws),
        ),
        "testloader": Batches(n=math.ceil(len(val) / TEST_BATCH), one_pass=lambda: plain_batches(val, batch_size=TEST_BATCH)),
    }


def macs_of(network: nn.Module, *, channels: int) -> int:
    """Count the multiply-accumulates of convolutions and linear layers, forward, for one image."""
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, SIZE, SIZE))
    network.train()
    return int(counter.get_total_flops()) // 2


def accuracy(network: nn.Module, images: Images) -> float:
    """Return the share of images whose class the network names."""
    network.eval()
    with torch.inference_mode():
        right = [int((network(x).argmax(1) == labels).sum()) for x, labels in plain_batches(images, batch_size=TEST_BATCH)]
    return sum(right) / len(images)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Grow on train and val, read test once, and return the record of it."""
    commit = _commit(options.code)
    settings = {name: getattr(options, name) for name in SETTINGS}
    for name, value in settings.items():
        if value < 1 and isinstance(value, int):
            raise ConfigError(f"--{name.replace('_', '-')}: expected at least 1; got {value}")
    manifest = read_manifest(options.prepared / "dataset.json")
    if max(manifest.height, manifest.width) > SIZE:
        size = f"{manifest.height} x {manifest.width}"
        raise DataError(f"{options.prepared}: AutoGrow's networks take images of up to {SIZE} x {SIZE}; these are {size}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = {name: read_split(options.prepared / name) for name in ("train", "val", "test")}  # mapped: no image is read yet
    train, val = (on_device(framed(splits[name]), manifest=manifest, device=device) for name in ("train", "val"))
    began = time.perf_counter()
    found, macs = run_script(options, manifest=manifest, train=train, val=val)
    seconds = time.perf_counter() - began
    n_epochs = len(found["curves"])
    lives = [after - before for before, after in itertools.pairwise([0, *found["growing_epochs"], n_epochs])]  # epochs of each network
    test = on_device(framed(splits["test"]), manifest=manifest, device=device)
    network: nn.Module = found["net"]
    return {
        "peer": "wenwei202/autogrow",
        "commit": commit,
        "seed": options.seed,
        "settings": {"residual": options.residual} | settings,
        "source": manifest.source,
        "sha256": manifest.sha256,
        "blocks": found["current_arch"],  # of each group
        "depth": sum(found["current_arch"]),
        "growth_ended": not found["can_grow"](found["max_arch"], found["current_arch"]),  # else max_epochs ended it
        "growing_epochs": found["growing_epochs"],
        "epochs": n_epochs,
        "val_accuracy": accuracy(network, val),
        "test_accuracy": accuracy(network, test),
        "n_test": len(test),
        "n_params": sum(parameter.numel() for parameter in network.parameters()),
        "size_bytes": sum(tensor.nbytes for tensor in network.state_dict().values()),
        "macs": macs[-1],
        "macs_epochs": len(train) * sum(each * epochs for each, epochs in zip(macs, lives, strict=True)),
        "seconds": seconds,
        "hardware": processor_name(device),
        "torch": torch.__version__,
    }


def _commit(code: Path) -> str:
    command = ["git", "-C", str(code), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode or not (code / "cifar10" / "main_gradual.py").is_file():
        raise MissingInputError(f"--code: {code} is no checkout of AutoGrow; clone https://github.com/wenwei202/autogrow there")
    return said.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 after one plain line on what is wrong and how to mend it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.autogrow", description="AutoGrow on prepared data.")
    parser.add_argument("--code", type=Path, required=True, help="checkout of wenwei202/autogrow")
    parser.add_argument("--prepared", type=Path, required=True, help="train/, val/, test/ and dataset.json")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--residual", choices=N_GROUPS, default="CifarResNetBasic", help="a network of its (default: %(default)s)")
    for name, (_, default, meaning) in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{meaning} (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result = run(options)
        write_json(options.out, result)
    except (OdnError, OSError) as error:
        print(f"autogrow: {error}", file=sys.stderr)
        return 2
    print(f"{result['depth']} blocks {result['blocks']}: {result['test_accuracy']:.2%} of {result['n_test']} test images; {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
