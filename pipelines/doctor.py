"""Look at what a Kubeflow does to our runs and a person would not notice: whether a step that fails is tried again.

Kubeflow Pipelines 2.17.0 ships its workflow controller with a default for every template, `retryPolicy: OnError`. It is merged into what a
pipeline asks for, and a container that is killed, out of memory or past its deadline is Failed, not Error: it ends the run.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from odn.sanitize import sanitized
from pipelines.door import ClusterError, one_line

CONTROLLER = "workflow-controller-configmap"
RETRIED = {"OnFailure", "Always"}
SECONDS = 10
MEND = "'python -m pipelines doctor --mend --namespace {namespace}' takes that default out while no run is going on"
WORKFLOWS = {"group": "argoproj.io", "version": "v1alpha1", "plural": "workflows"}


@dataclass(frozen=True)
class Finding:
    """Hold what was seen, and what to do about it; "" where all is well."""

    seen: str
    advice: str = ""


def examine(namespace: str) -> Finding:
    """Look at the cluster of the current kubectl context, or of the pod that this runs in.

    Raises:
        ClusterError: there is no cluster to be had, or it does not let us look.
    """
    from kubernetes import client

    with _understood(namespace):
        _configure()
        held = client.CoreV1Api().read_namespaced_config_map(CONTROLLER, namespace, _request_timeout=SECONDS)
    return retries(held.data or {}, namespace=namespace)


def mend(namespace: str) -> None:
    """Take the default for every template out of the controller's configuration; it then begins all running workflows anew.

    Raises:
        ClusterError: there is no cluster to be had, it does not let us look or write, or a run is going on.
    """
    from kubernetes import client

    with _understood(namespace):
        _configure()
        found = client.CustomObjectsApi().list_namespaced_custom_object(namespace=namespace, **WORKFLOWS, _request_timeout=SECONDS)
        going = [one["metadata"]["name"] for one in found["items"] if one.get("status", {}).get("phase") in {None, "Pending", "Running"}]
        if going:
            raise ClusterError(
                f"{len(going)} runs are going on in {namespace}, such as {sanitized(going[0])}; mend it when they have ended"
            )
        core = client.CoreV1Api()
        held = core.read_namespaced_config_map(CONTROLLER, namespace, _request_timeout=SECONDS)
        defaults = yaml.safe_load((held.data or {}).get("workflowDefaults", "")) or {}
        (defaults.get("spec") or {}).pop("templateDefaults", None)
        body = {"data": {"workflowDefaults": yaml.safe_dump(defaults)}}
        core.patch_namespaced_config_map(CONTROLLER, namespace, body, _request_timeout=SECONDS)


def retries(data: dict[str, str], *, namespace: str) -> Finding:
    """Say whether a step that fails is tried again, by what the workflow controller is configured with."""
    try:
        defaults = yaml.safe_load(data.get("workflowDefaults", "")) or {}
        template = (defaults.get("spec") or {}).get("templateDefaults") or {}
        policy = (template.get("retryStrategy") or {}).get("retryPolicy")
    except (yaml.YAMLError, AttributeError):
        return Finding(f"workflowDefaults in {CONTROLLER} cannot be read", f"look at it: kubectl -n {namespace} get configmap {CONTROLLER}")
    if policy is None or policy in RETRIED:
        return Finding("a training step that fails is tried again")
    return Finding(
        f"a step that is killed, out of memory or past its deadline is not tried again (templateDefaults have retryPolicy {policy})",
        MEND.format(namespace=namespace),
    )


def warning(namespace: str) -> str:
    """Return a line for whoever starts a run; "" where all is well, or where nobody lets us look."""
    try:
        found = examine(namespace)
    except ClusterError:
        return ""
    return f"{found.seen}; 'python -m pipelines doctor' says what to do" if found.advice else ""


def _configure() -> None:
    from kubernetes import config

    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config()
    else:
        config.load_kube_config()


@contextlib.contextmanager
def _understood(namespace: str) -> Iterator[None]:
    """Turn what Kubernetes' client raises into a line."""
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ConfigException as error:
        raise ClusterError(f"no Kubernetes is configured here ({_words(error)}); let kubectl reach it, or set KUBECONFIG") from None
    except ApiException as error:
        raise ClusterError(
            f"Kubernetes refuses what concerns the configmap {CONTROLLER} in {namespace} ({error.status} {_words(error.reason)}); "
            "name the namespace of Kubeflow with --namespace, or ask somebody who may"
        ) from None
    except (HTTPError, OSError) as error:
        raise ClusterError(f"Kubernetes does not answer ({_words(error)}); see whether kubectl reaches it", passing=True) from None


def _words(error: Any) -> str:
    return sanitized(one_line(error))[:200]
