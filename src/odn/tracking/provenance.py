"""Say where a result comes from: the git commit, and the versions that DVC gave to the data and the model."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from odn import __version__

IMAGE = "ODN_IMAGE"  # names the image that a pipeline was compiled for, in the step that registers
WRITTEN_BY_THE_PIPELINE = ("dvc.lock", "metrics", "plots")  # tracked by git, and changed by every run


def provenance(project: Path) -> dict[str, str]:
    """Return the tags that say where a result comes from; what cannot be known (no git, no DVC, no image) has no tag."""
    tags = {"odn.version": __version__}
    if image := os.environ.get(IMAGE):
        tags["odn.image"] = image
    commit = _git(project, "rev-parse", "HEAD")
    if commit:
        others = [f":!{path}" for path in WRITTEN_BY_THE_PIPELINE]
        changed = _git(project, "status", "--porcelain", "--untracked-files=no", "--", ".", *others)
        tags |= {"mlflow.source.git.commit": commit, "odn.git.dirty": "true" if changed else "false"}
    data = _outs(_yaml(project / "data.dvc").get("outs"))
    stages = _yaml(project / "dvc.lock").get("stages")
    truncate = stages.get("truncate") if isinstance(stages, dict) else None
    model = _outs(truncate.get("outs") if isinstance(truncate, dict) else None)
    if "data" in data:
        tags["odn.dvc.data"] = data["data"]
    if "model" in model:
        tags["odn.dvc.model"] = model["model"]
    return tags


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, ValueError, RecursionError):  # damaged, or no file of DVC's
        return {}
    return content if isinstance(content, dict) else {}


def _outs(outs: Any) -> dict[str, str]:
    entries = outs if isinstance(outs, list) else []
    return {str(out["path"]): str(out["md5"]) for out in entries if isinstance(out, dict) and {"path", "md5"} <= set(out)}
