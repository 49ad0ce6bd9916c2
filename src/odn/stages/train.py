"""Train one depth: grown from the depth before it, until its curve on val is flat, whatever the target; or as `search.mode` says.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/pretrained, work/depths/{after},
  work/decisions/{after}.json
Writes: work/depths/{depth}
Config: seed, data, model, train, augment, growth, search.mode, search.ladder, search.cost, search.max_bytes, search.max_macs,
  search.max_params, climb, paper, supernet, prune
"""

import contextlib
from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import new_folder, require_own_folder, write_json
from odn.processes import rank
from odn.searching.convergence import DepthStep
from odn.searching.folder import SearchFolder
from odn.searching.records import HISTORY, SKIPPED, history_rows, read_decision, write_table
from odn.searching.results import read_depth_step
from odn.storage import Objects
from odn.training.torchrun import Start, run_processes, wants_processes


def run(
    config: Config, *, depth: int, after: int, prepared: Path, search: SearchFolder, progress: Path, start: Start = run_processes
) -> DepthStep | None:
    """Train `depth` and write its folder; where the search has ended write a marker and return None, before torch is imported.

    `start` starts several processes, where the settings ask for them.

    Raises:
        MissingInputError: prepared data, the decision before or the depth before is missing.
        TrainingError: the loss is not finite, or one of several processes is gone.
        ConfigError: the schedule does not grow `depth` from `after`; torchrun started another number of processes.
        OutputError: the place of the depth's folder holds what odn did not write.
    """
    config.require_pair(depth, after=after)
    out = search.trained(depth)
    require_own_folder(out)
    if not read_decision(search.decision(after), made_by=f"check@{after}" if after else "open").goes_on:
        if rank():
            return None
        with new_folder(out) as folder:
            write_json(folder / "metrics.json", {"depth": depth, **SKIPPED})
        return None
    if wants_processes(config):
        start(config, "train", depth=depth, after=after, prepared=prepared, search=search.root, progress=progress)
        return read_depth_step(out)
    return _trained(config, depth=depth, after=after, prepared=prepared, search=search, progress=progress)


def _trained(config: Config, *, depth: int, after: int, prepared: Path, search: SearchFolder, progress: Path) -> DepthStep:
    from odn.follow import follow
    from odn.models.stored_networks import save_network
    from odn.searching.data import opened
    from odn.searching.strategy import Checkpoints, Job, Trained, strategy_of

    data = opened(prepared, config=config, objects=Objects, weights=search.pretrained)
    with contextlib.ExitStack() as held:
        strategy = strategy_of(config)
        inherited = strategy.read(search.trained(after), data=data, config=config) if after else None
        inputs = [*data.manifest.sha256.values(), search.state(after), search.pretrained / "pretrained.json"]
        checkpoints = Checkpoints(progress if data.machine.group.leads else None, config=config, held=held, inputs=inputs)
        job = Job(data=data, config=config, depth=depth, checkpoints=checkpoints)
        trained = follow(strategy.train(inherited, job), Trained, config=config, data=data)
        if data.machine.group.leads:
            with new_folder(search.trained(depth)) as folder:
                save_network(trained.network, folder)
                strategy.write(folder, trained, data=data, config=config)
                write_table(folder / "history.csv", history_rows(trained.rows), columns=HISTORY)
                write_json(folder / "metrics.json", asdict(trained.step))
    return trained.step
