"""Run a `.pte` file in ExecuTorch's own runtime, one image after the other.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from odn.export.runtimes import Logits, Pixels, Run


def open_executorch(content: bytes | Path, threads: int) -> Run:
    """Return what computes logits with a `.pte` file, or with its content, on so many threads of this process."""
    with quiet():
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)  # before a file is loaded: what is loaded holds the old one
        program = Runtime.get().load_program(content if isinstance(content, bytes) else content.read_bytes())
        program.load_method("forward")  # keeps it, and says here what is wrong with the file

    def run(pixels: Pixels) -> Logits:
        method = program.load_method("forward")  # alone, without the program, it would run in memory that is gone
        images = torch.from_numpy(np.ascontiguousarray(pixels))
        return np.concatenate([method.execute([images[number : number + 1]])[0].numpy() for number in range(len(images))])

    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what ExecuTorch and torchao say of themselves: warnings of experiments, notes of the processor. A failure is told whole."""
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)  # notes of native code go to the file, past Python
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BaseException:
            said.seek(0)
            with os.fdopen(os.dup(kept), "wb") as shown:
                shutil.copyfileobj(said, shown)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            logger.setLevel(level)
