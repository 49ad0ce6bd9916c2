"""What had another name, or is gone, is refused with the name of now or with what to use instead."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from odn.config import allowed, make_config
from odn.errors import ConfigError
from odn.renamed import REMOVED, REMOVED_VALUES, SETTINGS
from odn.training.seed import generator

PARAMS = Path(__file__).parents[2] / "params.yaml"


def refusals(settings: Any) -> list[str]:
    """Return the lines with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        make_config(settings)
    return list(caught.value.args)


@pytest.mark.parametrize(("old", "new"), SETTINGS.items())
def test_an_old_name_of_a_setting_is_refused_with_the_new_one(old: str, new: str) -> None:
    """One line, which says where the setting is now; that the new name is missing is not said too."""
    settings, (section, key) = yaml.safe_load(PARAMS.read_text()), old.split(".")
    settings[section][key] = settings[section].pop(new.split(".")[1])
    assert refusals(settings) == [f"unknown setting {old}: renamed to {new}"]


def test_an_old_name_beside_the_new_one_is_refused() -> None:
    """Both names at once are no way to set it twice."""
    settings = yaml.safe_load(PARAMS.read_text())
    settings["train"]["optimiser"] = "sgd"
    assert refusals(settings) == ["unknown setting train.optimiser: renamed to train.optimizer"]


@pytest.mark.parametrize(("old", "instead"), REMOVED.items())
def test_a_setting_that_is_gone_is_refused_with_what_to_use_instead(old: str, instead: str) -> None:
    """Of a section that is gone, one line says it all."""
    settings, (section, _, key) = yaml.safe_load(PARAMS.read_text()), old.partition(".")
    settings[section] = settings[section] | {key: True} if key else {"epochs": 2}
    assert refusals(settings) == [f"unknown setting {old}: it was removed; {instead}"]


@pytest.mark.parametrize(("old", "instead"), REMOVED_VALUES.items())
def test_a_value_that_is_gone_is_refused_with_what_to_use_instead(old: tuple[str, str], instead: str) -> None:
    """The line says what the setting may be, and what does the same."""
    settings, (name, value) = yaml.safe_load(PARAMS.read_text()), old
    section, key = name.split(".")
    settings[section][key] = value
    assert refusals(settings) == [f"{name}: must be {allowed(name)}; got '{value}' (it was removed: {instead})"]


def test_what_settings_are_renamed_to_is_there() -> None:
    """Every new name is a setting; what is gone is none."""
    assert all(allowed(new) for new in SETTINGS.values())
    assert not any(value in allowed(name).split(", ") for name, value in REMOVED_VALUES)


@pytest.mark.parametrize(("phase", "stream"), [("trial", "probe"), ("stable", "stable")])
def test_a_phase_that_was_renamed_draws_what_it_drew(phase: str, stream: str) -> None:
    """The same seed gives the same batches, and so the same weights, as under the old name."""
    digest = hashlib.sha256(f"7/batches/2/{stream}/3".encode()).digest()
    before = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    assert torch.equal(torch.rand(4, generator=generator(7, "batches", 2, phase, 3)), torch.rand(4, generator=before))
