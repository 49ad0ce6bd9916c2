"""What holds for every file of the repository: no addresses or paths of one machine, short files, cheap imports, an honest lock."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from repo.pipeline import ROOT

HOSTS = {"127.0.0.1", "arxiv.org", "github.com", "www.w3.org"}  # the only ones that a tracked file may name
HEAVY = {"torch", "torchvision", "mlflow", "sklearn", "matplotlib", "boto3", "pandas", "scipy", "PIL", "kornia"}


def tracked(*patterns: str) -> list[Path]:
    """Return git's files that are there, as text files of ours."""
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def lines_that_match(pattern: str, *, without: str = "$^") -> list[str]:
    """Return `file:line: text` of each match in a tracked text file."""
    found = []
    for path in tracked():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(lines, 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {hit[0]}" for hit in re.finditer(pattern, line) if not re.match(without, hit[0])]
    return found


def test_no_file_names_a_foreign_host() -> None:
    """Files name papers, and servers on one's own machine or inside a cluster; no package host, no bucket (`example` is nobody's)."""
    allowed = "|".join(re.escape(host) for host in HOSTS)
    assert (
        lines_that_match(
            r"https?://[\w-]+(?:\.[\w-]+)+", without=rf"https?://({allowed}|.*\.svc\.cluster\.local|.*\.example|.*\.example\.(com|org))$"
        )
        == []
    )


def test_no_file_names_a_path_of_one_machine() -> None:
    """What works here must work in any folder: no file holds an absolute path into somebody's home."""
    assert lines_that_match(r"(?<![\w.*}/-])/(?:home|Users|root|work|mnt)/\w+") == []


def test_lock_holds_hashes_and_no_addresses() -> None:
    """Every pinned package has a hash, and the file would work with any index."""
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text())[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block or "==" not in block] == []
    assert re.findall(r"://|--index|--extra-index|--find-links", "\n".join(blocks)) == []


def test_lock_satisfies_the_projects_requirements() -> None:
    """What pyproject.toml asks for is in requirements.lock, in a version that it allows; else run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"], *project["build-system"]["requires"]]
    asked += [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    requirements = [requirement for line in asked if (requirement := Requirement(line)).name != "odn"]
    names = {requirement: requirement.name.lower().replace("_", "-") for requirement in requirements}
    assert [str(item) for item in requirements if names[item] not in pins or pins[names[item]] not in item.specifier] == []


def test_files_are_at_most_350_lines() -> None:
    """A file does one thing, and can be read in one sitting."""
    assert [path.name for path in tracked("*.py") if len(path.read_text().splitlines()) > 350] == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    """There is no place where anything may be put."""
    assert [path for path in tracked("*.py") if path.stem in {"utils", "helpers", "common", "misc"}] == []


def imported_by(*modules: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter holds after importing `modules`."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.sep)
    return set(ran.stdout.split())


def test_command_line_starts_without_anything_heavy() -> None:
    """`odn --help` answers at once: importing the package, its config and its command line brings no large library."""
    assert imported_by("odn", "odn.config", "odn.errors", "odn.files", "odn.cli") & HEAVY == set()


@pytest.mark.parametrize("stage", ["fetch", "prepare", "open", "train", "check", "truncate"])
def test_stage_can_decide_without_anything_heavy(stage: str) -> None:
    """A stage that has nothing to train, after the search has ended or on the digits, ends before torch is imported."""
    assert imported_by(f"odn.stages.{stage}") & HEAVY == set()


def test_training_imports_no_torchvision() -> None:
    """The networks are our own: only reading a public data set pays for torchvision's start."""
    loaded = imported_by("odn.searching.growth", "odn.training.fit", "odn.models.network", "odn.data.batches")
    assert loaded & (HEAVY - {"torch"}) == set()


def test_training_leaves_the_compiler_alone() -> None:
    """Repeatable arithmetic is asked for in a way that does not import torch's compiler, which would cost every stage three seconds."""
    code = """
import sys
from pathlib import Path
from odn.config import load_config
from odn.training.device import choose_machine
choose_machine(load_config(Path("params.yaml")).train, macs=0)
import odn.searching.growth
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
