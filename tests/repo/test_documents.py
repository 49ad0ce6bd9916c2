"""The documents say what is so: settings, commands, targets and links."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import odn
from odn.config import Config, allowed
from repo.pipeline import ROOT, help_of, stages_of_dvc

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
STAGES = [stage for stage in stages_of_dvc().values() if stage.name != "settings"]  # which only hands them on
SETTINGS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
KEYS = ["seed"] + [f"{section}.{key}" for section, keys in SETTINGS.items() if isinstance(keys, dict) for key in keys]
SECTION = re.compile(r"^## `(\w+)`$\n\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def configuration() -> str:
    """Return the document that describes every setting."""
    return (ROOT / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_documented_with_default_and_range(key: str) -> None:
    """The row of a setting states the default of params.yaml and the range that is enforced."""
    value: Any = SETTINGS
    for part in key.split("."):
        value = value[part]
    default = "every depth" if key == "search.schedule" else json.dumps(value).strip('"')
    row = f"| `{key}` | {default} | {allowed(key)} |".replace("or null", "or `null`")
    assert row in configuration()


def test_no_setting_is_documented_that_is_not_there() -> None:
    """A setting that was taken away is taken out of the document."""
    assert set(re.findall(r"^\| `([\w.]+)` \|", configuration(), re.MULTILINE)) == set(KEYS)


@pytest.mark.parametrize("section", Config.model_fields)
def test_every_section_names_the_stages_that_it_runs_again(section: str) -> None:
    """Under each section's title stand the stages that dvc.yaml runs again when it changes."""
    text = dict(SECTION.findall(configuration()))[section]
    named = re.match(r"Stages: (.*)\.", text)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) == {stage.name for stage in STAGES if section in stage.config}


def test_help_lists_every_target() -> None:
    """`make` alone shows each target that is meant for people, with a sentence."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: ([a-z]+)$", makefile, re.MULTILINE))
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z]+) +\S", shown, re.MULTILINE)) == targets


@each_document
def test_commands_in_documents_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each `make TARGET` and `odn COMMAND` in a document is one that there is."""
    code = "\n".join(_code(path.read_text()))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^    ([a-z]+)\b", help_of(capsys), re.MULTILINE))
    assert set(re.findall(r"^(?:\$ )?make ([a-z]+)", code, re.MULTILINE)) - targets == set()
    assert set(re.findall(r"^(?:\$ )?odn ([a-z]+)", code, re.MULTILINE)) - commands == set()


@each_document
def test_stages_are_run_in_an_environment_that_is_active(path: Path) -> None:
    """A stage finds `odn` on PATH: DVC called by its path alone would not."""
    assert re.findall(r"\.venv/bin/dvc (?:exp run|repro)", path.read_text()) == []


@each_document
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Each relative link names a file that there is."""
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def _code(text: str) -> list[str]:
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", [name for name in odn.__all__ if name not in ("__version__", "OdnError")])
def test_the_public_api_is_documented(name: str) -> None:
    """Each name stands in docs/library.md as `odn.NAME`."""
    assert f"odn.{name}" in (ROOT / "docs/library.md").read_text()
