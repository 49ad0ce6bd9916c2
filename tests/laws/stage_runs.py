"""Run the stages of a search in a folder, without DVC."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from laws.search_data import open_data, prepare_digits
from odn.config import Config
from odn.export.artifacts import Exported
from odn.models.stored_networks import save_network
from odn.searching.climb import SearchStep, expand
from odn.searching.folder import SearchFolder
from odn.stages import check, evaluate, export, train, truncate
from odn.stages import open as open_stage


class Stages:
    """Run the stages of a search in a folder, as DVC would."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.work, self.folder = config, folder / "work", folder
        self.prepared = prepare_digits(config, folder)
        self.depths, self.checks, self.decisions = (self.work / name for name in ("depths", "checks", "decisions"))
        self.places = SearchFolder(self.work)
        open_stage.run(config, search=self.places)

    def search(self) -> None:
        """Train and check every depth of the schedule."""
        for depth in self.config.search.schedule:
            after = self.config.depth_before(depth)
            for stage in (train, check):
                stage.run(
                    self.config, depth=depth, after=after, prepared=self.prepared, search=self.places, progress=self.folder / "progress"
                )

    def truncate(self) -> dict[str, Any]:
        """Cut and finish the accepted depth."""
        return truncate.run(
            self.config,
            prepared=self.prepared,
            search=self.places,
            model=self.folder / "model",
            metrics=self.folder / "metrics" / "search.json",
            plots=self.folder / "plots",
            progress=self.folder / "progress",
        )

    def evaluate(self) -> dict[str, Any]:
        """Certify the model on test."""
        return evaluate.run(
            self.config,
            prepared=self.prepared,
            model=self.folder / "model",
            search=self.places,
            evaluation=self.work / "evaluation",
            metrics=self.folder / "metrics" / "evaluation.json",
            latency=self.folder / "metrics" / "latency.json",
        )

    def export(self) -> Exported:
        """Write the model as files for other runtimes."""
        return export.run(
            self.config,
            prepared=self.prepared,
            model=self.folder / "model",
            exported=self.folder / "export",
            metrics=self.folder / "metrics" / "export.json",
            latency=self.folder / "metrics" / "export_latency.json",
        )


def read(path: Path) -> dict[str, Any]:
    """Read a record."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def require_agreement(stages: Stages, folder: Path) -> list[SearchStep]:
    """Assert that `expand` gives the records and weights that the stages wrote, and return its steps."""
    steps = list(expand(open_data(stages.config, stages.prepared), stages.config))
    for found in steps:
        trained, checked = (place / str(found.step.depth) for place in (stages.depths, stages.checks))
        assert read(trained / "metrics.json") == json.loads(json.dumps(asdict(found.step)))
        assert read(checked / "verdict.json") == json.loads(json.dumps(asdict(found.verdict)))
        save_network(found.network, folder)
        judged = checked if found.verdict.annealed else trained
        assert (folder / "weights.safetensors").read_bytes() == (judged / "weights.safetensors").read_bytes()
    records = {depth: read(stages.depths / str(depth) / "metrics.json") for depth in stages.config.search.schedule}
    assert [found.step.depth for found in steps] == [depth for depth, record in records.items() if "skipped" not in record]
    return steps
