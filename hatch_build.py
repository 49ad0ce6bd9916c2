"""Compile the C++ of src/odn/compiled when odn is built or installed, as hatchling asks; do nothing elsewhere than on x86-64 Linux."""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = Path("src/odn/compiled")
LIBRARY = COMPILED / "libodn.so"
TAG = "py3-none-manylinux_2_17_x86_64"
# No rounding is traded for speed, but for multiplications that are fused with additions: the same bytes on every processor with AVX2.
FLAGS = (
    *("-std=c++17", "-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v3", "-O3", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-exceptions", "-fno-rtti", "-nostdlib++", "-fPIC", "-shared", "-s"),
)


class CustomBuildHook(BuildHookInterface[Any]):
    """Put the compiled library beside its sources, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile."""
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            return
        compile_library(Path(self.root))
        build_data["artifacts"].append(str(LIBRARY))
        build_data["pure_python"] = False
        build_data["tag"] = TAG


def compile_library(root: Path) -> None:
    """Compile with Zig's C++ compiler, which is a Python package; the library knows the digest of what it is made of."""
    sources = sorted((root / COMPILED).glob("*.cpp"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    made = root / LIBRARY.with_suffix(".part")
    compiler = (sys.executable, "-m", "ziglang", "c++")
    subprocess.run([*compiler, *FLAGS, f'-DSOURCE="{digest}"', *map(str, sources), "-o", str(made)], check=True)
    made.replace(root / LIBRARY)
