"""Decide to begin, so that on DVC, which knows no "first", every depth has a decision before it.

Where all depths are trained together the first depends on the whole schedule, and finds it here.

Reads: nothing
Writes: work/depths/0, work/checks/0, work/decisions/0.json
Config: search.mode, search.schedule
"""

from odn.config import Config
from odn.files import new_folder, write_json
from odn.searching.folder import SearchFolder
from odn.searching.records import SKIPPED, Decision, write_decision


def run(config: Config, *, search: SearchFolder) -> Decision:
    """Write an empty depth 0, no verdict on it, and the decision to go on behind it."""
    together = {"schedule": config.search.schedule} if config.mode.together else {}
    with new_folder(search.trained(0)) as folder:
        write_json(folder / "metrics.json", {"depth": 0, **SKIPPED, **together})
    with new_folder(search.judged(0)) as folder:
        write_json(folder / "verdict.json", {"depth": 0, **SKIPPED})
    decision = Decision(verdict="expand")
    write_decision(search.decision(0), decision)
    return decision
