"""Bring out a network for each target, without training; the command `odn specialise`.

Out of a supernet it is cut; after a climb it is one of the networks that were trained.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths, model
Writes: nothing that dvc.yaml tracks; specialised/SLUG for each target, to be versioned by 'dvc add specialised'
Config: all
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odn.config import Config
from odn.errors import DataError, MissingInputError
from odn.files import new_folder, remove_folder, require_own_folder, write_json
from odn.records import damaged, read_record
from odn.sanitize import markdown
from odn.searching.folder import SearchFolder
from odn.searching.records import SupernetCard, read_search
from odn.searching.results import Card
from odn.searching.statistics import wilson_interval
from odn.searching.targets import Target
from odn.storage import Objects
from odn.tracking.provenance import provenance

if TYPE_CHECKING:
    from odn.models.cost import Cost
    from odn.models.network import DepthNetwork
    from odn.models.timing import Clock, Timing
    from odn.searching.data import SearchData
    from odn.tracking.registry import Registration
    from odn.training.evaluation import Evaluation

Runtime = Literal["torch", "onnx", "onnx-int8"]
IN_RUNTIME = {"torch": "", "onnx": " in ONNX Runtime", "onnx-int8": " in ONNX Runtime, 8 bits"}
AGAIN = "the same 'odn specialise' again, which registers what is there"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold the network that meets a target: what it costs, how long it takes, and how many images of val it gets right."""

    network: "DepthNetwork"
    widths: tuple[float, ...] | None  # of a sub-network of a supernet: a fraction of the inner channels a group
    seen: "Evaluation"
    cost: "Cost"
    whole: "Cost"
    timing: "Timing"
    how: str  # it was found


@dataclass(frozen=True)
class Made:
    """Hold a network that was brought out for a target: its folder, its card, and which version it became."""

    folder: Path
    card: dict[str, Any]
    registration: "Registration | None"

    def describe(self) -> str:
        """Say in a line what the network is."""
        card, low_high = self.card, "{:.2%} to {:.2%}".format(*self.card["val_interval"])
        took = f"{card['latency_ms']:.3f} ms{IN_RUNTIME[card['runtime']]}{' (the machine was busy)' if card['busy'] else ''}"
        where = f"; {self.registration.name} version {self.registration.version}" if self.registration is not None else ""
        return (
            f"{card['target']}: depth {card['depth']}, {card['val_accuracy']:.2%} on val ({low_high}), {card['n_params']:,} parameters, "
            f"{card['size_bytes']:,} bytes, {card['macs']:,} MACs, {took}, in {self.folder}/{where}"
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
    model: Path,
    out: Path,
    registers: bool,
    enumerates: bool = False,
    predicts: bool = True,
    uses_table: bool = True,
    runtime: Runtime = "torch",
    project: Path = Path(),
) -> Specialised:
    """Write a folder for each target that a network meets, and register it; a folder of a target that none meets is removed.

    `latency_ms` is that of `runtime`. The table of the times of parts is one of torch's: in another each network is timed as a whole.

    Raises:
        MissingInputError: data is not prepared, or nothing was trained with these settings that networks can come out of.
        DataError: what was trained was trained on other data.
        OutputError: the folder of a target holds what odn did not write.
        TrackingError: MLflow cannot be reached or refuses; the folders are written.
    """
    from odn.export.clock import clock_of
    from odn.searching.data import opened

    for target in targets:
        require_own_folder(out / target.slug)
    place = search.supernet(config.search.schedule[0])
    if not (place / "card.json").exists() and not config.mode.any_ladder:
        wanted = "supernet, climb or grid"
        raise MissingInputError(f"{place} is missing; set search.mode: {wanted} and run 'dvc repro' first")
    data = opened(prepared, config=config, objects=Objects)
    clock = clock_of(runtime, manifest=data.manifest, machine=data.machine, train=prepared / "train", objects=Objects)
    if config.mode.any_ladder:
        answers = _from_ladder(config, targets, data=data, search=search, model=model, clock=clock)
    else:
        how: dict[str, bool] = {"enumerates": enumerates, "predicts": predicts, "uses_table": uses_table and runtime == "torch"}
        answers = _from_supernet(config, targets, data=data, place=place, prepared=prepared, clock=clock, **how)
    made, missed = [], []
    for target, found in answers:
        folder = out / target.slug
        if isinstance(found, str):
            remove_folder(folder)
            missed.append(f"no network meets --target {target.text}: {found}")
        else:
            made.append(Made(folder, _write(config, target, found, data=data, folder=folder, runtime=runtime), None))
    if registers:
        made = [Made(one.folder, one.card, _register(config, one, data=data, project=project)) for one in made]
    return Specialised(tuple(made), tuple(missed))


def _from_ladder(
    config: Config, targets: Sequence[Target], *, data: "SearchData", search: SearchFolder, model: Path, clock: "Clock"
) -> Iterator[tuple[Target, Found | str]]:
    """Yield for each target one of the rungs that were trained, or of the networks between two that was kept, or why none meets it."""
    from odn.ladder.picking import Rungs
    from odn.models.stored_networks import load_network

    trained = {f"rung {item.step.depth}": search.trained(item.step.depth) for item in read_search(config.search.schedule, folder=search)}
    if not trained:
        raise MissingInputError(f"{search.root / 'depths'} holds no trained rung; run 'dvc repro' first")
    kept = read_record(Card, model / "card.json", made_by="truncate") if (model / "card.json").exists() else None
    if kept is not None and kept.weights_from == "refine" and kept.data_sha256 == data.manifest.sha256:
        trained["the network that was kept"] = model
    networks = {name: load_network(folder) for name, folder in trained.items()}
    for name, network in networks.items():
        reads = network.architecture.in_channels, network.architecture.n_classes
        if reads != (data.manifest.channels, data.manifest.n_classes):
            raise DataError(f"{trained[name]} was trained on other data than is prepared; run 'dvc repro' first")
    rungs = Rungs(networks, data=data, metric=config.search.cost, clock=clock)
    for target in targets:
        one, how = rungs.find(target), f"among {len(networks)} trained networks"
        if isinstance(one, str):
            yield target, f"{one} ({how})"
        else:
            timing, found_by = rungs.timing(one), f"{one.name}, {how}"
            found = Found(network=one.network, widths=None, seen=one.seen, cost=one.cost, whole=rungs.whole, timing=timing, how=found_by)
            yield target, found


def _from_supernet(
    config: Config, targets: Sequence[Target], *, data: "SearchData", place: Path, prepared: Path, clock: "Clock", enumerates: bool,
    predicts: bool, uses_table: bool,
) -> Iterator[tuple[Target, Found | str]]:  # fmt: skip
    """Yield for each target a sub-network, or why none meets it."""
    from odn.models.stored_networks import load_network
    from odn.supernet.specialiser import Specialiser
    from odn.supernet.subnetworks import Measured, Space

    made_by = f"train@{config.search.schedule[0]}"
    card = read_record(SupernetCard, place / "card.json", made_by=made_by)
    if card.data_sha256 != data.manifest.sha256:
        raise DataError(f"{place} was trained on other data than {prepared} holds; run 'dvc repro' first")
    network = load_network(place)
    if card.depths != network.head_depths or 1.0 not in card.widths or len(set(card.widths)) < len(card.widths):
        why = f"depths and widths must be those of the network, with exits at {list(network.head_depths)}; got {card.depths}, {card.widths}"
        raise damaged(place / "card.json", why, made_by=made_by)
    space = Space(network.architecture.made_by.groups(network.architecture), card.depths, card.widths)
    measured = Measured(network, space=space, data=data, augment=config.augment, clock=clock, uses_table=uses_table)
    specialiser = Specialiser(measured, seed=config.seed, enumerates=enumerates, predicts=predicts)
    for target in targets:
        answer = specialiser.find(target)
        if (one := answer.subnetwork) is None:
            yield target, f"{answer.miss} ({answer.how})"
        else:
            seen, timing = measured.evaluate(one), measured.timing(one)
            network = measured.network(one)
            counted = {"cost": measured.cost(one), "whole": measured.whole}
            yield target, Found(network=network, widths=one.widths, seen=seen, timing=timing, how=answer.how, **counted)


def _write(config: Config, target: Target, found: Found, *, data: "SearchData", folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Write a network and its card."""
    from odn.models.stored_networks import save_network
    from odn.models.timing import combined
    from odn.training.device import machine_identity

    seen, manifest, search = found.seen, data.manifest, config.search
    card = {
        "target": target.text,
        "depth": found.network.depth,
        **({"widths": found.widths} if found.widths is not None else {}),
        "val_accuracy": seen.accuracy,
        "val_interval": wilson_interval(seen.n_correct, seen.n, confidence=search.confidence),
        "n_val": seen.n,
        **asdict(found.cost),
        **{f"{name}_full": count for name, count in asdict(found.whole).items()},
        "latency_ms": found.timing.ms[""],
        "runtime": runtime,
        **combined([found.timing]),
        **machine_identity(data.machine),
        "found_by": found.how,
        **{name: getattr(manifest, name) for name in ("source", "classes", "channels", "height", "width", "mean", "std")},
        "data_sha256": manifest.sha256,
        "seed": config.seed,
    }
    with new_folder(folder) as place:
        save_network(found.network, place)
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
    origin = "Picked from the ladder" if config.mode.any_ladder else "Cut out of a supernet"
    text = f"{origin} for {data_name}, without training, for the target {card['target']}"
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
