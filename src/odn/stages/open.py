"""Decide to begin, so that on DVC, which knows no "first", every depth has a decision before it; and bring the pretrained weights.

Where all depths are trained together the first depends on the whole schedule, and finds it here.

Reads: nothing
Writes: work/depths/0, work/checks/0, work/decisions/0.json, work/pretrained
Config: search.mode, search.schedule, model.backbone, model.weights, export.formats
"""

import tempfile
from pathlib import Path

from odn.config import Config
from odn.export.installed import require_installed
from odn.files import new_folder, require_own_folder, write_json
from odn.searching.folder import SearchFolder
from odn.searching.pretraining import write_pretraining
from odn.searching.records import SKIPPED, Decision, write_decision


def run(config: Config, *, search: SearchFolder) -> Decision:
    """Write the weights that every depth sets off with, an empty depth 0, no verdict on it, and the decision to go on behind it.

    Raises:
        OutputError: one of the folders holds what odn did not write.
        ConfigError: what one of `export.formats` needs is not installed: the export would fail when all is trained.
        MissingInputError, DataError, ConfigError: `model.weights` names what is not there, damaged, or not weights of the backbone.
        StorageError: its s3:// address cannot be read.
    """
    require_installed(config.export.formats)
    for place in (search.pretrained, search.trained(0), search.judged(0)):
        require_own_folder(place)
    with tempfile.TemporaryDirectory() as scratch, new_folder(search.pretrained) as folder:
        write_pretraining(folder, config=config, source=_source(config.model.weights, scratch=Path(scratch)))
    together = {"schedule": config.search.schedule} if config.mode.together else {}
    with new_folder(search.trained(0)) as folder:
        write_json(folder / "metrics.json", {"depth": 0, **SKIPPED, **together})
    with new_folder(search.judged(0)) as folder:
        write_json(folder / "verdict.json", {"depth": 0, **SKIPPED})
    decision = Decision(verdict="expand")
    write_decision(search.decision(0), decision)
    return decision


def _source(weights: str | None, *, scratch: Path) -> Path | None:
    """Return the file of the weights, fetched where it has an address; None where there is none, or timm knows it."""
    if weights is None or weights == "timm":
        return None
    if weights.startswith("s3://"):
        from odn.storage import download_file

        return download_file(weights, folder=scratch)
    return Path(weights).expanduser()
