"""Train one depth: grown from the depth before it, until its curve on val is flat, whatever the target; or as `search.mode` says.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths/{after}, work/gates/{after}.json
Writes: work/depths/{depth}
Config: seed, data, model, train, augment, growth, search.mode, search.distill, paper, supernet, auto, prune,
  distill.weight, distill.temperature, distill.epochs
"""

from collections.abc import Callable
from pathlib import Path

from odn.config import Config
from odn.files import new_folder, require_own_folder, write_json
from odn.search.convergence import DepthStep
from odn.stages.advised import ask, followed, read_advice, write_advice
from odn.stages.records import SKIPPED, read_gate


def run(config: Config, *, depth: int, after: int, prepared: Path, before: Path, gate: Path, out: Path, progress: Path) -> DepthStep | None:
    """Train `depth` and write its folder; behind a closed gate write a marker and return None, before torch is imported.

    Raises:
        MissingInputError: prepared data, the gate or the depth before is missing.
        TrainingError: the loss is not finite.
        ConfigError: the schedule does not grow `depth` from `after`.
        OutputError: the place of the depth's folder holds what odn did not write.
        TrackingError, DataError: the teacher that `search.distill` names cannot be fetched, or is for other data.
    """
    config.require_pair(depth, after=after)
    require_own_folder(out)
    if not read_gate(gate, made_by=f"check@{after}" if after else "open").is_open:
        with new_folder(out) as folder:
            write_json(folder / "metrics.json", {"depth": depth, **SKIPPED})
        return None
    advice = None
    if config.search.mode == "auto":
        advice = read_advice(before, config) if after else ask(config, prepared=prepared, progress=progress)
    config = followed(config, advice)
    step = _trainer(config.search.mode)(config, depth=depth, after=after, prepared=prepared, before=before, out=out, progress=progress)
    if advice is not None:
        write_advice(out, advice)
    return step


def _trainer(mode: str) -> Callable[..., DepthStep]:
    match mode:
        case "paper":
            from odn.stages.trainers.published import train_as_published

            return train_as_published
        case "supernet":
            from odn.stages.trainers.supernet import train_in_supernet

            return train_in_supernet
        case "prune":
            from odn.stages.trainers.pruned import train_and_prune

            return train_and_prune
        case _:
            from odn.stages.trainers.grown import train_grown

            return train_grown
