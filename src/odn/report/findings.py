"""Read what a finished search left in files, as one typed object that account, figures and page draw from; no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odn.config import N_BLOCKS, Config
from odn.errors import MissingInputError
from odn.files import read_json
from odn.search.statistics import wilson_interval

Interval = tuple[float, float]
BEFORE = ("advice", "teacher")  # phases before the first depth
PHASES = (*BEFORE, "stable", "probe", "finish", "shave")
COUNTED = (("parameters", "n_params", "params_saved"), ("bytes", "size_bytes", "bytes_saved"), ("MACs", "macs", "macs_saved"))


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Hold what one depth reached on val, what it costs, and the verdict on it."""

    depth: int
    verdict: str
    reason: str
    read_out: float
    read_out_interval: Interval
    probe: float | None  # accuracy after a cooldown; None where the read-out was hopeless
    probe_interval: Interval | None
    n_val: int
    epochs: int  # of the stable phase
    stopped: str
    why: str  # the stable phase ended
    n_params: int
    size_bytes: int
    macs: int
    pruned_from: int | None  # the depth that training began with, where it cut blocks or channels

    @property
    def accuracy(self) -> float:
        """Return what the depth is judged by: the probe where there was one, else the read-out."""
        return self.read_out if self.probe is None else self.probe

    @property
    def interval(self) -> Interval:
        """Return the interval of `accuracy`."""
        return self.read_out_interval if self.probe_interval is None else self.probe_interval


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Hold one line of the ledger."""

    depth: int
    phase: str  # one of PHASES
    epochs: int
    full_depth_epochs: float


@dataclass(frozen=True, kw_only=True)
class Shave:
    """Hold what came of trying a shallower depth after one was accepted."""

    depth: int
    accuracy: float
    reached: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Hold a cost of the kept network and of the whole one."""

    name: str
    kept: float
    full: float
    saved: float  # fraction; below 0 where the kept network costs more
    unit: str = ""  # "ms" where it is measured; a count has none


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold how another trained depth does on the same test images, with McNemar's p that both err alike."""

    depth: int
    accuracy: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Hold everything that a search found."""

    config: Config
    source: str
    backbone: str
    n_blocks: int
    depth: int  # that is kept
    verdict: str
    reason: str
    target: float
    val_accuracy: float
    val_interval: Interval
    weights_from: str  # the phase whose weights are kept: stable, probe, finish, shave
    depths: tuple[Depth, ...]  # that were trained, shallow to deep
    ledger: tuple[Phase, ...]  # in the order of training
    full_depth_epochs: float  # the ledger's total
    shaves: tuple[Shave, ...]  # in the order of training
    advice: str  # why search.mode auto chose as it did; empty where the mode was given
    test_accuracy: float
    test_interval: Interval
    n_test: int
    savings: tuple[Saving, ...]  # parameters, bytes, MACs, latency of one image, then of larger batches
    comparisons: tuple[Comparison, ...]
    machine: str  # that the latency was measured on
    device: str
    threads: int
    busy: bool  # the machine did something else meanwhile
    duplicates: dict[str, int]  # of the data, as `dataset.json` counts them
    classes: tuple[str, ...]
    data_sha256: dict[str, str]

    @property
    def data(self) -> str:
        """Name the data for a person."""
        return self.config.data.name

    @property
    def is_reached(self) -> bool:
        """Return whether the kept depth reached the target."""
        return self.verdict == "target_reached"

    @property
    def kept(self) -> Depth:
        """Return the depth that is kept."""
        return next(one for one in self.depths if one.depth == self.depth)

    @property
    def is_pruned(self) -> bool:
        """Return whether training cut channels, and perhaps blocks, of the kept network."""
        return self.kept.pruned_from is not None

    @property
    def best(self) -> Depth:
        """Return the depth with the highest accuracy on val, the shallowest of equals."""
        return max(self.depths, key=lambda one: (one.accuracy, -one.depth))

    def by_phase(self) -> dict[str, float]:
        """Return the full-depth epochs of each phase, in the order of training, without those that were not run."""
        totals = {name: sum(entry.full_depth_epochs for entry in self.ledger if entry.phase == name) for name in PHASES}
        return {name: total for name, total in totals.items() if total}


def read_findings(config: Config, *, model: Path, metrics: Path) -> Findings:
    """Read the record of the search that `config` describes.

    Raises:
        MissingInputError: the search has not ended, its model is not evaluated, or the files are of another search.
    """
    card, search = (read_json(model / name, made_by="truncate") for name in ("card.json", "search.json"))
    backbone = read_json(model / "architecture.json", made_by="truncate")["backbone"]
    _check_search(card, config=config, backbone=backbone, model=model)
    evaluation, latency = (read_json(metrics / name, made_by="evaluate") for name in ("evaluation.json", "latency.json"))
    depths = tuple(_depth(step, confidence=config.search.confidence) for step in search["steps"])
    kept = next(one for one in depths if one.depth == card["depth"])
    if evaluation["n_params"] != kept.n_params:
        raise MissingInputError(f"{metrics / 'evaluation.json'} is of another model than {model}/; run 'dvc repro evaluate' first")
    advice = search.get("advice")
    if advice is not None:
        config = config.in_mode(advice["mode"])
    return Findings(
        config=config,
        source=card["source"],
        backbone=backbone,
        n_blocks=N_BLOCKS[backbone],
        **{name: card[name] for name in ("depth", "verdict", "reason", "target", "val_accuracy", "weights_from", "data_sha256")},
        val_interval=_interval(card["val_interval"]),
        depths=depths,
        ledger=tuple(Phase(**entry) for entry in search["ledger"]),
        full_depth_epochs=search["full_depth_epochs"],
        advice=f"{advice['mode']}: {advice['why']}" if advice is not None else "",
        shaves=tuple(_shave(entry) for entry in search.get("shaves", [])),
        test_accuracy=evaluation["test_accuracy"],
        test_interval=(evaluation["test_accuracy_low"], evaluation["test_accuracy_high"]),
        n_test=evaluation["n_test"],
        savings=(*_counted(evaluation), *_measured(latency)),
        comparisons=_comparisons(evaluation),
        machine=latency["machine"],
        device=latency["device"],
        threads=latency["threads"],
        busy=latency["busy"],
        duplicates=card["duplicates"],
        classes=tuple(card["classes"]),
    )


def _check_search(card: dict[str, Any], *, config: Config, backbone: str, model: Path) -> None:
    wanted = {
        "data.source": config.data.source,
        "model.backbone": config.model.backbone,
        "seed": config.seed,
        "search.target": config.search.target,
    }
    found = {"data.source": card["source"], "model.backbone": backbone, "seed": card["seed"], "search.target": card["target"]}
    for name, value in wanted.items():
        if found[name] != value:
            raise MissingInputError(
                f"{model}/ is of a search with {name} {found[name]}, and the settings say {value}; run 'dvc repro' first"
            )


def _depth(step: dict[str, Any], *, confidence: float) -> Depth:
    same = ("depth", "verdict", "reason", "n_val", "epochs", "stopped", "why", "n_params", "size_bytes", "macs", "pruned_from")
    return Depth(
        **{name: step[name] for name in same},
        read_out=step["val_accuracy"],
        read_out_interval=wilson_interval(step["val_correct"], step["n_val"], confidence=confidence),
        probe=step["probe_accuracy"],
        probe_interval=_interval(step["probe_interval"]) if step["probed"] else None,
    )


def _shave(entry: dict[str, Any]) -> Shave:
    return Shave(accuracy=entry["n_correct"] / entry["n"], **{name: entry[name] for name in ("depth", "reached", "reason")})


def _interval(pair: list[float]) -> Interval:
    return pair[0], pair[1]


def _counted(evaluation: dict[str, Any]) -> list[Saving]:
    return [
        Saving(name=name, kept=evaluation[key], full=evaluation[f"{key}_full"], saved=evaluation[saved]) for name, key, saved in COUNTED
    ]


def _measured(latency: dict[str, Any]) -> list[Saving]:
    ends = [name.removeprefix("latency_ms") for name in latency if name.startswith("latency_ms") and not name.startswith("latency_ms_full")]
    return [
        Saving(
            name=f"latency, {end.removeprefix('_batch')} images" if end else "latency, 1 image",
            kept=latency[f"latency_ms{end}"],
            full=latency[f"latency_ms_full{end}"],
            saved=latency[f"latency_saved{end}"],
            unit="ms",
        )
        for end in ends
    ]


def _comparisons(evaluation: dict[str, Any]) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(depth=evaluation[f"{name}_depth"], accuracy=evaluation[f"test_accuracy_{name}"], p=evaluation[f"mcnemar_p_{name}"])
        for name in ("shallower", "full_depth", "shaved_from")
        if f"{name}_depth" in evaluation
    )
