"""Judge one depth against the target: hopeless depths expand at once, promising ones earn a cooldown and one evaluation on val.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths/{depth}, work/checks/{after},
  work/decisions/{after}.json
Writes: work/checks/{depth}, work/decisions/{depth}.json
Config: seed, model, train, augment, search
"""

import contextlib
from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import new_folder, require_own_folder, write_json
from odn.processes import rank
from odn.searching.convergence import DepthStep, Verdict, judge, wants_trial
from odn.searching.folder import SearchFolder
from odn.searching.records import SKIPPED, Decision, history_rows, read_decision, write_decision, write_table
from odn.searching.results import read_depth_step, read_verdict
from odn.storage import Objects
from odn.training.torchrun import Start, run_processes, wants_processes


def run(
    config: Config, *, depth: int, after: int, prepared: Path, search: SearchFolder, progress: Path, start: Start = run_processes
) -> Verdict | None:
    """Write the verdict on `depth` and what is decided behind it; where the search has ended hand that on and return None.

    `start` starts several processes, where the settings ask for them.

    Raises:
        MissingInputError: prepared data, the decision before or the trained depth is missing.
        ConfigError: the schedule does not grow `depth` from `after`; torchrun started another number of processes.
        OutputError: the place of the verdict's folder holds what odn did not write.
        TrainingError: the loss is not finite, or one of several processes is gone.
    """
    config.require_pair(depth, after=after)
    require_own_folder(search.judged(depth))
    before = read_decision(search.decision(after), made_by=f"check@{after}" if after else "open")
    step = read_depth_step(search.trained(depth))
    if rank() and (not before.goes_on or step is None or not wants_trial(step, config.search)):
        return None  # nothing is trained: the first process alone judges
    if not before.goes_on or step is None:
        with new_folder(search.judged(depth)) as folder:
            write_json(folder / "verdict.json", {"depth": depth, **SKIPPED})
        write_decision(search.decision(depth), before)
        return None
    if wants_trial(step, config.search) and wants_processes(config):
        start(config, "check", depth=depth, after=after, prepared=prepared, search=search.root, progress=progress)
        return read_verdict(search.judged(depth))
    if wants_trial(step, config.search):
        verdict = _annealed(config, step=step, prepared=prepared, search=search, progress=progress)
    else:
        below = read_verdict(search.judged(after)) if after else None
        verdict = judge(step, config.search, trial=None, before=below.tried if below is not None else ())
        with new_folder(search.judged(depth)) as folder:
            write_json(folder / "verdict.json", asdict(verdict))
    if rank():
        return verdict
    accepted = depth if verdict.verdict == "target_reached" else None
    write_decision(search.decision(depth), Decision(verdict=verdict.verdict, accepted=accepted))
    return verdict


def _annealed(config: Config, *, step: DepthStep, prepared: Path, search: SearchFolder, progress: Path) -> Verdict:
    from odn.follow import follow
    from odn.models.stored_networks import save_network
    from odn.searching.climb import try_annealed
    from odn.searching.data import opened
    from odn.searching.growth import Cooled
    from odn.searching.strategy import Checkpoints, strategy_of

    data = opened(prepared, config=config, objects=Objects)
    inherited = strategy_of(config).read(search.trained(step.depth), data=data, config=config)
    with contextlib.ExitStack() as held:
        checkpoints = Checkpoints(
            progress if data.machine.group.leads else None, config=config, held=held, inputs=[search.state(step.depth)]
        )
        events = try_annealed(inherited, step, data=data, config=config, checkpoints=checkpoints)
        cooled = follow(events, Cooled, config=config, data=data)
        verdict = judge(step, config.search, trial=cooled.trial)
        if not data.machine.group.leads:
            return verdict
        with new_folder(search.judged(step.depth)) as folder:
            save_network(cooled.network, folder)
            write_table(folder / "history.csv", history_rows(cooled.rows))
            write_json(folder / "verdict.json", asdict(verdict))
    return verdict
