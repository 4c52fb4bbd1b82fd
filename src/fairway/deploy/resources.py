"""What of the Kubernetes API is used: kinds, the API versions they are of, and where they live."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of object.

    Attributes:
        api_version: Group and version, `apps/v1`; the core group has only a version.
        kind: As in a manifest.
        plural: As in a path of the API.
        namespaced: Whether its objects live in a namespace.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


RESOURCES = {
    resource.kind: resource
    for resource in (
        Resource("v1", "ConfigMap", "configmaps"),
        Resource("v1", "Event", "events"),
        Resource("v1", "Namespace", "namespaces", namespaced=False),
        Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        Resource("v1", "Pod", "pods"),
        Resource("v1", "ResourceQuota", "resourcequotas"),
        Resource("v1", "Secret", "secrets"),
        Resource("v1", "Service", "services"),
        Resource("v1", "ServiceAccount", "serviceaccounts"),
        Resource("apps/v1", "Deployment", "deployments"),
        Resource("apps/v1", "ReplicaSet", "replicasets"),
        Resource(
            "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False
        ),
        Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        Resource("batch/v1", "Job", "jobs"),
        Resource("gateway.networking.k8s.io/v1", "Gateway", "gateways"),
        Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
        Resource("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets"),
        Resource("kubeflow.org/v1", "TFJob", "tfjobs"),
        Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        Resource("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False),
    )
}
"""The newest stable version of each; JobSet and the operator's kinds have only the one named."""
JOBS = ("TFJob", "Job", "JobSet")
"""The kinds of object that have work to do and end."""
MANIFEST_HASH = "fairway/manifest"
"""Annotation of objects that end: tells whether one there is of the same manifest."""
FIELD_MANAGER = "fairway"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
APP_LABEL = "app.kubernetes.io/part-of"
ENVIRONMENT_LABEL = "fairway/environment"
COMPONENT_LABEL = "app.kubernetes.io/component"
"""Labels by which objects are found again: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/"""


def owner_labels(app: str, environment: str, component: str | None = None) -> dict[str, str]:
    """Return the labels by which the objects of an environment, or of one of its components, are found."""
    labels = {
        MANAGED_BY_LABEL: "fairway",
        APP_LABEL: app,
        ENVIRONMENT_LABEL: environment,
    }
    return labels | ({COMPONENT_LABEL: component} if component else {})


def manifest(kind: str, metadata: Manifest, spec: Manifest) -> Manifest:
    """Return a manifest of a kind in `RESOURCES`."""
    return {"apiVersion": RESOURCES[kind].api_version, "kind": kind, "metadata": metadata, "spec": spec}


def manifest_hash(manifest: Manifest) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a manifest's JSON, whatever its hash says."""
    metadata = dict(manifest["metadata"])
    annotations = {k: v for k, v in metadata.pop("annotations", {}).items() if k != MANIFEST_HASH}
    if annotations:
        metadata["annotations"] = annotations
    canonical = json.dumps(manifest | {"metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def with_hash(manifest: Manifest) -> Manifest:
    """Return a manifest with its hash among its annotations."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {MANIFEST_HASH: manifest_hash(manifest)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}
