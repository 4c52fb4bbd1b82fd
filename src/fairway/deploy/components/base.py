"""What the kinds of component share: their params, and what a component is built from."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from fairway import __version__
from fairway.config import Count, Range
from fairway.deploy.components.needs import Needs
from fairway.deploy.languages import (
    Language,
    SecretKey,
    SecretMount,
    parse_env_variables,
    parse_gateway,
    parse_labels,
    parse_name,
    parse_quantity,
    parse_secret,
    parse_secret_key_refs,
    parse_service_name,
    parse_size,
    parse_subdomain,
    parse_tolerations,
)
from fairway.deploy.params import From, Params
from fairway.deploy.resources import Manifest, owner_labels
from fairway.errors import UsageError

TRAIN_IMAGE = f"fairway-train:{__version__}"
SERVE_IMAGE = f"fairway-serve:{__version__}"
"""What `fairway image build` makes; a cluster needs them under the name of a registry."""
CLAIM_PATH = "/mnt"
"""Where a claim is mounted, as in the tutorial."""
MAX_NAME = 63
"""Characters of a label's value or a host name: RFC 1123."""

Name = Annotated[str, Language("a name of small letters, digits and hyphens", parse_name)]
ServiceName = Annotated[
    str, Language("a name of small letters, digits and hyphens, first a letter", parse_service_name)
]
Subdomain = Annotated[str, Language("the name of an object", parse_subdomain)]
Quantity = Annotated[str, Language("an amount such as 500m, 2 or 1Gi", parse_quantity)]
Size = Annotated[str, Language("an amount such as 500Mi or 1Gi", parse_size)]
Labels = Annotated[Mapping[str, str], Language("LABEL=VALUE,…", parse_labels)]
Tolerations = Annotated[
    tuple[dict[str, Any], ...], Language("TAINT=VALUE:EFFECT,TAINT:EFFECT,…", parse_tolerations)
]
EnvVariables = Annotated[Mapping[str, str], Language("NAME=VALUE,…", parse_env_variables)]
SecretKeyRefs = Annotated[Mapping[str, SecretKey], Language("NAME=SECRET.KEY,…", parse_secret_key_refs)]
Secret = Annotated[SecretMount, Language("SECRET=/path", parse_secret)]
Gateway = Annotated[str, Language("NAME or NAMESPACE/NAME", parse_gateway)]
Replicas = Annotated[Count, Range(minimum=0, maximum=1000)]
Port = Annotated[Count, Range(minimum=1, maximum=65535)]


@dataclass(frozen=True, kw_only=True)
class ComponentParams(Params):
    """Of every component."""

    name: Name
    """Name of what it makes in the cluster."""

    enabled: bool | None = None
    """Whether it takes part where no component is named. Default: if there is something for it to do."""


@dataclass(frozen=True, kw_only=True)
class PodParams(ComponentParams):
    """Of every component that has pods."""

    directories: ClassVar[tuple[str, ...]] = ()
    """The fields that name directories of models and data."""

    image: str = SERVE_IMAGE
    """Container image."""

    image_pull_secret: Subdomain | None = None
    """Secret with the registry's password."""

    cpu: Quantity = "100m"
    """Processor that is set aside for a pod: cores, or thousandths of one (m)."""

    cpu_limit: Quantity = "2"
    """Processor that a pod may take at most."""

    memory: Quantity = "256Mi"
    """Memory that is set aside for a pod, in bytes (Mi, Gi)."""

    memory_limit: Quantity = "1Gi"
    """Memory at which a pod is ended."""

    node_selector: Labels = field(default_factory=dict)
    """Labels of the nodes that pods may run on."""

    tolerations: Tolerations = ()
    """Taints of nodes that pods may run on all the same."""

    network_policy: bool = True
    """Let in only what the app needs, by a NetworkPolicy."""

    def paths(self) -> list[str]:
        """Return the directories that lie on a disk and not in an object store."""
        named = [getattr(self, name) for name in self.directories]
        return [directory for directory in named if directory and not is_uri(directory)]

    def claim(self) -> str | None:
        """Return the name of the claim to mount; `None` if no directory lies on one."""
        return getattr(self, "pvc_name", None) if any(map(is_on_claim, self.paths())) else None


@dataclass(frozen=True, kw_only=True)
class AccessParams(PodParams):
    """Of components that read what a training wrote: the way to it. What is not set is the training's."""

    pvc_name: Annotated[Subdomain | None, From("train", "pvcName")] = None
    """Claim that is mounted at /mnt, if a directory lies on a disk. Default: the training's."""

    secret: Annotated[Secret | None, From("train", "secret")] = None
    """Secret that is mounted as files. Default: the training's."""

    secret_key_refs: Annotated[SecretKeyRefs | None, From("train", "secretKeyRefs")] = None
    """Environment variables whose values are in Secrets. Default: the training's."""

    env_variables: Annotated[EnvVariables | None, From("train", "envVariables")] = None
    """Further environment variables. Default: the training's."""

    service_account: Annotated[Subdomain | None, From("train", "serviceAccount")] = None
    """Service account that pods run as. Default: the training's, or the namespace's default."""


@dataclass(frozen=True)
class Placement:
    """Which component of which app and environment is built.

    Attributes:
        app: The app's name.
        environment: The environment's name.
        namespace: Where its objects go.
        component: The component's name, as in fairway.yaml.
        kind: Name of its kind.
    """

    app: str
    environment: str
    namespace: str
    component: str
    kind: str

    def labels(self, instance: str) -> dict[str, str]:
        """Return the labels of every object and pod of the component.

        Args:
            instance: The component's param `name`.
        """
        return {
            "app.kubernetes.io/name": self.kind,
            "app.kubernetes.io/instance": instance,
            **owner_labels(self.app, self.environment, self.component),
        }

    def metadata(self, name: str, instance: str) -> Manifest:
        """Return an object's metadata.

        Args:
            name: The object's.
            instance: The component's param `name`.
        """
        return {"name": name, "namespace": self.namespace, "labels": self.labels(instance)}

    def selector(self, instance: str) -> dict[str, str]:
        """Return the labels that only this component's pods have, and that no other param changes.

        What a Deployment selects cannot be changed, so the component's own name is not among them.

        Args:
            instance: The component's param `name`.
        """
        return {
            "app.kubernetes.io/name": self.kind,
            "app.kubernetes.io/instance": instance,
            **owner_labels(self.app, self.environment),
        }


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    Attributes:
        name: As in fairway.yaml.
        params: Its params.
        build: Returns its manifests, in the order in which they are applied.
        takes_part: Whether a component without the param `enabled` takes part, given its params and those
            of the others.
        retired: Params of the 2019 tutorial that are gone, and what to do instead.
        needs: What params need of others to have an effect; `build` refuses those that have none.
    """

    name: str
    params: type[ComponentParams]
    build: Callable[[Any, Placement], list[Manifest]]
    takes_part: Callable[[Any, Sequence[ComponentParams]], bool] = lambda params, others: True
    retired: Mapping[str, str] = field(default_factory=dict)
    needs: Sequence[Needs] = ()


def join_name(component: str, name: str, suffix: str, reserve: str = "") -> str:
    """Return a name that is derived from the param `name`.

    Args:
        component: The component's name, for the message.
        name: The param.
        suffix: Follows it.
        reserve: What Kubernetes will add to it, or something as long.

    Raises:
        UsageError: it would be longer than a label or host name may be.
    """
    derived = f"{name}-{suffix}"
    if (length := len(derived + reserve)) > MAX_NAME:
        raise UsageError(
            f"{component}: name is {name!r}, but {derived}{reserve}, which is made from it, would have "
            f"{length} characters, {length - MAX_NAME} too many",
            hint=f"Choose a name of at most {len(name) - (length - MAX_NAME)} characters.",
        )
    return derived


def is_uri(directory: str) -> bool:
    """Return whether a directory is in an object store and not on a disk."""
    return "://" in directory and not directory.startswith("file://")


def is_on_claim(directory: str) -> bool:
    """Return whether a directory is where the claim is mounted, or below."""
    if is_uri(directory):
        return False
    path = posixpath.normpath(directory.removeprefix("file://"))
    return path == CLAIM_PATH or path.startswith(f"{CLAIM_PATH}/")
