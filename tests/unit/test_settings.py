"""Settings have defaults in code, those of `params.yaml`, and some are changed by their dotted names."""

from pathlib import Path
from typing import Any

import pytest

from odn.config import Config, load_config, settings
from odn.errors import ConfigError

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.mark.parametrize("section", Config.model_fields)
def test_defaults_are_those_of_params_yaml(section: str) -> None:
    """Key by key: what a library user gets without a word is what the pipeline runs."""
    assert Config().model_dump()[section] == load_config(PARAMS).model_dump()[section]


def test_what_is_not_named_keeps_its_default() -> None:
    """`settings` takes dotted names, whole sections, and nothing at all."""
    assert settings({"train.lr": 0.05}).train == Config().train.model_copy(update={"lr": 0.05})
    assert settings({"finish": {"epochs": 3}}).finish.epochs == 3
    assert settings() == Config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.lrr": 0.1}, "unknown setting train.lrr (did you mean train.lr?)"),
        ({"serch.mode": "paper"}, "unknown setting serch (did you mean search?)"),
        ({"seed.x": 1}, "seed: must be a whole number"),
        ({"train": {"lr": 0.1}}, "missing setting train.batch_size"),
        ({"train.lr": 0.0}, "train.lr: must be a number > 0 and ≤ 100; got 0.0"),
        ({"train.kernel_lr": 0.1}, "unknown setting train.kernel_lr: renamed to train.muon_lr"),
        ({"search.schedule": [1, 9]}, "search.schedule: rung 9 is beyond the 8 rungs"),
    ],
)
def test_changes_are_refused_as_params_yaml_is(changes: dict[str, Any], message: str) -> None:
    """By the same sentences, with the nearest right name."""
    with pytest.raises(ConfigError) as caught:
        settings(changes)
    assert str(caught.value).startswith(message)
