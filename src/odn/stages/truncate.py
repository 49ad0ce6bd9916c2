"""Cut the network at the accepted depth, finish it with a longer cooldown, and write the model with the record of its search.

On a spread ladder networks between the accepted rung and the one before it are tried too; the smallest good one is kept.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/pretrained, work/depths, work/checks
Writes: model, metrics/search.json, plots/depths.csv, plots/history.csv
Config: seed, model, train, augment, growth, search, climb, prune, finish
"""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.config import Config
from odn.data.dataset import Manifest, read_manifest
from odn.errors import DataError, MissingInputError
from odn.files import new_folder, require_own_folder, write_json
from odn.models.architecture import Architecture
from odn.models.ladder import ladder_of
from odn.processes import rank
from odn.records import read_record
from odn.searching.folder import SearchFolder
from odn.searching.outcome import Choice, Judged, choose, finish_epochs, finish_wins, full_network_epochs, ledger, refines, summary
from odn.searching.records import depth_rows, join_histories, read_search, step_records, write_table
from odn.storage import Objects
from odn.training.torchrun import Start, run_processes, wants_processes

if TYPE_CHECKING:
    from odn.searching.finishing import Finished


def run(
    config: Config,
    *,
    prepared: Path,
    search: SearchFolder,
    model: Path,
    metrics: Path,
    plots: Path,
    progress: Path,
    start: Start = run_processes,
) -> dict[str, Any]:
    """Write the model folder, the flat metrics and the two tables; return the flat metrics.

    Where the search is exhausted the best depth by the one-standard-error rule is kept, and the model says so.

    `start` starts several processes, where the settings ask for them.

    Raises:
        OutputError: the model's place holds what odn did not write.
        MissingInputError: a record is missing, or the search has not ended.
        TrainingError: the loss is not finite, or one of several processes is gone.
        ConfigError: torchrun started another number of processes than the settings say.
    """
    require_own_folder(model)
    manifest = read_manifest(prepared / "dataset.json")
    judged = read_search(config.search.schedule, folder=search)
    choice = choose(judged)
    if choice is None:
        raise MissingInputError(f"{search.root / 'checks'} says that the search has not ended; run 'dvc repro' first")
    if _trains(config, choice) and wants_processes(config):
        places = {"prepared": prepared, "search": search.root, "model": model, "metrics": metrics.parent, "plots": plots}
        start(config, "truncate", **places, progress=progress)
        return dict(read_record(dict[str, Any], metrics, made_by="truncate"))
    with contextlib.ExitStack() as held:
        done = _finished(config, judged, choice, prepared=prepared, search=search, progress=progress, held=held)
        finish = done.cooled.trial if done is not None and done.cooled is not None else None
        looks, rows = (done.refinements, done.rows) if done is not None else ((), ())
        entries = ledger(judged, choice, finish, refinements=looks, phase=config.mode.phase)
        about, spent = summary(choice, finish, refinements=looks, search=config.search), full_network_epochs(entries)
        low, high = about["val_interval"]
        flat = {name: about[name] for name in ("verdict", "depth", "val_accuracy")}
        flat |= {"val_accuracy_low": low, "val_accuracy_high": high, "target": config.search.target}
        if rank():
            return flat  # the first process writes
        with new_folder(model) as folder:
            phase = _write_network(folder, done, choice, config=config, search=search)
            refined = phase == "refine"
            architecture = _fitting(folder / "architecture.json", number=about["depth"], config=config, manifest=manifest, refined=refined)
            write_json(folder / "card.json", about | _provenance(config, phase, manifest=manifest))
            record = {"steps": step_records(judged), "ledger": [asdict(entry) for entry in entries], "full_network_epochs": spent}
            record |= {"refinements": [asdict(one) for one in looks]} if looks else {}
            write_json(folder / "search.json", about | record)
        flat |= {"n_blocks": architecture.n_blocks, "full_network_epochs": spent}
        write_table(plots / "depths.csv", depth_rows(judged))
        join_histories(plots / "history.csv", judged, folder=search, last=rows)
        write_json(metrics, flat)
    return flat


def _finished(
    config: Config,
    judged: Sequence[Judged],
    choice: Choice,
    *,
    prepared: Path,
    search: SearchFolder,
    progress: Path,
    held: contextlib.ExitStack,
) -> "Finished | None":
    """Train what there is to train after a depth was accepted; None, before torch is imported, where there is nothing."""
    if not _trains(config, choice):
        return None
    from odn.follow import follow
    from odn.models.stored_networks import load_network
    from odn.searching.data import opened
    from odn.searching.finishing import Finished, finished
    from odn.searching.strategy import Checkpoints, strategy_of

    data, strategy = opened(prepared, config=config, objects=Objects, weights=search.pretrained), strategy_of(config)
    annealed = {item.step.depth: item.verdict.annealed for item in judged}
    inputs = [*(search.state(item.step.depth) for item in judged), search.pretrained / "pretrained.json"]
    events = finished(
        judged,
        choice,
        inherited=lambda depth: strategy.read(search.trained(depth), data=data, config=config),
        network=lambda depth: load_network(search.judged(depth) if annealed[depth] else search.trained(depth)),
        data=data,
        config=config,
        checkpoints=Checkpoints(progress if data.machine.group.leads else None, config=config, held=held, inputs=inputs),
    )
    return follow(events, Finished, config=config, data=data)


def _trains(config: Config, choice: Choice) -> bool:
    return bool(finish_epochs(config, choice)) or refines(config, choice)


def _write_network(folder: Path, done: "Finished | None", choice: Choice, *, config: Config, search: SearchFolder) -> str:
    """Write the network that is kept; return the phase that its weights are from."""
    from_here = None
    if done is not None and done.refined is not None:
        phase, from_here = "refine", done.refined
    elif done is not None and done.cooled is not None and finish_wins(choice, done.cooled.trial, search=config.search):
        phase, from_here = "finish", done.cooled.network
    else:
        phase = "trial" if choice.judged.verdict.annealed else config.mode.phase
    if from_here is not None:
        from odn.models.stored_networks import save_network

        save_network(from_here, folder)
    else:
        depth = choice.judged.step.depth
        judged = search.judged(depth) if choice.judged.verdict.annealed else search.trained(depth)
        for name in ("architecture.json", "weights.safetensors"):
            shutil.copyfile(judged / name, folder / name)
    return phase


def _fitting(path: Path, *, number: int, config: Config, manifest: Manifest, refined: bool) -> Architecture:
    """Read what network is kept: a prefix of so many blocks, the rung of this number, or one `refined` below it.

    Raises:
        DataError: it is damaged, or not for the prepared data and the network that was judged.
    """
    architecture = read_record(Architecture, path, made_by="dvc repro")
    depth = architecture.depth if refined else number
    if config.spreads and not refined:
        depth = ladder_of(architecture.whole, config=config, height=manifest.height, width=manifest.width)[number - 1].depth
    found = architecture.depth, architecture.in_channels, architecture.n_classes
    if found != (depth, manifest.channels, manifest.n_classes):
        wanted = f"depth {depth}, {manifest.channels} channels and {manifest.n_classes} classes"
        raise DataError(f"the network that was judged is not one of {wanted}, but of {found}; run 'dvc repro -f check@{number}'")
    return architecture


def _provenance(config: Config, phase: str, *, manifest: Manifest) -> dict[str, Any]:
    names = ("source", "classes", "channels", "height", "width", "mean", "std", "duplicates")
    shape = {name: getattr(manifest, name) for name in names}
    return {"weights_from": phase, "target": config.search.target, **shape, "data_sha256": manifest.sha256, "seed": config.seed}
