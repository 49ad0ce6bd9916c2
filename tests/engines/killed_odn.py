"""Be `odn`, keeping a checkpoint after every step; with DIES set, SIGKILL comes right after the second step of each second epoch.

A training that goes on from its checkpoint does not come by that step again, so that each dies once.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from odn.cli import main
from odn.models import timing
from odn.training import fit
from odn.training.checkpoint import Checkpoint, save_checkpoint


def save_and_die(path: Path, checkpoint: Checkpoint[dict[str, Any]]) -> None:
    """Keep a checkpoint, note it, and die if its time has come."""
    save_checkpoint(path, checkpoint)
    place = path.parent.name, checkpoint.record["epochs"], checkpoint.record["step"]
    with Path("steps.txt").open("a") as steps:
        print(*place, file=steps)
    if place[1:] == (1, 2) and "DIES" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    fit.CHECKPOINT_SECONDS = 0.0
    fit.save_checkpoint = save_and_die  # type: ignore[attr-defined]
    timing.SECONDS = 0.01
    sys.exit(main())
