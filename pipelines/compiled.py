"""Compile the pipeline to YAML, and read it back: what is submitted is what is run and tested."""

import subprocess
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from odn.backbones import can_be_narrowed, n_blocks_of
from odn.config import Config, load_config, make_config, rungs_of
from odn.errors import ConfigError, MissingInputError
from odn.files import write_text
from pipelines.graph import NAME, build
from pipelines.platform import Platform
from pipelines.small import make_small

SUFFIXES = {".yaml", ".yml"}  # of the files that kfp reads
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LARGEST_BYTES = 16 * 2**20  # 16 depths have 0.5 MB
WANTED = {
    "config",
    "target",
    "data_source",
    "data_root",
    "max_epochs",
    "epochs",
    "seed",
    "experiment",
}  # what a pipeline of odn's takes, at the least


def settings_for(params: Path, *, backbone: str | None) -> Config:
    """Read the settings; another backbone brings a schedule of all its depths, or of all rungs up to it.

    Raises:
        ConfigError: a setting is refused.
    """
    config = load_config(params)
    if backbone is None or backbone == config.model.backbone:
        return config
    settings = config.model_dump(mode="json")
    settings["model"]["backbone"] = backbone
    spreads = config.spreads and can_be_narrowed(backbone)
    n_steps = rungs_of(backbone, width=config.model.width) if spreads else n_blocks_of(backbone, config.model.arguments)
    settings["search"]["schedule"] = list(range(1, n_steps + 1))
    return make_config(settings)


def compile_pipeline(config: Config, *, platform: Platform, out: Path) -> None:
    """Write the pipeline's YAML, whole or not at all; the same settings and platform give the same bytes.

    Raises:
        ConfigError: `out` cannot be such a file, `model.weights` is a file of this machine, or nodes do not fit `train.processes`.
    """
    weights = config.model.weights
    if weights is not None and weights != "timm" and not weights.startswith("s3://"):
        raise ConfigError(f"model.weights: a cluster's steps do not see {weights}; put it into a bucket and name it s3://…, or say timm")
    platform.require_processes(config.train.processes)
    if out.suffix not in SUFFIXES or out.is_dir():
        raise ConfigError(f"--out: expected a file that ends in .yaml; got {out}{' (a folder)' if out.is_dir() else ''}")
    with tempfile.TemporaryDirectory() as scratch:
        partial = Path(scratch) / "pipeline.yaml"
        compiler.Compiler().compile(build(config, platform=platform, commit=head_commit(Path())), str(partial))
        text = partial.read_text()
        spec, *others = list(yaml.load_all(text, Loader=LOADER))
        make_small(spec, *others)
        about = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))  # kfp's, for a reader
        partial.write_text(about + yaml.safe_dump_all([spec, *others], sort_keys=True))
        read_compiled(partial)
        write_text(out, partial.read_text())


def read_compiled(path: Path) -> dict[str, Any]:
    """Return the pipeline spec of a compiled YAML, checked against KFP's schema.

    Raises:
        MissingInputError: there is no such file, or it holds no pipeline of odn's.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing; run 'python -m pipelines compile' first")
    try:
        spec, *others = list(yaml.load_all(_text_of(path), Loader=LOADER)) or [{}]
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        for other in others:
            json_format.ParseDict(other, pipeline_spec_pb2.PlatformSpec())
        name, inputs = spec["pipelineInfo"]["name"], spec["root"]["inputDefinitions"]["parameters"]
    except (yaml.YAMLError, json_format.ParseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        own = isinstance(error, (yaml.YAMLError, json_format.ParseError, ValueError))  # they say what is wrong; the others, that a part is
        reason = (
            " ".join(str(error).split()) if own else f"it has no {error}" if isinstance(error, KeyError) else "it is not one map of parts"
        )
        raise MissingInputError(f"{path} holds no compiled pipeline ({reason}); run 'python -m pipelines compile' again") from None
    if name != NAME or WANTED - set(inputs):
        raise MissingInputError(f"{path} holds the pipeline {name!r}, not odn's {NAME}; run 'python -m pipelines compile' again")
    return dict(spec)


def _text_of(path: Path) -> str:
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ValueError("it is no file that ends in .yaml")
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, more than the {LARGEST_BYTES:,} of any pipeline")
    text = path.read_text()
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=LOADER)):
        raise ValueError("it has aliases, which kfp does not write: a few lines of them can mean more than any memory holds")
    return text


def head_commit(project: Path) -> str:
    """Return the commit of the working tree, "" where it is none."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
