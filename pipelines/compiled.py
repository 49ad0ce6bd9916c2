"""Compile the pipeline to YAML, and read it back: what is submitted is what is run and tested."""

import subprocess
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from odn.config import N_BLOCKS, Config, load_config, make_config
from odn.errors import MissingInputError
from odn.files import write_text
from pipelines.graph import build
from pipelines.platform import Platform


def settings_for(params: Path, *, backbone: str | None) -> Config:
    """Read the settings; another backbone brings a schedule of all its depths.

    Raises:
        ConfigError: a setting is refused.
    """
    config = load_config(params)
    if backbone is None or backbone == config.model.backbone:
        return config
    settings = config.model_dump(mode="json")
    settings["model"]["backbone"] = backbone
    settings["search"]["schedule"] = list(range(1, N_BLOCKS.get(backbone, 1) + 1))
    return make_config(settings)


def compile_pipeline(config: Config, *, platform: Platform, out: Path) -> None:
    """Write the pipeline's YAML, whole or not at all; the same settings and platform give the same bytes."""
    partial = out.with_name(f".{out.stem}.partial.yaml")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        compiler.Compiler().compile(build(config, platform=platform, commit=head_commit(Path())), str(partial))
        read_compiled(partial)
        write_text(out, partial.read_text())
    finally:
        partial.unlink(missing_ok=True)


def read_compiled(path: Path) -> dict[str, Any]:
    """Return the pipeline spec of a compiled YAML, checked against KFP's schema.

    Raises:
        MissingInputError: there is no such file, or it holds no pipeline.
    """
    try:
        spec = next(yaml.safe_load_all(path.read_text()))
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except FileNotFoundError:
        raise MissingInputError(f"{path} is missing; run 'python -m pipelines compile' first") from None
    except (yaml.YAMLError, json_format.ParseError, StopIteration) as error:
        raise MissingInputError(f"{path} holds no compiled pipeline ({error}); run 'python -m pipelines compile' again") from None
    return dict(spec)


def head_commit(project: Path) -> str:
    """Return the commit of the working tree, "" where it is none."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
