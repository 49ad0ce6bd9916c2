"""Load one exported file, classify one image, and print the peak of this process's memory: `python -m odn.export.peak`.

Arguments: the format or `network`, the file or the network's folder, threads, channels, height, width.
"""

import re
import resource
import sys
from pathlib import Path

import numpy as np

from odn.export.names import NETWORK
from odn.export.runtimes import Run, open_artifact


def main(arguments: list[str]) -> None:
    """Do so."""
    name, path, threads, *image = arguments
    run = _network(Path(path), int(threads)) if name == NETWORK else open_artifact(Path(path), format_name=name, threads=int(threads))
    run(np.zeros((1, *map(int, image)), dtype=np.uint8))
    sys.stdout.write(f"{peak()}\n")


def peak() -> int:
    """Return the bytes that were resident at most.

    Linux counts them for what a process runs now; `getrusage` still counts what its parent had when it was forked.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found is not None:
        return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _network(folder: Path, threads: int) -> Run:
    import torch

    from odn.export.runtimes import torch_run
    from odn.models.stored_networks import load_network

    torch.set_num_threads(threads)
    network = load_network(folder)

    def outputs(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = network(pixels.float())
        return logits, logits.softmax(1)

    return torch_run(outputs)


if __name__ == "__main__":
    main(sys.argv[1:])
