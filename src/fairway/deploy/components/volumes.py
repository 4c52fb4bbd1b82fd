"""What pods mount: the claim with the model, Secrets, and a directory for temporary files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fairway.deploy.components.base import CLAIM_PATH, PodParams, is_on_claim, is_uri
from fairway.deploy.languages import SecretMount
from fairway.deploy.params import camel_case
from fairway.deploy.resources import Manifest
from fairway.errors import UsageError
from fairway.storage.stores.uri import split_uri

# Data may also be in the image, or not be there at all; the model and what is exported may not.
_ALSO_IN_IMAGE = ("data_dir",)


class Volume(NamedTuple):
    """A volume and where it is mounted.

    Attributes:
        source: As a pod has it.
        mount: As a container has it.
    """

    source: Manifest
    mount: Manifest


def volume(name: str, source: Manifest, path: str, *, read_only: bool = False) -> Volume:
    """Return a volume that is mounted at a path."""
    mount = {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})
    return Volume({"name": name, **source}, mount)


TMP = volume("tmp", {"emptyDir": {}}, "/tmp")
"""The one place that every container can write to."""


def claim_volumes(params: PodParams, component: str, *, read_only: bool) -> list[Volume]:
    """Return the claim's volume if a directory of the component lies there.

    Args:
        params: Name the claim and the directories.
        component: The component's name, for messages.
        read_only: Whether pods only read it.

    Raises:
        UsageError: a directory is on a disk but outside of the claim, or a URI is not one.
    """
    pvc_name = getattr(params, "pvc_name", None)
    for param, directory in _directories(params):
        if pvc_name and not is_uri(directory) and not is_on_claim(directory):
            raise UsageError(
                f"{component}: {param} is {directory}, which is not on the claim {pvc_name}",
                hint=f"The claim is mounted at {CLAIM_PATH}: choose a directory there, s3://… or gs://…",
            )
    if (claim := params.claim()) is None:
        return []
    source = {"persistentVolumeClaim": {"claimName": claim}}
    return [volume("model", source, CLAIM_PATH, read_only=read_only)]


def require_claim(params: PodParams, component: str, why: str) -> None:
    """Refuse directories on a disk where there is no claim.

    Args:
        params: Name the claim and the directories.
        component: The component's name, for the message.
        why: What would happen.

    Raises:
        UsageError: a directory is on a disk, and there is no claim.
    """
    if getattr(params, "pvc_name", None):
        return
    for param, directory in _directories(params):
        if not is_uri(directory):
            raise UsageError(
                f"{component}: {param} is {directory}, on a disk, but pvcName is not set: {why}",
                hint=f"Set pvcName to the name of a claim, or {param} to s3://… or gs://…",
            )


def secret_volumes(secret: SecretMount | None) -> list[Volume]:
    """Return the volume of a Secret that is mounted as files."""
    if secret is None:
        return []
    return [volume("secret", {"secret": {"secretName": secret.secret}}, secret.path, read_only=True)]


def check_paths(component: str, volumes: Sequence[Volume]) -> None:
    """Refuse two volumes at one path, and one at the root.

    Raises:
        UsageError: the Secret is at such a path; the others have paths of their own.
    """
    paths = [each.mount["mountPath"].rstrip("/") for each in (TMP, *volumes)]
    for path in paths:
        if paths.count(path) > 1 or not path:
            raise UsageError(
                f"{component}: secret is to be mounted at {path or '/'}, where something else is",
                hint="Choose another path for it: secret=NAME=/secret/NAME",
            )


def _directories(params: PodParams) -> Iterable[tuple[str, str]]:
    """Yield param and directory of what has to be on the claim or in a store, and of data on the claim."""
    for field in params.directories:
        directory = getattr(params, field)
        if not directory:
            continue
        if is_uri(directory):
            split_uri(directory)
        if field not in _ALSO_IN_IMAGE or is_on_claim(directory):
            yield camel_case(field), directory
