"""Certify the model: test is read here, once, and nothing is chosen by it.

Reads: work/prepared/dataset.json, work/prepared/test, model, work/depths, work/checks
Writes: work/evaluation, metrics/evaluation.json, metrics/latency.json
Config: train, search
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from odn.config import Config
from odn.data.balance import balanced_accuracy, is_imbalanced
from odn.data.batches import on_device
from odn.data.dataset import Manifest, read_manifest, verified_split
from odn.files import new_folder, require_own_folder, write_json
from odn.models.cost import cost
from odn.models.network import DepthNetwork, build
from odn.models.timing import combined, forward_pass, timed
from odn.records import read_record
from odn.searching.certified import LatencyRecord
from odn.searching.data import full_network_cost
from odn.searching.fitting import load_fitting
from odn.searching.folder import SearchFolder
from odn.searching.records import known_timing, steadier, write_table
from odn.searching.results import Card, read_depth_step
from odn.searching.statistics import mcnemar_p, wilson_interval
from odn.storage import Objects
from odn.training.device import Machine, choose_machine, machine_identity
from odn.training.evaluation import Predictions, predict
from odn.training.seed import generator

LATENCY_BATCHES = (1, 128)


def run(
    config: Config, *, prepared: Path, model: Path, search: SearchFolder, evaluation: Path, metrics: Path, latency: Path
) -> dict[str, Any]:
    """Write the predictions, the accuracy with its Wilson interval, the costs before and after, and the measured latency.

    The accepted network is compared, by McNemar's test, with the depth or rung before it, and with the whole backbone where that was
    trained.

    Raises:
        OutputError: the place of the predictions holds what odn did not write.
        MissingInputError: prepared data or the model is missing.
        DataError: the model does not fit the data.
    """
    require_own_folder(evaluation)
    manifest = read_manifest(prepared / "dataset.json")
    network = load_fitting(model, manifest=manifest)
    machine = choose_machine(config.train, macs=full_network_cost(network.architecture, manifest).macs)
    test = on_device(verified_split(prepared / "test", manifest=manifest, objects=Objects), manifest=manifest, device=machine.device)

    def predictions_of(other: DepthNetwork) -> Predictions:
        return predict(machine.to_device(other), test, machine=machine)

    seen = predictions_of(network)
    low, high = wilson_interval(seen.n_correct, len(seen.labels), confidence=config.search.confidence)
    accuracy = {"test_accuracy": seen.n_correct / len(seen.labels), "test_accuracy_low": low, "test_accuracy_high": high}
    per_class = manifest.counts["test"]["per_class"]
    if is_imbalanced(per_class):
        accuracy["test_balanced_accuracy"] = balanced_accuracy(seen.correct_of_classes(manifest.n_classes), per_class)
    record: dict[str, Any] = accuracy | {"n_test": len(seen.labels)} | _savings(network, manifest=manifest)
    card = read_record(Card, model / "card.json", made_by="truncate")
    for name, depth in _others(config, card, network).items():
        folder = _network_folder(depth, search=search)
        if folder is not None:
            other = predictions_of(load_fitting(folder, manifest=manifest))
            ours, theirs = seen.is_correct(), other.is_correct()
            record |= {f"{name}_depth": depth, f"test_accuracy_{name}": other.n_correct / len(other.labels)}
            record[f"mcnemar_p_{name}"] = mcnemar_p(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))
    with new_folder(evaluation) as folder:
        write_table(folder / "predictions.csv", seen.rows())
    write_json(metrics, record)
    _measure_latency(latency, network, manifest=manifest, machine=machine)
    return record


def _savings(network: DepthNetwork, *, manifest: Manifest) -> dict[str, Any]:
    """Return parameters, bytes and MACs of the kept and of the whole network, and the fractions saved."""
    architecture = network.architecture
    kept = asdict(cost(architecture, manifest.height, manifest.width))
    full = asdict(cost(architecture.whole, manifest.height, manifest.width))
    short = {"n_params": "params", "size_bytes": "bytes", "macs": "macs"}
    record: dict[str, Any] = {}
    for name, value in kept.items():
        record |= {name: value, f"{name}_full": full[name], f"{short[name]}_saved": 1 - value / full[name]}
    return record


def _others(config: Config, card: Card, network: DepthNetwork) -> dict[str, int]:
    """Name the depths, or rungs, that the accepted one is compared with; beside a pruned one no other was finished."""
    if network.architecture.is_cut and not config.spreads:
        return {}
    before, whole = config.depth_before(card.depth), config.n_units if config.spreads else network.architecture.n_blocks
    return ({"shallower": before} if before else {}) | ({"full_depth": whole} if whole not in {card.depth, before} else {})


def _network_folder(depth: int, *, search: SearchFolder) -> Path | None:
    """Return where the best network of a depth is: the annealed one where there is one; None where the depth was not trained."""
    if (search.judged(depth) / "weights.safetensors").exists():
        return search.judged(depth)
    if not (search.trained(depth) / "metrics.json").exists() or read_depth_step(search.trained(depth)) is None:
        return None
    return search.trained(depth)


def _measure_latency(path: Path, network: DepthNetwork, *, manifest: Manifest, machine: Machine) -> None:
    """Time the kept and the whole network on this machine, in turn, for one image and for a batch.

    What this kind of machine has measured for this network before, while it was quiet, is left as it is, so that the pipeline repeats to
    the byte. What it measured while it was busy stands until it is quieter.
    """
    architecture = network.architecture
    identity: dict[str, Any] = machine_identity(machine) | {
        "precision": "fp32",
        "height": manifest.height,
        "width": manifest.width,
        "architecture": architecture.to_dict(),
    }
    before = known_timing(LatencyRecord, path, identity)
    if before is not None and not before["busy"]:
        return
    networks = {"": network, "_full": build(architecture.whole, generator(0, "latency"))}
    shape: dict[str, Any] = {"height": manifest.height, "width": manifest.width, "device": machine.device.type}
    times: dict[str, float] = {}
    looks = []
    for batch_size in LATENCY_BATCHES:
        calls = {name: forward_pass(one, batch_size=batch_size, **shape) for name, one in networks.items()}
        looks.append(timed(calls))
        end = "" if batch_size == 1 else f"_batch{batch_size}"
        times |= {f"latency_ms{name}{end}": ms for name, ms in looks[-1].ms.items()}
        times[f"latency_saved{end}"] = 1 - times[f"latency_ms{end}"] / times[f"latency_ms_full{end}"]
    write_json(path, steadier(before, identity | times | combined(looks)))
