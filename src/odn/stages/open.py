"""Open the gate before the first depth, so that on DVC, which knows no "first", every depth has one before it.

Reads: nothing
Writes: work/depths/0, work/gates/0.json
Config: none
"""

from pathlib import Path

from odn.config import Config
from odn.files import new_folder, write_json
from odn.stages.records import SKIPPED, Gate, write_gate


def run(config: Config, *, out: Path, gate_out: Path) -> Gate:
    """Write an empty depth 0 and an open gate behind it."""
    del config  # no setting changes what an open gate is
    with new_folder(out) as folder:
        write_json(folder / "metrics.json", {"depth": 0, **SKIPPED})
    gate = Gate(verdict="expand")
    write_gate(gate_out, gate)
    return gate
