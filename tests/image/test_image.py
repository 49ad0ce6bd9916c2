"""What a cluster may rely on in the image of the steps: `make test-image`, with a Docker engine and the image ODN_IMAGE."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import odn
from repo.pipeline import ROOT

ANYBODY = "12345:12345"  # some clusters give each namespace a user of its own
LOCK = ROOT / "components/requirements.lock"
IMPORTS = "import torch, torchvision, mlflow.pytorch, matplotlib.pyplot, boto3, dvc.api, kfp.dsl.executor_main, odn.cli"
PACKAGES = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"
TOOLS = ["gcc", "make", "mypy", "pytest", "ruff", "uv"]
SECRET = re.compile(r"(?i)passw|token|secret|(api|access)_?key|://[^/\s]*@|-----BEGIN|proxy|_cert|ca_bundle|index_url")


def docker(*arguments: str) -> str:
    """Return what docker prints, without the last line end."""
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"docker {' '.join(arguments)}\n{ran.stdout}{ran.stderr}"
    return ran.stdout.rstrip("\n")


@pytest.fixture(scope="session")
def image() -> str:
    """Give the name of the image, which must be there."""
    name = os.environ.get("ODN_IMAGE")
    assert name, "ODN_IMAGE names no image to test; run 'make image test-image'"
    docker("image", "inspect", name)
    return name


@pytest.fixture(scope="session")
def config(image: str) -> dict[str, Any]:
    """Give what the image says of itself."""
    described: list[dict[str, Any]] = json.loads(docker("image", "inspect", image))
    return described[0]["Config"]  # type: ignore[no-any-return]


def in_image(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    """Run a command as a restricted pod would: no network, nobody's user, no rights, a root that cannot be written; return its output."""
    rights = ["--network=none", f"--user={ANYBODY}", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    return docker("run", "--rm", *rights, *options, image, *command)


def test_user_is_a_number_and_not_root(config: dict[str, Any]) -> None:
    """A cluster that refuses root can tell from the image alone."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])


def test_image_has_no_entrypoint(config: dict[str, Any]) -> None:
    """Kubeflow's command is the command."""
    assert not config["Entrypoint"]


def test_image_says_what_it_was_made_of(config: dict[str, Any]) -> None:
    """The version and the commit are labels."""
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == odn.__version__
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", labels["org.opencontainers.image.revision"])


def test_shell_finds_python_and_odn_of_the_image(image: str) -> None:
    """Kubeflow runs `sh -c` and `python3`, and means the one that has odn."""
    assert in_image(image, "sh", "-c", "command -v python3 && odn --version") == f"/opt/odn/bin/python3\nodn {odn.__version__}"


def test_any_user_can_import_everything_on_a_read_only_root(image: str) -> None:
    """Nothing wants to write outside /tmp, to have a home or a name."""
    assert in_image(image, "python3", "-W", "error", "-c", f"{IMPORTS}; import getpass; print(getpass.getuser())") == "odn"


def test_packages_are_those_of_the_lock(image: str, config: dict[str, Any]) -> None:
    """Nothing is missing, nothing of development has slipped in, and pip cannot add anything."""
    version = in_image(image, "python3", "-c", "import platform; print(platform.python_version())")
    pins = [Requirement(line) for line in re.findall(r"^([a-z0-9][^\\\n]*) \\$", LOCK.read_text(), re.MULTILINE)]
    wanted = {pin.name for pin in pins if pin.marker is None or pin.marker.evaluate({"python_full_version": version})}
    if config["Labels"]["odn.variant"] == "cpu":
        wanted = {name for name in wanted if not name.startswith(("cuda-", "nvidia-", "triton"))}
    found = {re.sub(r"[-_.]+", "-", name).lower() for name in json.loads(in_image(image, "python3", "-c", PACKAGES))}
    assert found == wanted | {"odn"}


def test_image_holds_no_tools_and_no_caches(image: str) -> None:
    """What built the image stayed outside."""
    assert in_image(image, "sh", "-c", f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; true") == ""
    caches = "find / -xdev -name .cache -o -path '/var/lib/apt/lists/?*' -o -path '/var/cache/apt/?*' 2>/dev/null || true"
    assert in_image(image, "sh", "-c", caches) == ""


def test_modules_are_compiled(image: str) -> None:
    """A root that cannot be written is one that bytecode cannot be added to."""
    code = "import torch, odn.cli, pathlib; print(all(pathlib.Path(module.__cached__).is_file() for module in (torch, odn.cli)))"
    assert in_image(image, "python3", "-c", code) == "True"


def test_compiled_code_is_there(image: str) -> None:
    """Thin networks train through it, where the machine is of the kind that it is for."""
    found = "(platform.system(), platform.machine()) != SYSTEM or bool(library())"
    code = f"import platform; from odn.compiled.library import SYSTEM, library; print({found})"
    assert in_image(image, "python3", "-c", code) == "True"


def test_image_tells_no_secret(image: str, config: dict[str, Any]) -> None:
    """Neither the commands of the build nor the environment hold a password, a certificate or a proxy."""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert SECRET.findall("\n".join([history, *config["Env"]])) == []
    assert in_image(image, "sh", "-c", "ls -A /run/secrets /etc/pip.conf 2>/dev/null; true") == ""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a git repository whose data/ is versioned by DVC, with a remote beside it."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data/digit.txt").write_text("seven")
    for command in (
        ["git", "init", "--quiet"],
        ["dvc", "init", "--quiet"],
        ["dvc", "remote", "add", "--quiet", "--default", "shelf", str(tmp_path / "shelf")],
        ["dvc", "add", "--quiet", "data"],
        ["dvc", "push", "--quiet"],
        ["git", "add", "."],
        ["git", "-c", "user.name=odn", "-c", "user.email=odn@odn.example", "commit", "--quiet", "--message", "Data"],
    ):
        subprocess.run(command, cwd=project, check=True)
    tmp_path.chmod(0o755)
    return project


def test_versioned_data_can_be_brought(image: str, project: Path) -> None:
    """Git and DVC find what they need, for any user and on a read-only root."""
    code = """
import pathlib, shutil, sys
from odn.versioned import commit_of, pull_data
shutil.copytree(sys.argv[1], "project")  # git reads no repository of another user's
pull_data("file:///tmp/project", revision=commit_of("file:///tmp/project", revision=""), into=pathlib.Path("data"))
print(pathlib.Path("data/digit.txt").read_text())
"""
    volume = f"--volume={project.parent}:{project.parent}:ro"
    assert in_image(image, "python3", "-c", code, str(project), options=(volume,)) == "seven"
