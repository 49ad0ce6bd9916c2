"""What `kubectl apply -k deploy` brings to a cluster: objects that Kubernetes takes, with few rights and no secret in them."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from odn.trainjob import PARTS
from repo.kubernetes_schemas import pod, schema_faults
from repo.pipeline import ROOT

DEPLOY = ROOT / "deploy"
DOCUMENT = (ROOT / "docs" / "cluster.md").read_text()
FILES = sorted(path for path in DEPLOY.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS: list[dict[str, Any]] = [manifest for path in FILES for manifest in yaml.safe_load_all(path.read_text())]
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
NAME = "app.kubernetes.io/name"
SECRETIVE = re.compile(r"(?i)passw|token|secret|(api|access)_?key|credential")
KUBEFLOWS = {"deployment/ml-pipeline", "svc/ml-pipeline-ui", "secret/mlpipeline-minio-artifact"}  # of its manifests at 2.17.0
SHORT = {"Service": "svc", "PersistentVolumeClaim": "pvc"}  # as commands name them


def named(manifest: dict[str, Any]) -> str:
    """Return an object as a command names it."""
    return f"{SHORT.get(manifest['kind'], manifest['kind'].lower())}/{manifest['metadata']['name']}"


def of_kind(kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [manifest for manifest in OBJECTS if manifest["kind"] == kind]


PODS = {named(manifest): manifest["spec"]["template"] for manifest in OBJECTS if "template" in manifest.get("spec", {})}
CONTAINERS = {
    f"{name}:{container['name']}": container
    for name, template in PODS.items()
    for container in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
}
each_object = pytest.mark.parametrize("manifest", OBJECTS, ids=named)
each_pod = pytest.mark.parametrize("template", PODS.values(), ids=PODS)
each_container = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


def test_every_file_is_applied() -> None:
    """`kubectl apply -k deploy` takes each file, and names none that is not there."""
    assert KUSTOMIZATION["resources"] == [path.name for path in FILES]


@each_object
def test_kubernetes_takes_the_object(manifest: dict[str, Any]) -> None:
    """Its kind, its properties and their types are those of Kubernetes, in the oldest version and the newest."""
    assert schema_faults([manifest]) == []


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"containers": [{"name": "one", "imag": "busybox"}]}, "'imag' was unexpected"),
        ({"containers": [{"name": "one", "env": [{"name": "A", "value": 1}]}]}, "1 is not of type"),
        ({"containers": [{"image": "busybox"}]}, "'name' is a required property"),
    ],
)
def test_schemas_find_what_is_wrong(spec: dict[str, Any], fault: str) -> None:
    """A misspelt property, a wrong type and a missing name are found, in both versions."""
    assert [fault in line for line in schema_faults([pod(spec)])] == [True, True]


@each_pod
def test_pod_has_no_identity_and_runs_as_nobody(template: dict[str, Any]) -> None:
    """It is a user with a number, sees no token of the cluster, no addresses of other services, and nothing of its node."""
    spec = template["spec"]
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert min(security["runAsUser"], security["runAsGroup"]) > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert [key for key in spec if key.startswith("host")] == []
    assert [volume for volume in spec["volumes"] if volume.keys() - {"name", "emptyDir", "persistentVolumeClaim"}] == []


@each_container
def test_container_has_no_rights(container: dict[str, Any]) -> None:
    """It cannot write its root, gain a right or keep a capability, and overrides nothing that its pod says."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@each_container
def test_container_says_what_it_needs(container: dict[str, Any]) -> None:
    """The scheduler knows its share, and its memory has an end."""
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"].keys() == {"memory"}


@each_container
def test_what_serves_is_probed(container: dict[str, Any]) -> None:
    """A container with a port says when it has started, is ready and lives, and is asked at a port of its own."""
    ports = {port["name"] for port in container.get("ports", [])}
    probes = {key: probe for key, probe in container.items() if key.endswith("Probe")}
    assert probes.keys() == ({"startupProbe", "readinessProbe", "livenessProbe"} if ports else set())
    assert {probe["httpGet"]["port"] for probe in probes.values() if "httpGet" in probe} <= ports


@each_container
def test_image_does_not_move(container: dict[str, Any]) -> None:
    """A tag names one release, never `latest` or a line of releases."""
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-full)?$", container["image"])


def test_server_and_clients_are_of_one_version() -> None:
    """MLflow on the cluster is the one of requirements.lock; after `make lock`, change both."""
    locked = re.search(r"^mlflow==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert {container["image"] for container in CONTAINERS.values() if "mlflow/mlflow" in container["image"]} == {
        f"ghcr.io/mlflow/mlflow:v{locked[1]}-full"
    }


def test_server_knows_its_options() -> None:
    """The MLflow of this environment takes the command, and reads each variable that is meant for it."""
    from mlflow import cli, environment_variables

    program, *options = CONTAINERS["deployment/mlflow:mlflow"]["command"]
    assert (program, options[0]) == ("mlflow", "server")
    context = cli.server.make_context("server", options[1:])
    read = {option.envvar for option in cli.server.params} | set(vars(environment_variables))
    assert (context.params["host"], context.params["port"], context.params["workers"]) == ("0.0.0.0", 5000, "1")
    (settings,) = of_kind("ConfigMap")
    assert {name for name in settings["data"] if name.startswith("MLFLOW_")} - read == set()


@pytest.mark.parametrize("service", of_kind("Service"), ids=named)
def test_service_finds_its_pod_and_a_policy_guards_it(service: dict[str, Any]) -> None:
    """A service's selector, ports and network policy meet one pod."""
    selector = service["spec"]["selector"]
    (template,) = [template for template in PODS.values() if selector.items() <= template.get("metadata", {}).get("labels", {}).items()]
    offered = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == offered
    (policy,) = [policy for policy in of_kind("NetworkPolicy") if policy["spec"]["podSelector"]["matchLabels"] == selector]
    assert "Ingress" in policy["spec"]["policyTypes"]
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == list(offered)


def test_only_mlflow_reaches_the_database() -> None:
    """Whom a policy lets in is named by a label; no rule is open to all."""
    admitted = {
        policy["metadata"]["name"]: [peer["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        for policy in of_kind("NetworkPolicy")
    }
    steps, nodes = {"pipelines.kubeflow.org/v2_component": "true"}, PARTS
    assert admitted == {"mlflow": [steps, nodes], "mlflow-postgres": [{NAME: "mlflow"}]}


@each_pod
def test_what_is_mounted_is_there(template: dict[str, Any]) -> None:
    """Each mount has its volume, each volume is mounted, and each claim is one that is made."""
    spec = template["spec"]
    mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
    made = {claim["metadata"]["name"] for owner in of_kind("StatefulSet") for claim in owner["spec"]["volumeClaimTemplates"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounted - made == volumes.keys()
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values() if "persistentVolumeClaim" in volume}
    assert claims <= {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}


def test_no_secret_is_in_git() -> None:
    """Neither a Secret, nor a variable that sounds like one with a value, nor an address with a password in it."""
    values = [(variable["name"], variable.get("value")) for container in CONTAINERS.values() for variable in container.get("env", [])]
    values += [item for settings in of_kind("ConfigMap") for item in settings["data"].items()]
    assert of_kind("Secret") == []
    assert [name for name, value in values if value is not None and SECRETIVE.search(name)] == []
    assert re.findall(r"\w+://[^/\s:@]+:[^/\s@]+@", "".join(path.read_text() for path in FILES)) == []


def test_what_a_container_refers_to_is_made() -> None:
    """Each key of a ConfigMap is in deploy/, each key of a Secret is in a command of docs/cluster.md that makes the secret."""
    settings = {(one["metadata"]["name"], key) for one in of_kind("ConfigMap") for key in one["data"]}
    made = {"secretKeyRef": set(documented_secrets()), "configMapKeyRef": settings}
    asked = [
        (kind, reference["name"], reference["key"])
        for container in CONTAINERS.values()
        for variable in container.get("env", [])
        for kind, reference in variable.get("valueFrom", {}).items()
    ]
    whole = [source["configMapRef"]["name"] for container in CONTAINERS.values() for source in container.get("envFrom", [])]
    assert [(kind, name, key) for kind, name, key in asked if (name, key) not in made[kind]] == []
    assert set(whole) <= {name for name, _ in settings}


def test_secret_of_the_steps_holds_what_they_read() -> None:
    """The keys of `odn-env` that docs/cluster.md makes are ones that `--secret` turns into variables, the server's address among them."""
    from pipelines.platform import SECRET_KEYS

    keys = {key for name, key in documented_secrets() if name == "odn-env"}
    assert keys <= set(SECRET_KEYS)
    assert "MLFLOW_TRACKING_URI" in keys


def test_server_answers_to_the_addresses_that_are_documented() -> None:
    """MLflow refuses to be called by a name that it does not know: it knows those in docs/cluster.md, and no stranger's."""
    from mlflow.server.security_utils import is_allowed_host_header

    (settings,) = of_kind("ConfigMap")
    known = settings["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    written = set(re.findall(r"MLFLOW_TRACKING_URI=http://([\w.:-]+)", DOCUMENT))
    assert {host.split(":")[1] for host in written} == {"5000"}
    assert [host for host in written if not is_allowed_host_header(known, host)] == []
    assert not is_allowed_host_header(known, "mlflow.stranger.example:5000")


def test_commands_name_objects_that_are_there() -> None:
    """What a kubectl command waits for, reads or forwards is made here or by Kubeflow, in the namespace of both."""
    objects = {named(manifest) for manifest in OBJECTS} | KUBEFLOWS
    texts = [*commands(), *re.findall(r"kubectl .*", "".join(path.read_text() for path in FILES))]
    told = [text for text in texts if text.startswith("kubectl")]
    asked = {match for text in told for match in re.findall(r"\b(?:deployment|statefulset|job|svc|pvc|secret|pod)/[\w-]+", text)}
    assert asked - objects == set()
    assert [text for text in told if " -n " in text and f" -n {KUSTOMIZATION['namespace']} " not in text] == []


def test_commands_name_files_that_are_there() -> None:
    """Each folder or file of this repository that a kubectl command applies is in it."""
    applied = [match for text in commands() for match in re.findall(r"kubectl (?:apply|delete) -[fk] (?!\")(\S+)", text)]
    assert "deploy" in applied
    assert [path for path in applied if not (ROOT / path).exists()] == []


def test_commands_of_the_pipeline_are_ones_that_it_takes() -> None:
    """Each `python -m pipelines …` in docs/cluster.md parses, and names the secret and the claim that the document makes."""
    from pipelines.__main__ import _parser

    written = [text.split(" -m pipelines ", 1)[1] for text in commands() if " -m pipelines " in text]
    parsed = [_parser().parse_args(shlex.split(text, comments=True)) for text in written]
    secrets = {name for name, _ in documented_secrets()}
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    assert {text.split()[0] for text in written} == {"compile", "run-local", "submit", "schedule", "fetch", "doctor"}
    assert {options.secret for options in parsed if getattr(options, "secret", "")} <= secrets
    assert {options.pvc for options in parsed if getattr(options, "pvc", "")} == claims


def commands() -> list[str]:
    """Return the document's lines of code, continued ones joined, and what stands in backticks between them."""
    blocks = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = "".join(blocks.findall(DOCUMENT)).replace("\\\n", " ").splitlines()
    return lines + re.findall(r"`([^`\n]+)`", blocks.sub("", DOCUMENT))


def documented_secrets() -> Iterator[tuple[str, str]]:
    """Yield the name of each secret that the document makes, with each of its keys."""
    name = ""
    for line in commands():
        if made := re.search(r"kubectl -n \S+ create secret generic (\S+)", line):
            name = made[1]
            yield from ((name, key) for key in re.findall(r"--from-literal=(\w+)=", line))
        elif name and (key := re.match(r"([A-Z_]+)=", line)):
            yield name, key[1]
        elif line == "END":
            name = ""
