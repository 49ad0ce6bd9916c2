"""Hold Kubernetes objects against Kubernetes' own schemas, which the package kubernetes-validate brings along: no cluster, no network."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # shipped without types

VERSIONS = ("1.33", "1.36")  # the oldest and the newest that Kubeflow Pipelines 2.17 is tested on


def schema_faults(manifests: Iterable[Mapping[str, Any]], *, versions: Sequence[str] = VERSIONS) -> list[str]:
    """Return what a server of each version would object to, one line a fault; a property or a kind that it does not know is one.

    For a bare pod spec: `schema_faults([pod(spec)])`.
    """
    found = []
    for manifest, version in itertools.product(manifests, versions):
        what = f"{manifest['kind']} {manifest['metadata'].get('name')}, Kubernetes {version}"
        try:
            kubernetes_validate.validate(dict(manifest), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{what}: {'.'.join(str(key) for key in error.path)}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"{what}: {manifest['apiVersion']} has no such kind")
    return found


def pod(spec: Mapping[str, Any], *, name: str = "pod") -> dict[str, Any]:
    """Return the pod of a pod spec."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": dict(spec)}
