"""Load what was compiled when odn was installed (see hatch_build.py): one library of all the C++ that lies here."""

import ctypes
import functools
import platform
from pathlib import Path

import torch

from odn.errors import TrainingError
from odn.files import sha256_of

HERE = Path(__file__).parent
LIBRARY = HERE / "libodn.so"
SYSTEM = ("Linux", "x86_64")  # for which it is compiled
CAPABLE = {"AVX2", "AVX512"}  # what PyTorch calls processors that have what it is compiled for


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the library; None on systems for which it is not compiled, and processors that lack AVX2.

    Raises:
        TrainingError: it is not there, or of another source.
    """
    if (platform.system(), platform.machine()) != SYSTEM or torch.backends.cpu.get_cpu_capability() not in CAPABLE:
        return None
    if not LIBRARY.exists():
        raise TrainingError(f"{LIBRARY} is missing; install odn again (in a clone of it: make setup)")
    loaded, pointer, whole, real = ctypes.CDLL(str(LIBRARY)), ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    loaded.odn_source.restype = ctypes.c_char_p
    if loaded.odn_source().decode() != sha256_of(*sorted(HERE.glob("*.cpp"))):
        raise TrainingError(f"{LIBRARY} is not made of the C++ beside it as it is; install odn again (in a clone of it: make setup)")
    loaded.odn_make.restype = pointer
    loaded.odn_make.argtypes = [pointer, *[whole] * 5, real, real]
    loaded.odn_orthogonalise.restype = whole
    loaded.odn_orthogonalise.argtypes = [*[pointer] * 4, whole]
    for function, n_arguments in ((loaded.odn_forward, 5), (loaded.odn_backward, 2), (loaded.odn_release, 1)):
        function.restype = None
        function.argtypes = [pointer] * n_arguments
    return loaded
