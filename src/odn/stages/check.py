"""Judge one depth against the target: hopeless depths expand at once, promising ones earn a cooldown and one look at val.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths/{depth}, work/decisions/{after}.json
Writes: work/checks/{depth}, work/decisions/{depth}.json
Config: seed, model, train, augment, search, distill.weight, distill.temperature
"""

import contextlib
from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import new_folder, require_own_folder, write_json
from odn.search.advised import followed, read_advice
from odn.search.convergence import DepthStep, Verdict, judge, wants_probe
from odn.search.folder import SearchFolder
from odn.search.records import SKIPPED, Gate, history_rows, read_gate, write_gate, write_table
from odn.search.results import read_depth_step


def run(config: Config, *, depth: int, after: int, prepared: Path, search: SearchFolder, progress: Path) -> Verdict | None:
    """Write the verdict on `depth` and what is decided behind it; where the search has ended hand that on and return None.

    Raises:
        MissingInputError: prepared data, the decision before or the trained depth is missing.
        ConfigError: the schedule does not grow `depth` from `after`.
        OutputError: the place of the verdict's folder holds what odn did not write.
        TrainingError: the loss is not finite.
    """
    config.require_pair(depth, after=after)
    require_own_folder(search.judged(depth))
    before = read_gate(search.decision(after), made_by=f"check@{after}" if after else "open")
    step = read_depth_step(search.trained(depth))
    if not before.is_open or step is None:
        with new_folder(search.judged(depth)) as folder:
            write_json(folder / "verdict.json", {"depth": depth, **SKIPPED})
        write_gate(search.decision(depth), before)
        return None
    config = followed(config, read_advice(search.trained(depth), config))
    if wants_probe(step, config.search):
        verdict = _annealed(config, step=step, prepared=prepared, search=search, progress=progress)
    else:
        verdict = judge(step, config.search, probe=None)
        with new_folder(search.judged(depth)) as folder:
            write_json(folder / "verdict.json", asdict(verdict))
    accepted = depth if verdict.verdict == "target_reached" else None
    write_gate(search.decision(depth), Gate(verdict=verdict.verdict, accepted=accepted))
    return verdict


def _annealed(config: Config, *, step: DepthStep, prepared: Path, search: SearchFolder, progress: Path) -> Verdict:
    from odn.follow import follow
    from odn.models.stored_networks import save_network
    from odn.search.climb import try_annealed
    from odn.search.data import opened
    from odn.search.growth import Cooled
    from odn.search.strategy import Checkpoints, strategy_of

    data = opened(prepared, config=config)
    inherited = strategy_of(config).read(search.trained(step.depth), data=data, config=config)
    with contextlib.ExitStack() as held:
        checkpoints = Checkpoints(progress, config=config, held=held, inputs=[search.state(step.depth)])
        events = try_annealed(inherited, step, data=data, config=config, checkpoints=checkpoints)
        cooled = follow(events, Cooled, config=config, data=data)
        verdict = judge(step, config.search, probe=cooled.probe)
        with new_folder(search.judged(step.depth)) as folder:
            save_network(cooled.network, folder)
            write_table(folder / "history.csv", history_rows(cooled.rows))
            write_json(folder / "verdict.json", asdict(verdict))
    return verdict
