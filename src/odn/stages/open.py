"""Open the gate before the first depth, so that on DVC, which knows no "first", every depth has one before it.

Where all depths are trained together the first depends on the whole schedule, and finds it here.

Reads: nothing
Writes: work/depths/0, work/gates/0.json
Config: search.mode, search.schedule
"""

from pathlib import Path

from odn.config import Config
from odn.files import new_folder, write_json
from odn.stages.records import SKIPPED, Gate, write_gate

TOGETHER = ("supernet", "auto")  # modes that may train all depths of the schedule at once


def run(config: Config, *, out: Path, gate_out: Path) -> Gate:
    """Write an empty depth 0 and an open gate behind it."""
    together = {"schedule": config.search.schedule} if config.search.mode in TOGETHER else {}
    with new_folder(out) as folder:
        write_json(folder / "metrics.json", {"depth": 0, **SKIPPED, **together})
    gate = Gate(verdict="expand")
    write_gate(gate_out, gate)
    return gate
