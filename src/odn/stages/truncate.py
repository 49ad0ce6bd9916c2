"""Cut the network at the accepted depth, finish it with a longer cooldown, and write the model with the record of its search.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths, work/checks
Writes: model, metrics/search.json, plots/depths.csv, plots/history.csv
Config: seed, train, augment, search, prune, finish
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.config import N_BLOCKS, Config
from odn.data.dataset import read_manifest
from odn.errors import MissingInputError
from odn.files import new_folder, read_json, write_json
from odn.search.convergence import AS_TRAINED
from odn.search.outcome import Choice, Judged, choose, finish_wins, full_depth_epochs, ledger, summary
from odn.stages.records import join_histories, read_search, write_table

if TYPE_CHECKING:
    from odn.search.expand import Cooled


def run(
    config: Config, *, prepared: Path, depths: Path, checks: Path, model: Path, metrics: Path, plots: Path, progress: Path
) -> dict[str, Any]:
    """Write the model folder, the flat metrics and the two tables; return the flat metrics.

    Where the search is exhausted the best depth by the one-standard-error rule is kept, and the model says so.

    Raises:
        MissingInputError: a record is missing, or the search has not ended.
        TrainingError: the loss is not finite.
    """
    search = read_search(config.search.schedule, depths=depths, checks=checks)
    choice = choose(search)
    if choice is None:
        raise MissingInputError(f"{checks} says that the search has not ended; run 'dvc repro' first")
    depth = choice.judged.step.depth
    cooled = _finished(config, choice=choice, prepared=prepared, depths=depths, progress=progress)
    finish = cooled.probe if cooled is not None else None
    entries = ledger(search, choice, finish)
    about = summary(choice, finish, confidence=config.search.confidence)
    with new_folder(model) as folder:
        if cooled is not None and finish_wins(choice, finish):
            from odn.models.network import save_network

            save_network(cooled.network, folder)
        else:
            judged = (checks if choice.judged.verdict.probed else depths) / str(depth)
            for name in ("architecture.json", "weights.safetensors"):
                shutil.copyfile(judged / name, folder / name)
        architecture = read_json(folder / "architecture.json", made_by="truncate")
        write_json(folder / "card.json", about | _provenance(config, choice, prepared=prepared, is_finished=finish_wins(choice, finish)))
        record = {"steps": _steps(search), "ledger": [asdict(entry) for entry in entries], "full_depth_epochs": full_depth_epochs(entries)}
        write_json(folder / "search.json", about | record)
    low, high = about["val_interval"]
    flat = {name: about[name] for name in ("verdict", "depth", "val_accuracy")}
    flat |= {"val_accuracy_low": low, "val_accuracy_high": high, "target": config.search.target}
    flat |= {"n_blocks": N_BLOCKS[architecture["backbone"]], "full_depth_epochs": full_depth_epochs(entries)}
    write_table(plots / "depths.csv", _depth_rows(search))
    join_histories(plots / "history.csv", search, depths=depths, checks=checks, last=cooled.rows if cooled is not None else ())
    write_json(metrics, flat)
    return flat


def _finished(config: Config, *, choice: Choice, prepared: Path, depths: Path, progress: Path) -> "Cooled | None":
    """Cool the accepted depth's trunk down for longer; a depth that was never probed is cooled down at least like a probe.

    Where training left what was judged, as published, there is no cooldown, and that network is kept; a pruned one may be fine-tuned.
    """
    epochs = _finish_epochs(config, choice)
    if epochs == 0:
        return None
    from odn.search.expand import Cooled, cool_down
    from odn.stages.trunk import read_trunk
    from odn.stages.working import follow, opened, progress_key
    from odn.training.checkpoint import in_progress

    depth = choice.judged.step.depth
    before = choice.judged.step.epochs + choice.judged.verdict.probe_epochs
    data = opened(prepared, train=config.train)
    trunk_file = depths / str(depth) / "trunk.safetensors"
    trunk = read_trunk(trunk_file, machine=data.machine)
    key = progress_key(config, "seed", "train", "augment", inputs=[epochs, data.manifest.sha256, trunk_file])
    with in_progress(progress / "truncate" / f"{key}.safetensors") as checkpoint:
        events = cool_down(trunk, data=data, config=config, name="finish", epochs=epochs, checkpoint=checkpoint)
        return follow(events, Cooled, config=config, data=data, depth=depth, phase="finish", epochs=epochs, epochs_before=before)


def _finish_epochs(config: Config, choice: Choice) -> int:
    if config.search.mode == "prune":
        return config.prune.finetune_epochs
    if config.search.mode in AS_TRAINED:
        return 0
    return config.finish.epochs if choice.judged.verdict.probed else max(config.finish.epochs, config.search.cooldown_epochs)


def _provenance(config: Config, choice: Choice, *, prepared: Path, is_finished: bool) -> dict[str, Any]:
    manifest = asdict(read_manifest(prepared / "dataset.json"))
    shape = {name: manifest[name] for name in ("source", "classes", "channels", "height", "width", "mean", "std")}
    phase = "finish" if is_finished else "probe" if choice.judged.verdict.probed else "stable"
    return {"weights_from": phase, "target": config.search.target, **shape, "data_sha256": manifest["sha256"], "seed": config.seed}


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
