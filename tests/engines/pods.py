"""The pod that Kubeflow makes of an executor and what the platform spec says of it, as its driver at 2.17 does."""

from collections.abc import Mapping
from typing import Any

SECONDS = "activeDeadlineSeconds"


def pod_spec(executor: Mapping[str, Any], platform: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod spec of a step.

    Raises:
        AssertionError: the platform spec says something that this does not know, so that nothing is left unlooked at.
    """
    known = {SECONDS, "emptyDirMounts", "nodeSelector", "pvcMount", "secretAsEnv", "securityContext", "tolerations"}
    assert set(platform) <= known, set(platform) - known
    container = executor["container"]
    mounts = [{"name": one["volumeName"], "mountPath": one["mountPath"]} for one in platform.get("emptyDirMounts", [])]
    volumes = [
        {"name": one["volumeName"], "emptyDir": {"medium": one["medium"]} if "medium" in one else {}}
        for one in platform.get("emptyDirMounts", [])
    ]
    for one in platform.get("pvcMount", []):
        mounts.append({"name": one["constant"], "mountPath": one["mountPath"]})
        volumes.append({"name": one["constant"], "persistentVolumeClaim": {"claimName": one["constant"]}})
    security = {key: value if isinstance(value, bool) else int(value) for key, value in platform["securityContext"].items()}
    main = {
        "name": "main",
        **{key: container[key] for key in ("image", "command", "args")},
        "env": [*container.get("env", []), *_secrets(platform)],
        "resources": _resources(container.get("resources", {})),
        "securityContext": security,
        "volumeMounts": mounts,
    }
    spec: dict[str, Any] = {"containers": [main], "volumes": volumes, "restartPolicy": "Never", SECONDS: int(platform[SECONDS])}
    if "nodeSelector" in platform:
        spec["nodeSelector"] = platform["nodeSelector"]["labels"]
    if "tolerations" in platform:
        spec["tolerations"] = platform["tolerations"]
    return spec


def _secrets(platform: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": pair["envVar"],
            "valueFrom": {"secretKeyRef": {"name": one["secretName"], "key": pair["secretKey"], "optional": one["optional"]}},
        }
        for one in platform.get("secretAsEnv", [])
        for pair in one["keyToEnv"]
    ]


def _resources(given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    names = {("requests", "cpu"): "resourceCpuRequest", ("requests", "memory"): "resourceMemoryRequest"}
    names |= {("limits", "cpu"): "resourceCpuLimit", ("limits", "memory"): "resourceMemoryLimit"}
    found: dict[str, dict[str, str]] = {}
    for (kind, what), name in names.items():
        if name in given:
            found.setdefault(kind, {})[what] = given[name]
    if "accelerator" in given:
        found.setdefault("limits", {})[given["accelerator"]["resourceType"]] = given["accelerator"]["resourceCount"]
    return found
