"""Cut the network at the accepted depth, finish it with a longer cooldown, and write the model with the record of its search.

With `search.shave` the depths before it are tried too, taught by what was accepted, and the shallowest that is good enough is kept.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths, work/checks
Writes: model, metrics/search.json, plots/depths.csv, plots/history.csv
Config: seed, model, train, augment, search, prune, distill, finish
"""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.config import Config
from odn.data.dataset import Manifest, read_manifest
from odn.errors import DataError, MissingInputError
from odn.files import new_folder, require_own_folder, write_json
from odn.models.architecture import Architecture
from odn.records import damaged, read_record
from odn.search.advice import Advice
from odn.search.convergence import AS_TRAINED
from odn.search.outcome import Choice, Judged, LedgerEntry, choose, finish_wins, full_depth_epochs, ledger, summary
from odn.stages.advised import followed, read_advice
from odn.stages.records import join_histories, read_search, write_table

if TYPE_CHECKING:
    from odn.search.expand import Cooled
    from odn.stages.finishing import Shaves


def run(
    config: Config, *, prepared: Path, depths: Path, checks: Path, model: Path, metrics: Path, plots: Path, progress: Path
) -> dict[str, Any]:
    """Write the model folder, the flat metrics and the two tables; return the flat metrics.

    Where the search is exhausted the best depth by the one-standard-error rule is kept, and the model says so.

    Raises:
        OutputError: the model's place holds what odn did not write.
        MissingInputError: a record is missing, or the search has not ended.
        TrainingError: the loss is not finite.
    """
    require_own_folder(model)
    advice = read_advice(depths / str(config.search.schedule[0]), config)
    config = followed(config, advice)
    search = read_search(config.search.schedule, depths=depths, checks=checks)
    choice = choose(search)
    if choice is None:
        raise MissingInputError(f"{checks} says that the search has not ended; run 'dvc repro' first")
    with contextlib.ExitStack() as held:
        trained = _trained(config, search, choice, prepared=prepared, depths=depths, checks=checks, progress=progress, held=held)
        cooled, shaves = trained.finish, trained.shaves
        finish, tries = (cooled.probe if cooled is not None else None), (shaves.tries if shaves is not None else ())
        entries = ledger(search, choice, finish, shaves=tries, before=_before_first(config, advice, depths=depths))
        about = summary(choice, finish, confidence=config.search.confidence, shaves=tries)
        with new_folder(model) as folder:
            phase = _write_network(folder, trained, choice, depths=depths, checks=checks)
            manifest = read_manifest(prepared / "dataset.json")
            architecture = _fitting(folder / "architecture.json", depth=about["depth"], manifest=manifest)
            write_json(folder / "card.json", about | _provenance(config, phase, manifest=manifest))
            record = {
                "steps": _steps(search),
                "ledger": [asdict(entry) for entry in entries],
                "full_depth_epochs": full_depth_epochs(entries),
            }
            if advice is not None:
                record["advice"] = asdict(advice)
            if tries:
                record["shaves"] = [asdict(one) for one in tries]
            write_json(folder / "search.json", about | record)
        low, high = about["val_interval"]
        flat = {name: about[name] for name in ("verdict", "depth", "val_accuracy")}
        flat |= {"val_accuracy_low": low, "val_accuracy_high": high, "target": config.search.target}
        flat |= {"n_blocks": architecture.n_blocks, "full_depth_epochs": full_depth_epochs(entries)}
        flat |= {name: about[name] for name in ("shaved_from",) if name in about}
        write_table(plots / "depths.csv", _depth_rows(search))
        rows = (*(cooled.rows if cooled is not None else ()), *(shaves.rows if shaves is not None else ()))
        first = [depths / str(config.search.schedule[0]) / "teacher" / "history.csv"] if config.search.distill == "full" else []
        join_histories(plots / "history.csv", search, depths=depths, checks=checks, first=first, last=rows)
        write_json(metrics, flat)
    return flat


@dataclass(frozen=True)
class _Trained:
    """Hold what was trained here; each is None where there was nothing to train."""

    finish: "Cooled | None" = None
    shaves: "Shaves | None" = None


def _trained(
    config: Config,
    search: Sequence[Judged],
    choice: Choice,
    *,
    prepared: Path,
    depths: Path,
    checks: Path,
    progress: Path,
    held: contextlib.ExitStack,
) -> _Trained:
    """Anneal the accepted depth for longer, then shave; a depth that was never probed is cooled down at least like a probe.

    Where training left what was judged, as published, there is no cooldown, and that network is kept; a pruned one may be fine-tuned.
    """
    depth, epochs = choice.judged.step.depth, _finish_epochs(config, choice)
    shaves = config.search.shave and choice.verdict == "target_reached" and depth != config.search.schedule[0]
    if not (epochs or shaves):
        return _Trained()
    from odn.models.stored_networks import load_network
    from odn.stages.finishing import Workshop, finish, shave
    from odn.stages.working import opened

    shop = Workshop(config, opened(prepared, config=config), depths=depths, progress=progress, held=held)
    before = {item.step.depth: item.step.epochs + item.verdict.probe_epochs for item in search}
    cooled = finish(shop, depth=depth, epochs=epochs, epochs_before=before[depth]) if epochs else None
    if not shaves:
        return _Trained(cooled)
    accepted = load_network(checks / str(depth))
    if cooled is not None and finish_wins(choice, cooled.probe):
        accepted = cooled.network
    steps = {item.step.depth: item.step for item in search}
    return _Trained(cooled, shave(shop, accepted, steps=steps, epochs_before=before))


def _finish_epochs(config: Config, choice: Choice) -> int:
    if config.search.mode == "prune":
        return config.prune.finetune_epochs
    if config.search.mode in AS_TRAINED:
        return 0
    return config.finish.epochs if choice.judged.verdict.probed else max(config.finish.epochs, config.search.cooldown_epochs)


def _write_network(folder: Path, trained: _Trained, choice: Choice, *, depths: Path, checks: Path) -> str:
    """Write the network that is kept; return the phase that its weights are from."""
    from_here = None
    if trained.shaves is not None and trained.shaves.network is not None:
        phase, from_here = "shave", trained.shaves.network
    elif trained.finish is not None and finish_wins(choice, trained.finish.probe):
        phase, from_here = "finish", trained.finish.network
    else:
        phase = "probe" if choice.judged.verdict.probed else "stable"
    if from_here is not None:
        from odn.models.stored_networks import save_network

        save_network(from_here, folder)
    else:
        judged = (checks if choice.judged.verdict.probed else depths) / str(choice.judged.step.depth)
        for name in ("architecture.json", "weights.safetensors"):
            shutil.copyfile(judged / name, folder / name)
    return phase


def _before_first(config: Config, advice: Advice | None, *, depths: Path) -> list[LedgerEntry]:
    """Return what was trained before the first depth, and cost: a look at all depths, a teacher."""
    schedule, entries = config.search.schedule, []
    if advice is not None:
        entries.append(LedgerEntry(depth=schedule[-1], phase="advice", epochs=advice.epochs, full_depth_epochs=advice.cost))
    if config.search.distill == "full":
        from odn.stages.teachers import read_teacher_record

        folder = depths / str(schedule[0]) / "teacher"
        record = read_teacher_record(folder)
        if record.depth is None or record.epochs is None or record.full_depth_epochs is None:
            raise damaged(folder / "teacher.json", "it does not say what training the teacher took", made_by=f"train@{schedule[0]}")
        cost = record.full_depth_epochs
        entries.append(LedgerEntry(depth=record.depth, phase="teacher", epochs=record.epochs, full_depth_epochs=cost))
    return entries


def _fitting(path: Path, *, depth: int, manifest: Manifest) -> Architecture:
    """Read what network is kept.

    Raises:
        DataError: it is damaged, or not for the prepared data and the depth that was judged.
    """
    architecture = read_record(Architecture, path, made_by="dvc repro")
    found = architecture.depth, architecture.in_channels, architecture.n_classes
    if found != (depth, manifest.channels, manifest.n_classes):
        wanted = f"depth {depth}, {manifest.channels} channels and {manifest.n_classes} classes"
        raise DataError(f"the network that was judged is not one of {wanted}, but of {found}; run 'dvc repro -f check@{depth}'")
    return architecture


def _provenance(config: Config, phase: str, *, manifest: Manifest) -> dict[str, Any]:
    names = ("source", "classes", "channels", "height", "width", "mean", "std", "duplicates")
    shape = {name: getattr(manifest, name) for name in names}
    return {"weights_from": phase, "target": config.search.target, **shape, "data_sha256": manifest.sha256, "seed": config.seed}


def _steps(search: Sequence[Judged]) -> list[dict[str, Any]]:
    entries = []
    for item in search:
        verdict = item.verdict
        probe = {"probe_accuracy": verdict.val_accuracy, "probe_interval": verdict.val_interval} if verdict.probed else {}
        judged = {"verdict": verdict.shown, "reason": verdict.reason, "probed": verdict.probed}
        step = {name: value for name, value in asdict(item.step).items() if name != "left"}
        entries.append(step | _of_depth(item) | judged | {"probe_accuracy": None, "probe_interval": None} | probe)
    return entries


def _of_depth(item: Judged) -> dict[str, Any]:
    """Return the depth of the network that training left, and, where it was pruned, the depth that it began with."""
    return {"depth": item.step.kept, "pruned_from": item.step.depth if item.step.left is not None else None}


def _depth_rows(search: Sequence[Judged]) -> list[dict[str, Any]]:
    return [
        {
            "depth": item.step.kept,
            "read_out": item.verdict.read_out,
            "val_accuracy": item.verdict.val_accuracy,
            "probed": int(item.verdict.probed),
            "verdict": item.verdict.shown,
            "n_params": item.step.n_params,
            "size_bytes": item.step.size_bytes,
            "macs": item.step.macs,
            "full_depth_epochs": item.step.cost + item.verdict.cost,
        }
        for item in search
    ]
