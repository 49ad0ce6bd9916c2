"""Cut a network for each target out of a supernet, without training; the command `odn specialise`.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths
Writes: nothing that dvc.yaml tracks; specialised/SLUG for each target, to be versioned by 'dvc add specialised'
Config: all
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.config import Config
from odn.errors import DataError, MissingInputError
from odn.files import new_folder, remove_folder, require_own_folder, write_json
from odn.records import damaged, read_record
from odn.sanitize import markdown
from odn.searching.folder import SearchFolder
from odn.searching.records import SupernetCard
from odn.searching.statistics import wilson_interval
from odn.supernet.targets import Target
from odn.tracking.provenance import provenance

if TYPE_CHECKING:
    from odn.searching.data import SearchData
    from odn.supernet.specialiser import Found
    from odn.supernet.subnetworks import Measured
    from odn.tracking.registry import Registration

AGAIN = "the same 'odn specialise' again, which registers what is there"


@dataclass(frozen=True)
class Made:
    """Hold a network that was cut out for a target: its folder, its card, and which version it became."""

    folder: Path
    card: dict[str, Any]
    registration: "Registration | None"

    def describe(self) -> str:
        """Say in a line what the network is."""
        card, low_high = self.card, "{:.2%} to {:.2%}".format(*self.card["val_interval"])
        busy = " (the machine was busy)" if card["busy"] else ""
        where = f"; {self.registration.name} version {self.registration.version}" if self.registration is not None else ""
        return (
            f"{card['target']}: depth {card['depth']}, {card['val_accuracy']:.2%} on val ({low_high}), {card['n_params']:,} parameters, "
            f"{card['size_bytes']:,} bytes, {card['macs']:,} MACs, {card['latency_ms']:.3f} ms{busy}, in {self.folder}/{where}"
        )


@dataclass(frozen=True)
class Specialised:
    """Hold the networks that were made, and a line on each target that none meets."""

    made: tuple[Made, ...]
    missed: tuple[str, ...]


def run(
    config: Config,
    *,
    targets: Sequence[Target],
    prepared: Path,
    search: SearchFolder,
    out: Path,
    registers: bool,
    enumerates: bool = False,
    predicts: bool = True,
    uses_table: bool = True,
    project: Path = Path(),
) -> Specialised:
    """Write a folder for each target that a sub-network meets, and register it; a folder of a target that none meets is removed.

    Raises:
        MissingInputError: data is not prepared, or no supernet was trained with these settings.
        DataError: the supernet was trained on other data.
        OutputError: the folder of a target holds what odn did not write.
        TrackingError: MLflow cannot be reached or refuses; the folders are written.
    """
    from odn.models.stored_networks import load_network
    from odn.searching.data import opened
    from odn.supernet.specialiser import Specialiser
    from odn.supernet.subnetworks import Measured, Space

    for target in targets:
        require_own_folder(out / target.slug)
    place = search.supernet(config.search.schedule[0])
    if not (place / "card.json").exists():
        raise MissingInputError(f"{place} is missing; set search.mode: supernet and run 'dvc repro' first")
    made_by = f"train@{config.search.schedule[0]}"
    card, data = read_record(SupernetCard, place / "card.json", made_by=made_by), opened(prepared, config=config)
    if card.data_sha256 != data.manifest.sha256:
        raise DataError(f"{place} was trained on other data than {prepared} holds; run 'dvc repro' first")
    network = load_network(place)
    if card.depths != network.head_depths or 1.0 not in card.widths or len(set(card.widths)) < len(card.widths):
        why = f"depths and widths must be those of the network, with exits at {list(network.head_depths)}; got {card.depths}, {card.widths}"
        raise damaged(place / "card.json", why, made_by=made_by)
    space = Space(network.architecture.made_by.groups(network.architecture), card.depths, card.widths)
    measured = Measured(network, space=space, data=data, uses_table=uses_table)
    specialiser = Specialiser(measured, seed=config.seed, enumerates=enumerates, predicts=predicts)
    made, missed = [], []
    for target in targets:
        found, folder = specialiser.find(target), out / target.slug
        if found.subnetwork is None:
            remove_folder(folder)
            missed.append(f"no sub-network meets --target {target.text}: {found.miss} ({found.how})")
            continue
        about = _write(config, found, measured=measured, data=data, folder=folder)
        made.append(Made(folder, about, None))
    if registers:
        made = [Made(one.folder, one.card, _register(config, one, data=data, project=project)) for one in made]
    return Specialised(tuple(made), tuple(missed))


def _write(config: Config, found: "Found", *, measured: "Measured", data: "SearchData", folder: Path) -> dict[str, Any]:
    """Write a network and its card."""
    from odn.models.stored_networks import save_network
    from odn.models.timing import combined
    from odn.training.device import machine_identity

    one = found.subnetwork
    assert one is not None, "the caller has looked"
    seen, manifest, search = measured.evaluate(one), data.manifest, config.search
    card = {
        "target": found.target.text,
        "depth": one.depth,
        "widths": one.widths,
        "val_accuracy": seen.accuracy,
        "val_interval": wilson_interval(seen.n_correct, seen.n, confidence=search.confidence),
        "n_val": seen.n,
        **asdict(measured.cost(one)),
        **{f"{name}_full": count for name, count in asdict(measured.whole).items()},
        "latency_ms": measured.latency_ms(one),
        **combined([measured.timing(one)]),
        **machine_identity(data.machine),
        "found_by": found.how,
        **{name: getattr(manifest, name) for name in ("source", "classes", "channels", "height", "width", "mean", "std")},
        "data_sha256": manifest.sha256,
        "seed": config.seed,
    }
    with new_folder(folder) as place:
        save_network(measured.network(one), place)
        write_json(place / "card.json", card)
    return card


def _register(config: Config, one: Made, *, data: "SearchData", project: Path) -> "Registration":
    from odn.models.stored_networks import load_network
    from odn.tracking.publish import Model, publish_model
    from odn.tracking.versions import log_classifier

    card, slug = one.card, one.folder.name
    numbers = {name: float(card[name]) for name in ("val_accuracy", "n_params", "size_bytes", "macs", "latency_ms")}
    low, high = card["val_interval"]
    data_name = markdown(config.data.name)
    text = f"Cut out of a supernet for {data_name}, without training, for the target {card['target']}"
    model = Model(
        name=f"{config.registry.name}-{slug}",
        folder=one.folder,
        log=log_classifier(load_network(one.folder), manifest=data.manifest),
        about=f"{config.model.backbone} for {data_name}, specialised for {card['target']}. `candidate` is the newest version.",
        description=f"{text}: depth {card['depth']}, {card['val_accuracy']:.2%} on val ({low:.2%} to {high:.2%}), {card['macs']:,} MACs.",
        metrics=numbers | {"val_accuracy_low": low, "val_accuracy_high": high},
        tags={**provenance(project), "odn.target": card["target"], "odn.depth": str(card["depth"])},
    )
    return publish_model(model, config=config, again=AGAIN)
