"""Export the model as files for other runtimes: each proved equal on val, measured, and certified on test, once.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/prepared/test, model
Writes: export, metrics/export.json, metrics/export_latency.json
Config: train, search.confidence, export
"""

from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.data.dataset import SPLITS, read_manifest, verified_split
from odn.export.artifacts import Exported
from odn.export.exporting import Order, export_network
from odn.export.graph import pixel_graph
from odn.export.installed import require_installed
from odn.export.measuring import measure
from odn.export.names import RECORD
from odn.files import new_folder, require_own_folder, sha256_of, write_json
from odn.searching.data import full_network_cost
from odn.searching.fitting import load_fitting
from odn.storage import Objects
from odn.training.device import choose_machine


def run(config: Config, *, prepared: Path, model: Path, exported: Path, metrics: Path, latency: Path) -> Exported:
    """Write a file a format with the record of what each does, the numbers, and the measured latency.

    Raises:
        ConfigError: what a format needs is not installed.
        OutputError: the place of the files holds what odn did not write.
        MissingInputError: prepared data or the model is missing.
        DataError: the model does not fit the data, or is damaged.
        ExportError: a file does not compute what the network computes.
    """
    require_installed(config.export.formats)
    require_own_folder(exported)
    manifest = read_manifest(prepared / "dataset.json")
    network = load_fitting(model, manifest=manifest)
    on_cpu = config.train.model_copy(update={"device": "cpu", "precision": "fp32"})  # what devices compute, and all runtimes here
    machine = choose_machine(on_cpu, macs=full_network_cost(network.architecture, manifest).macs)
    splits = {name: verified_split(prepared / name, manifest=manifest, objects=Objects) for name in SPLITS}
    order = Order(
        formats=config.export.formats,
        max_drop=config.export.max_drop,
        confidence=config.search.confidence,
        threads=machine.threads,
    )
    digest = sha256_of(model / "weights.safetensors")
    with new_folder(exported) as folder:
        found = export_network(network, order, manifest=manifest, splits=splits, model_sha256=digest, folder=folder)
        write_json(folder / RECORD, asdict(found))
    write_json(metrics, found.numbers())
    graph, images = pixel_graph(network, manifest=manifest), splits["val"].images
    measure(latency, found, folder=exported, network=graph, images=images, model=model, machine=machine)
    return found
