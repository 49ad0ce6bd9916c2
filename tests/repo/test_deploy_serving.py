"""`deploy/serving/`: services that KServe takes, whose pods have few rights and run commands of odn that there are."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from odn import __version__
from odn.cli import _parser
from odn.serving.server import make_app
from repo.kubernetes_schemas import pod, schema_faults
from repo.pipeline import ROOT

FOLDER = ROOT / "deploy/serving"
OBJECTS: dict[str, list[dict[str, Any]]] = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in sorted(FOLDER.glob("*.yaml"))}
SERVICES = {name: objects[0] for name, objects in OBJECTS.items()}
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)

# Of KServe's serving.kserve.io_inferenceservices.yaml, v1beta1, what is used here. A predictor is a pod spec with more fields.
SERVICE_FIELDS = {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict}
PREDICTOR_FIELDS = {"minReplicas": int, "maxReplicas": int, "labels": dict, "model": dict}
MODEL_FIELDS = {"modelFormat": dict, "runtime": str, "protocolVersion": str, "storageUri": str, "resources": dict}


def faults(found: dict[str, Any], fields: Mapping[str, type]) -> list[str]:
    """List what is unknown or of another type."""
    return [name for name, value in found.items() if name not in fields or not isinstance(value, fields[name])]


@each_service
def test_kserve_takes_the_service(service: dict[str, Any]) -> None:
    """Its fields are those of KServe's schema, and the rest of a predictor is a pod that Kubernetes takes."""
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = service["spec"]["predictor"]
    kserves = {name: value for name, value in predictor.items() if name in PREDICTOR_FIELDS}
    rest = {name: value for name, value in predictor.items() if name not in PREDICTOR_FIELDS}
    assert faults(service, SERVICE_FIELDS) + faults(kserves, PREDICTOR_FIELDS) + faults(predictor.get("model", {}), MODEL_FIELDS) == []
    assert list(service["spec"]) == ["predictor"]
    assert ("model" in predictor) != ("containers" in predictor)
    containers = [{"name": "of-the-runtime", "resources": predictor["model"]["resources"]}] if "model" in predictor else rest["containers"]
    assert schema_faults([pod({**rest, "containers": containers})]) == []


def test_other_objects_are_kubernetes_own() -> None:
    """What stands beside a service is taken by Kubernetes as it is."""
    assert schema_faults([one for objects in OBJECTS.values() for one in objects[1:]]) == []


def test_the_champions_container_runs_a_command_that_there_is() -> None:
    """`odn serve` takes its arguments, listens at the port that is named, and answers the paths that are probed."""
    (container,) = SERVICES["champion"]["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"  # the one that KServe sends requests to
    options = _parser().parse_args(container["command"][1:])
    assert (options.host, options.model) == ("0.0.0.0", f"models:/{registered_name()}@champion")
    assert [port["containerPort"] for port in container["ports"]] == [options.port]
    probes = [probe["httpGet"] for name, probe in container.items() if name.endswith("Probe")]
    app = make_app(None, n_threads=1)  # type: ignore[arg-type]  # no request is sent
    paths = {route.path for route in app.routes}  # type: ignore[attr-defined]
    assert {probe["path"] for probe in probes} <= paths
    assert {probe["port"] for probe in probes} == {options.port}


def registered_name() -> str:
    """Return the name under which params.yaml registers."""
    name: str = yaml.safe_load((ROOT / "params.yaml").read_text())["registry"]["name"]
    return name


def test_the_champions_pod_has_no_rights() -> None:
    """It is nobody, writes in /tmp alone, sees no token of the cluster, and its image is one version."""
    predictor = SERVICES["champion"]["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert (predictor["securityContext"]["runAsNonRoot"], predictor["automountServiceAccountToken"]) == (True, False)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert re.fullmatch(r"odn-python:(\S+)", container["image"])[1] == __version__  # type: ignore[index]


def test_the_champions_pod_reaches_mlflow() -> None:
    """The policy beside it opens MLflow's port to the label that its pods have."""
    service, policy = OBJECTS["champion"]
    (rule,) = policy["spec"]["ingress"]
    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [service["spec"]["predictor"]["labels"]]
    assert policy["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "mlflow"}
