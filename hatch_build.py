"""Compile src/odn/compiled/residual.cpp when odn is built or installed, as hatchling asks; do nothing elsewhere than on x86-64 Linux."""

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/odn/compiled/residual.cpp")
TAG = "py3-none-manylinux_2_17_x86_64"
# No rounding is traded for speed, but for multiplications that are fused with additions: the same bytes on every processor with AVX2.
FLAGS = (
    *("-std=c++17", "-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v3", "-O3", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-exceptions", "-fno-rtti", "-nostdlib++", "-fPIC", "-shared", "-s"),
)


class CustomBuildHook(BuildHookInterface[Any]):
    """Put the compiled library beside its source, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile with Zig's C++ compiler, which is a Python package."""
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            return
        source = Path(self.root) / SOURCE
        compiled = source.with_name("libresidual.so")
        digest = f'-DSOURCE="{hashlib.sha256(source.read_bytes()).hexdigest()}"'
        subprocess.run([sys.executable, "-m", "ziglang", "c++", *FLAGS, digest, str(source), "-o", str(compiled)], check=True)
        build_data["artifacts"].append(str(compiled.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = TAG
