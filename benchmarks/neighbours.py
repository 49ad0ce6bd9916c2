"""Networks out of one supernet: specialised for a target, or routed image by image, as arms of a benchmark."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.results import Result
from odn.commands import route, specialise
from odn.config import Config
from odn.data.batches import on_device
from odn.data.dataset import read_split
from odn.errors import OdnError
from odn.models.stored_networks import load_network
from odn.routing.targets import Target
from odn.searching.data import opened
from odn.searching.folder import SearchFolder
from odn.searching.targets import read_target
from odn.storage import Objects
from odn.training.evaluation import evaluate


def run_specialised(config: Config, *, arm: str, target: str, prepared: Path, supernet: Result, folder: Path) -> Result:
    """Cut a network for `target` out of the supernet in `folder`, which the run `supernet` trained, and read test once.

    Raises:
        OdnError: no sub-network meets the target.
    """
    begin = time.monotonic()
    out = folder / "specialised"
    places: dict[str, Any] = {"prepared": prepared, "search": SearchFolder(folder), "model": folder / "model"}
    done = specialise.run(config, targets=(read_target(target),), **places, out=out, registers=False)
    if not done.made:
        raise OdnError(f"{arm}: {done.missed[0]}")
    (made,) = done.made
    seconds, data = time.monotonic() - begin, opened(prepared, config=config, objects=Objects)
    test = on_device(read_split(prepared / "test"), manifest=data.manifest, device=data.machine.device)
    seen = evaluate(data.machine.to_device(load_network(made.folder)), test, machine=data.machine)
    return Result(
        arm=arm,
        seed=config.seed,
        verdict="specialised",
        test_accuracy=seen.accuracy,
        n_test=seen.n,
        full_network_epochs=supernet.full_network_epochs,
        seconds=supernet.seconds + seconds,
        note="cost and seconds hold the supernet's, which serves every target",
        **{name: made.card[name] for name in ("depth", "val_accuracy", "n_val", "n_params", "size_bytes", "macs", "latency_ms")},
    )


def run_routed(config: Config, *, arm: str, kind: str, target: Target, prepared: Path, supernet: Result, folder: Path) -> Result:
    """Route images through the supernet in `folder`; depth is the deepest exit, MACs and milliseconds are means an image."""
    begin = time.monotonic()
    assert kind in ("confidence", "gate")
    done = route.run(
        config,
        kind=kind,  # type: ignore[arg-type]  # asserted
        target=target,
        prepared=prepared,
        supernet=SearchFolder(folder).supernet(config.search.schedule[0]),
        out=folder / "routed" / "-".join(str(part) for part in (kind, *asdict(target).values()) if part is not None),
        progress=folder / "progress",
        register=False,
    )
    network = load_network(SearchFolder(folder).supernet(config.search.schedule[0]))
    card = done.card
    return Result(
        arm=arm,
        seed=config.seed,
        depth=network.depth,
        verdict="routed",
        macs=round(card["test_macs"]),
        n_params=sum(tensor.numel() for tensor in network.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()),
        full_network_epochs=supernet.full_network_epochs + card["full_network_epochs"],
        seconds=supernet.seconds + time.monotonic() - begin,
        latency_ms=done.clock["batch 1"]["routed"],
        note=f"{card['test_macs_share']:.1%} of the deepest exit's MACs on test",
        **{name: card[name] for name in ("val_accuracy", "n_val", "test_accuracy", "n_test")},
    )
