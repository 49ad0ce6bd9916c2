"""Judge one depth against the target: hopeless depths expand at once, promising ones earn a cooldown and one look at val.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/depths/{depth}, work/gates/{after}.json
Writes: work/checks/{depth}, work/gates/{depth}.json
Config: seed, model, train, augment, search, distill.weight, distill.temperature
"""

from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import new_folder, require_own_folder, write_json
from odn.search.convergence import DepthStep, Verdict, judge, wants_probe
from odn.search.results import read_depth_step
from odn.stages.advised import followed, read_advice
from odn.stages.records import SKIPPED, Gate, history_rows, read_gate, write_gate, write_table


def run(
    config: Config, *, depth: int, after: int, prepared: Path, trained: Path, gate: Path, out: Path, gate_out: Path, progress: Path
) -> Verdict | None:
    """Write the verdict on `depth` and the gate behind it; behind a closed gate hand the gate on and return None.

    Raises:
        MissingInputError: prepared data, the gate or the trained depth is missing.
        ConfigError: the schedule does not grow `depth` from `after`.
        OutputError: the place of the verdict's folder holds what odn did not write.
        TrainingError: the loss is not finite.
    """
    config.require_pair(depth, after=after)
    require_own_folder(out)
    before = read_gate(gate, made_by=f"check@{after}" if after else "open")
    step = read_depth_step(trained)
    if not before.is_open or step is None:
        with new_folder(out) as folder:
            write_json(folder / "verdict.json", {"depth": depth, **SKIPPED})
        write_gate(gate_out, before)
        return None
    config = followed(config, read_advice(trained, config))
    if wants_probe(step, config.search):
        verdict = _probe(config, step=step, prepared=prepared, trained=trained, out=out, progress=progress)
    else:
        verdict = judge(step, config.search, probe=None)
        with new_folder(out) as folder:
            write_json(folder / "verdict.json", asdict(verdict))
    accepted = depth if verdict.verdict == "target_reached" else None
    write_gate(gate_out, Gate(verdict=verdict.verdict, accepted=accepted))
    return verdict


def _probe(config: Config, *, step: DepthStep, prepared: Path, trained: Path, out: Path, progress: Path) -> Verdict:
    from odn.models.stored_networks import save_network
    from odn.search.expand import Cooled, cool_down
    from odn.stages.states import read_state
    from odn.stages.teachers import read_teacher, teaching_inputs
    from odn.stages.working import follow, opened, progress_key
    from odn.training.checkpoint import in_progress

    data = opened(prepared, config=config)
    state = read_state(trained / "state.safetensors", machine=data.machine)
    teacher, epochs = read_teacher(config, trained, data=data), config.search.cooldown_epochs
    inputs = [epochs, data.manifest.sha256, trained / "state.safetensors", *teaching_inputs(config, teacher)]
    key = progress_key(config, "seed", "train", "augment", inputs=inputs)
    # Kept when it is done: a changed target asks for the same probe again, and the answer is there.
    with in_progress(progress / f"check-{step.depth}" / f"{key}.safetensors", keep=True) as checkpoint:
        events = cool_down(state, data=data, config=config, name="probe", epochs=epochs, checkpoint=checkpoint, teacher=teacher)
        cooled = follow(events, Cooled, config=config, data=data, depth=step.depth, phase="probe", epochs=epochs, epochs_before=step.epochs)
        verdict = judge(step, config.search, probe=cooled.probe)
        with new_folder(out) as folder:
            save_network(cooled.network, folder)
            write_table(folder / "history.csv", history_rows(cooled.rows))
            write_json(folder / "verdict.json", asdict(verdict))
    return verdict
