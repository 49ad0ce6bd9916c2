"""Write what a routing is and what was measured of it; the curve holds both kinds where both were run on the same network."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from odn.config import Config
from odn.data.batches import Images
from odn.data.dataset import Manifest
from odn.files import write_json
from odn.records import Part, Sha256, read_record, read_table
from odn.routing.fitting import exit_costs, predict_exits
from odn.routing.found import Found, Point
from odn.routing.given import Supernet
from odn.routing.stored import save_routed
from odn.routing.targets import Target
from odn.searching.records import write_table
from odn.searching.statistics import wilson_interval

OTHER = {"confidence": "gate", "gate": "confidence"}


@dataclass(frozen=True, kw_only=True)
class Origin(Part):
    """Hold what a routing was made of: a part of its card."""

    supernet_sha256: Sha256
    data_sha256: dict[str, Sha256]


def static_points(supernet: Supernet, *, val: Images, test: Images) -> tuple[Point, ...]:
    """Return each exit as a network of its own."""
    body, head = exit_costs(supernet.parts, supernet.network.head_depths)
    on_val, on_test = predict_exits(supernet.network, val), predict_exits(supernet.network, test)
    points = []
    for depth, cost in zip(supernet.network.head_depths, [sum(pair) for pair in zip(body, head, strict=True)], strict=True):
        accuracies = [
            float((predictions.logits[depth].argmax(1) == predictions.labels).double().mean()) for predictions in (on_val, on_test)
        ]
        points.append(
            Point(kind="static", name=str(depth), val_macs=cost, val_accuracy=accuracies[0], test_macs=cost, test_accuracy=accuracies[1])
        )
    return tuple(points)


def write_found(
    folder: Path,
    found: Found,
    *,
    kind: str,
    target: Target,
    static: Sequence[Point],
    supernet: Supernet,
    manifest: Manifest,
    config: Config,
    beside: Path,
) -> tuple[dict[str, Any], list[Point]]:
    """Write the network, its card, the curve and the histogram of exits; return the card and the points of the curve.

    `beside` holds the folders of all kinds.
    """
    save_routed(found.routes, folder)
    card = _card(found, kind=kind, target=target, static=static, supernet=supernet, manifest=manifest, config=config)
    write_json(folder / "card.json", card)
    points = [*static, *found.curve, found.chosen, *_others(beside / OTHER[kind], kind=OTHER[kind], card=card)]
    write_table(folder / "curve.csv", [asdict(point) for point in points])
    write_table(folder / "exits.csv", list(found.spread))
    return card, points


def _card(
    found: Found, *, kind: str, target: Target, static: Sequence[Point], supernet: Supernet, manifest: Manifest, config: Config
) -> dict[str, Any]:
    chosen, deepest = found.chosen, static[-1].val_macs
    counts = {split: manifest.counts[split]["total"] for split in ("val", "test")}
    card: dict[str, Any] = {"kind": kind, "target": {name: value for name, value in asdict(target).items() if value is not None}}
    for split, accuracy, macs in (
        ("val", chosen.val_accuracy, chosen.val_macs),
        ("test", chosen.test_accuracy, chosen.test_macs),
    ):
        n = counts[split]
        low, high = wilson_interval(round(accuracy * n), n, confidence=config.search.confidence)
        card |= {f"{split}_accuracy": accuracy, f"{split}_accuracy_low": low, f"{split}_accuracy_high": high, f"n_{split}": n}
        card |= {f"{split}_macs": macs, f"{split}_macs_share": macs / deepest}
    shape = {"channels": manifest.channels, "height": manifest.height, "width": manifest.width}
    scale = {"mean": list(manifest.mean), "std": list(manifest.std)}
    inputs = {"supernet_sha256": supernet.sha256, "data_sha256": dict(manifest.sha256)}
    ledger = {"full_network_epochs": found.full_network_epochs}
    return card | {"fit": found.about} | ledger | {"classes": list(manifest.classes)} | shape | scale | inputs


def _others(folder: Path, *, kind: str, card: dict[str, Any]) -> list[Point]:
    """Return the points of the other kind, where it was run on the same network and data."""
    if not ((folder / "card.json").exists() and (folder / "curve.csv").exists()):
        return []
    made_by = f"odn route --kind {kind}"
    other = read_record(Origin, folder / "card.json", made_by=made_by)
    if (other.supernet_sha256, other.data_sha256) != (card["supernet_sha256"], card["data_sha256"]):
        return []
    return [point for point in read_table(Point, folder / "curve.csv", made_by=made_by) if point.kind == kind]
