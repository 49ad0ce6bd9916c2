"""A search of a pretrained network through the stages: a transformer of a few thousand parameters, on digits."""

import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from laws.search_data import open_data
from laws.stage_runs import Stages, read
from odn.commands import look
from odn.config import Config, settings
from odn.errors import ConfigError, MissingInputError, OdnError
from odn.models.architecture import Architecture
from odn.models.network import build
from odn.models.outside import model_of
from odn.models.stored_networks import load_network, weights_digest
from odn.searching.climb import conclude, expand
from odn.searching.data import SearchData
from odn.searching.folder import SearchFolder
from odn.searching.pretraining import pretrained
from odn.stages import open as open_stage

NAME = "timm/vit_tiny_patch16_224"
ARGUMENTS = {"patch_size": 2, "embed_dim": 12, "num_heads": 2}
MODES: dict[str, dict[str, Any]] = {
    "climb": {"search.mode": "climb", "climb.epochs": 1},
    "growth": {"search.mode": "growth", "growth.init": "pretrained", "growth.min_epochs": 1, "growth.max_epochs": 1, "finish.epochs": 1},
}


def configured(weights: Path | None, **changes: Any) -> Config:
    """Return the settings of a search of two depths that both are trained."""
    small = {
        "model.backbone": NAME, "model.arguments": ARGUMENTS, "model.weights": str(weights) if weights else None, "search.ladder": "prefix",
        "search.schedule": [1, 3], "search.target": 0.99, "search.cooldown_epochs": 1, "train.precision": "fp32", "data.max_images": 200,
    }  # fmt: skip
    return settings({**small, **changes})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the weights of a network that reads grey images of 8 x 8."""
    described = Architecture(
        family="timm", name=NAME, arguments={**ARGUMENTS, "img_size": 8}, in_channels=1, n_classes=7, n_blocks=12, depth=12
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tensors = {name: tensor.clone() for name, tensor in model_of(described).state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


def opened(stages: Stages) -> SearchData:
    """Return what `odn.search` would see: the same data, and the backbone with its weights."""
    data = open_data(stages.config, stages.prepared)
    whole = pretrained(data.backbone, stages.places.pretrained, config=stages.config)
    return SearchData(train=data.train, val=data.val, manifest=data.manifest, machine=data.machine, backbone=whole)


@pytest.mark.parametrize("mode", MODES)
def test_stages_give_what_a_search_in_memory_gives(mode: str, weights: Path, tmp_path: Path) -> None:
    """Every depth sets off with pretrained blocks, also where it grows from a file; both ways give the same bytes."""
    stages = Stages(configured(weights, **MODES[mode]), tmp_path)
    stages.search()
    data = opened(stages)
    steps = list(expand(data, stages.config))
    for step in steps:
        place = stages.places.judged if step.verdict.annealed else stages.places.trained
        assert weights_digest(load_network(place(step.step.depth))) == weights_digest(step.network)
    stages.truncate()
    result = conclude(steps, data=data, config=stages.config)
    assert weights_digest(load_network(tmp_path / "model")) == weights_digest(result.model)
    assert stages.evaluate()["n_params"] == sum(parameter.numel() for parameter in result.model.parameters())


def test_weights_change_what_is_trained(weights: Path, tmp_path: Path) -> None:
    """The same search from random weights ends elsewhere, and what `open` writes tells them apart."""
    found = {}
    for name, source in (("pretrained", weights), ("random", None)):
        stages = Stages(configured(source, **MODES["climb"]), tmp_path / name)
        found[name] = read(stages.places.pretrained / "pretrained.json")["sha256"]
        first = build(opened(stages).backbone.at(1), torch.Generator().manual_seed(0)).state_dict()
        found[f"{name} block"] = first["blocks.0.attn.qkv.weight"]
    assert found["random"] is None
    assert len(found["pretrained"]) == 64
    assert not torch.equal(found["random block"], found["pretrained block"])


def test_a_look_reads_every_depth(weights: Path, tmp_path: Path) -> None:
    """And suggests depths that are there, and a target that a probe reaches."""
    stages = Stages(configured(weights, **MODES["climb"]), tmp_path)
    found = look.run(stages.config, prepared=stages.prepared, search=stages.places, out=tmp_path / "look")
    assert [row.depth for row in found.rows] == list(range(1, 13))
    assert found.suggestion.target <= max(row.val_accuracy for row in found.rows)
    assert set(found.suggestion.schedule) <= set(range(1, 13))
    assert settings({"model.backbone": NAME, "search.ladder": "prefix", "search.schedule": list(found.suggestion.schedule)})
    assert {path.name for path in (tmp_path / "look").iterdir()} >= {"look.json", "depths.csv", "look.png"}
    told = found.describe()
    assert f"target: {found.suggestion.target:g}" in told
    assert re.search(r"\d+ s an epoch at depth \d+ on this machine, \d+ s at depth \d+; \d+ s for \d+ epochs \(climb.epochs\)", told)


def test_open_refuses_what_it_cannot_bring(weights: Path, tmp_path: Path) -> None:
    """Weights that are not there; and what was opened for another backbone is not taken for this one."""
    with pytest.raises(MissingInputError, match="there is no file"):
        Stages(configured(tmp_path / "no.safetensors", **MODES["climb"]), tmp_path / "missing")
    stages = Stages(configured(weights, **MODES["climb"]), tmp_path / "there")
    other = configured(weights, **{**MODES["climb"], "model.backbone": "timm/deit_tiny_patch16_224"})
    with pytest.raises(ConfigError, match="holds weights of timm/vit_tiny_patch16_224, the settings say timm/deit_tiny_patch16_224"):
        pretrained(opened(stages).backbone, stages.places.pretrained, config=other)


def test_weights_in_a_bucket_are_those_of_the_file(weights: Path, tmp_path: Path, s3: Any) -> None:
    """`open` brings the same bytes from an s3:// address; one that is not there is named."""
    s3.create_bucket(Bucket="weights")
    s3.upload_file(str(weights), "weights", "nets/vit.safetensors")
    brought: list[dict[str, bytes]] = []
    for source in (weights, "s3://weights/nets/vit.safetensors"):
        config = configured(None, **MODES["climb"] | {"model.weights": str(source)})
        places = SearchFolder(tmp_path / str(len(brought)))
        open_stage.run(config, search=places)
        brought.append({path.name: path.read_bytes() for path in places.pretrained.iterdir() if not path.name.startswith(".")})
    assert brought[0] == brought[1]
    assert "weights.safetensors" in brought[0]
    gone = configured(None, **MODES["climb"] | {"model.weights": "s3://weights/none.safetensors"})
    with pytest.raises(OdnError, match=r"s3://weights/none\.safetensors"):
        open_stage.run(gone, search=SearchFolder(tmp_path / "gone"))


def test_open_without_weights_needs_no_torch(tmp_path: Path) -> None:
    """It writes that there are none."""
    found = Stages(configured(None, **MODES["climb"]), tmp_path)
    open_stage.run(found.config, search=found.places)
    assert read(found.places.pretrained / "pretrained.json") == {"backbone": NAME, "sha256": None}
    assert not (found.places.pretrained / "weights.safetensors").exists()
