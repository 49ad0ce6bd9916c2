"""Read what a finished search left in files, as one typed object that summary, figures and page draw from; no torch."""

from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.errors import MissingInputError
from odn.models.architecture import Architecture
from odn.records import damaged, read_record
from odn.searching import outcome
from odn.searching.certified import OTHERS, Evaluation, LatencyRecord
from odn.searching.results import Card, JudgedStep, SearchLog
from odn.searching.statistics import wilson_interval

Interval = tuple[float, float]
BATCHES = (("1 image", ""), ("128 images", "_batch128"))  # and how the names of their numbers end
PHASES = ("stable", "anneal", "trial", "finish", "refine")
COUNTED = (("parameters", "n_params", "params_saved"), ("bytes", "size_bytes", "bytes_saved"), ("MACs", "macs", "macs_saved"))


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Hold what one depth reached on val, what it costs, and the verdict on it."""

    depth: int
    verdict: str
    reason: str
    ema_accuracy: float
    ema_interval: Interval
    annealed_accuracy: float | None  # accuracy after a cooldown; None where the target was out of reach
    annealed_interval: Interval | None
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
        """Return what the depth is judged by: annealed accuracy where there is one, else EMA accuracy."""
        return self.ema_accuracy if self.annealed_accuracy is None else self.annealed_accuracy

    @property
    def interval(self) -> Interval:
        """Return the interval of `accuracy`."""
        return self.ema_interval if self.annealed_interval is None else self.annealed_interval


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Hold one line of the ledger."""

    depth: int
    phase: str  # one of PHASES
    epochs: int
    full_network_epochs: float


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Hold what came of a network between the accepted rung and the one before it."""

    size_bytes: int
    macs: int
    accuracy: float
    interval: Interval
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
    depth: int  # that is kept; on a spread ladder, as in every other field of that name, the number of the rung
    verdict: str
    reason: str
    target: float
    val_accuracy: float
    val_interval: Interval
    weights_from: str  # the phase whose weights are kept, one of PHASES
    depths: tuple[Depth, ...]  # that were trained, shallow to deep
    ledger: tuple[Phase, ...]  # in the order of training
    full_network_epochs: float  # the ledger's total
    refinements: tuple[Refinement, ...]  # likewise
    test_accuracy: float
    test_interval: Interval
    balanced_accuracy: float | None  # on test, the mean over classes; None where classes are about equal in number
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
    def is_refined(self) -> bool:
        """Return whether a network smaller than the accepted rung is kept."""
        return any(one.reached for one in self.refinements)

    @property
    def unit(self) -> str:
        """Name what `depth` counts: `depth`, or `rung`."""
        return self.config.unit

    @property
    def n_units(self) -> int:
        """Return the number of the whole backbone: its blocks, or the last rung of the ladder."""
        return self.config.n_units if self.config.spreads else self.n_blocks

    @property
    def is_whole(self) -> bool:
        """Return whether the whole backbone is kept."""
        return self.savings[0].kept == self.savings[0].full

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
        """Return the full-network epochs of each phase, in the order of training, without those that were not run."""
        totals = {name: sum(entry.full_network_epochs for entry in self.ledger if entry.phase == name) for name in PHASES}
        return {name: total for name, total in totals.items() if total}


def read_findings(config: Config, *, model: Path, metrics: Path) -> Findings:
    """Read the record of the search that `config` describes.

    Raises:
        MissingInputError: the search has not ended, its model is not evaluated, or the files are of another search.
        DataError: a record is damaged.
    """
    card = read_record(Card, model / "card.json", made_by="truncate")
    search = read_record(SearchLog, model / "search.json", made_by="truncate")
    architecture = read_record(Architecture, model / "architecture.json", made_by="truncate")
    backbone = architecture.name
    _check_search(card, config=config, backbone=backbone, model=model)
    evaluation = read_record(Evaluation, metrics / "evaluation.json", made_by="evaluate")
    latency = read_record(LatencyRecord, metrics / "latency.json", made_by="evaluate")
    depths = tuple(_depth(step, confidence=config.search.confidence) for step in search.steps)
    kept = next((one for one in depths if one.depth == card.depth), None)
    depth = card.depth if config.spreads else architecture.depth
    if kept is None or (depth, search.depth) != (card.depth, card.depth):
        raise damaged(model / "card.json", f"depth {card.depth} is not that of the network and of search.json", made_by="truncate")
    refined = outcome.kept_refinement(search.refinements)
    if evaluation.n_params != (refined or kept).n_params:
        raise MissingInputError(f"{metrics / 'evaluation.json'} is of another model than {model}/; run 'dvc repro evaluate' first")
    return Findings(
        config=config,
        source=card.source,
        backbone=backbone,
        n_blocks=architecture.n_blocks,
        depth=card.depth,
        verdict=card.verdict,
        reason=card.reason,
        target=card.target,
        val_accuracy=card.val_accuracy,
        val_interval=card.val_interval,
        weights_from=card.weights_from,
        depths=depths,
        ledger=tuple(
            Phase(depth=one.depth, phase=one.phase, epochs=one.epochs, full_network_epochs=one.full_network_epochs) for one in search.ledger
        ),
        full_network_epochs=search.full_network_epochs,
        refinements=tuple(_refinement(one, confidence=config.search.confidence) for one in search.refinements),
        test_accuracy=evaluation.test_accuracy,
        test_interval=(evaluation.test_accuracy_low, evaluation.test_accuracy_high),
        balanced_accuracy=evaluation.test_balanced_accuracy,
        n_test=evaluation.n_test,
        savings=(*_counted(evaluation), *_measured(latency)),
        comparisons=_comparisons(evaluation),
        machine=latency.machine,
        device=latency.device,
        threads=latency.threads,
        busy=latency.busy,
        duplicates=card.duplicates,
        classes=card.classes,
        data_sha256=card.data_sha256,
    )


def _check_search(card: Card, *, config: Config, backbone: str, model: Path) -> None:
    wanted = {
        "data.source": config.data.source,
        "model.backbone": config.model.backbone,
        "seed": config.seed,
        "search.target": config.search.target,
    }
    found = {"data.source": card.source, "model.backbone": backbone, "seed": card.seed, "search.target": card.target}
    for name, value in wanted.items():
        if found[name] != value:
            raise MissingInputError(
                f"{model}/ is of a search with {name} {found[name]}, and the settings say {value}; run 'dvc repro' first"
            )


def _depth(step: JudgedStep, *, confidence: float) -> Depth:
    return Depth(
        depth=step.depth,
        verdict=step.verdict,
        reason=step.reason,
        ema_accuracy=step.val_accuracy,
        ema_interval=wilson_interval(step.val_correct, step.n_val, confidence=confidence),
        annealed_accuracy=step.annealed_accuracy,
        annealed_interval=step.annealed_interval,
        n_val=step.n_val,
        epochs=step.epochs,
        stopped=step.stopped,
        why=step.why,
        n_params=step.n_params,
        size_bytes=step.size_bytes,
        macs=step.macs,
        pruned_from=step.pruned_from,
    )


def _refinement(one: outcome.Refinement, *, confidence: float) -> Refinement:
    interval = wilson_interval(one.n_correct, one.n, confidence=confidence)
    accuracy = one.n_correct / one.n
    return Refinement(
        size_bytes=one.size_bytes, macs=one.macs, accuracy=accuracy, interval=interval, reached=one.reached, reason=one.reason
    )


def _counted(evaluation: Evaluation) -> list[Saving]:
    return [
        Saving(name=name, kept=getattr(evaluation, key), full=getattr(evaluation, f"{key}_full"), saved=getattr(evaluation, saved))
        for name, key, saved in COUNTED
    ]


def _measured(latency: LatencyRecord) -> list[Saving]:
    return [
        Saving(
            name=f"latency, {name}",
            kept=getattr(latency, f"latency_ms{end}"),
            full=getattr(latency, f"latency_ms_full{end}"),
            saved=getattr(latency, f"latency_saved{end}"),
            unit="ms",
        )
        for name, end in BATCHES
    ]


def _comparisons(evaluation: Evaluation) -> tuple[Comparison, ...]:
    found = [
        (getattr(evaluation, f"{name}_depth"), getattr(evaluation, f"test_accuracy_{name}"), getattr(evaluation, f"mcnemar_p_{name}"))
        for name in OTHERS
    ]
    return tuple(Comparison(depth=depth, accuracy=accuracy, p=p) for depth, accuracy, p in found if depth is not None)
