"""Where the files of a search lie: one folder holds every trained depth, every verdict, and what was decided after each."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SearchFolder:
    """Name the places of a search's files below `root`; depth 0 stands before the first."""

    root: Path

    def trained(self, depth: int) -> Path:
        """Return the folder of a trained depth: its network, what the next depth inherits, metrics.json and history.csv."""
        return self.root / "depths" / str(depth)

    def judged(self, depth: int) -> Path:
        """Return the folder of a verdict: verdict.json and, where the depth was annealed for a trial, the network."""
        return self.root / "checks" / str(depth)

    def decision(self, depth: int) -> Path:
        """Return the file that says whether the search goes on behind a depth."""
        return self.root / "decisions" / f"{depth}.json"

    def state(self, depth: int) -> Path:
        """Return the file of a trained depth's training state."""
        return self.trained(depth) / "state.safetensors"

    def supernet(self, depth: int) -> Path:
        """Return the folder of the network with all exits that a depth is an exit of."""
        return self.trained(depth) / "supernet"
