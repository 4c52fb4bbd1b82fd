"""The settings of the commands that ask a cluster; see `fairway.config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from fairway.config import Count, Host, Output, Port, Range, Settings, UpSettings  # noqa: F401 - Host is UpSettings'

ON_CLUSTER = "On a cluster"
Role = Literal["chief", "worker", "ps", "evaluator"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ChoiceSettings(Settings):
    """Which components a command is about."""

    component: Annotated[tuple[str, ...], Parameter(alias="-c", negative="")] = ()
    """Only this component; may be repeated. Default: all."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TargetSettings(ChoiceSettings):
    """Which components a command is about, with which params."""

    set: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """COMPONENT.KEY=VALUE: this value for this time; may be repeated."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShowSettings(TargetSettings):
    """How manifests are printed."""

    output: Annotated[Literal["yaml", "json"], Parameter(alias="-o")] = "yaml"
    """`yaml`: a stream of documents. `json`: one List."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ApplySettings(TargetSettings):
    """What is sent, and what of it is waited for."""

    dry_run: Literal["client", "server"] | None = None
    """Change nothing. client: say what would be sent. server: have the cluster check it too."""

    force_conflicts: Annotated[bool, Parameter(negative="")] = False
    """Take over fields that others have set to other values, and objects that fairway did not make."""

    replace: Annotated[bool, Parameter(negative="")] = False
    """Delete a training that has ended, and start this one in its place."""

    prune: Annotated[bool, Parameter(negative="")] = False
    """Delete what the app has in the cluster and no longer makes; never claims, nor a running training."""

    create_namespace: Annotated[bool, Parameter(negative="")] = False
    """Make the namespace if it does not exist."""

    wait: Annotated[bool, Parameter(negative="")] = False
    """Wait until all components are ready and the training has succeeded."""

    timeout: Annotated[float | None, Range(above=0)] = None
    """Seconds to wait at most. Default: as long as there is hope."""

    output: Output = "table"
    """`table` for people, `json` for programs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DiffSettings(TargetSettings):
    """What is compared."""

    output: Output = "table"
    """`table`: unified diffs for people. `json` for programs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DeleteSettings(ChoiceSettings):
    """What is deleted."""

    data: Annotated[bool, Parameter(negative="")] = False
    """Also the claims that apply made, with the models on them."""

    yes: Annotated[bool, Parameter(negative="")] = False
    """Do not ask."""

    timeout: Annotated[float, Range(above=0)] = 300.0
    """Seconds to wait at most until the pods have ended."""

    output: Output = "table"
    """`table` for people, `json` for programs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StatusSettings(TargetSettings):
    """What is shown."""

    watch: Annotated[bool, Parameter(negative="")] = False
    """Go on showing it, until Ctrl-C."""

    output: Output = "table"
    """`table` for people, `json` for programs; with --watch one line of JSON per change."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogsSettings(ChoiceSettings):
    """Whose logs, and how much of them."""

    role: Annotated[Role | None, Parameter(negative="")] = None
    """Only the pods of a training that have this role."""

    follow: Annotated[bool, Parameter(alias="-f", negative="")] = False
    """Go on with what is written, also in pods that come later, until a training's pods have ended."""

    tail: Annotated[Count | None, Range(minimum=0)] = None
    """The last lines of each container. Default: all."""

    previous: Annotated[bool, Parameter(negative="")] = False
    """What a container wrote before it was last restarted."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OpenSettings(UpSettings, ChoiceSettings):
    """What is opened, and where."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClusterUpSettings(UpSettings):
    """Where the parts of `fairway up` listen, and what is done for a cluster."""

    set: Annotated[tuple[str, ...], Parameter(negative="", group=ON_CLUSTER)] = ()
    """COMPONENT.KEY=VALUE: this value for this time; may be repeated."""

    replace: Annotated[bool, Parameter(negative="", group=ON_CLUSTER)] = False
    """Delete a training that has ended, and start this one in its place."""

    create_namespace: Annotated[bool, Parameter(negative="", group=ON_CLUSTER)] = False
    """Make the namespace if it does not exist."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorSettings(Settings):
    """What is checked."""

    set: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """COMPONENT.KEY=VALUE: this value for this time; may be repeated."""

    probe: bool = True
    """Write a small file where the training writes, from a pod with its image."""

    timeout: Annotated[float, Range(above=0)] = 300.0
    """Seconds that the pod may take."""

    output: Output = "table"
    """`table` for people, `json` for programs."""
