"""The component `tensorboard`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fairway.deploy.components.base import AccessParams, Gateway, Name, Subdomain
from fairway.deploy.params import From


@dataclass(frozen=True, kw_only=True)
class TensorBoardParams(AccessParams):
    """What TensorBoard shows."""

    directories: ClassVar[tuple[str, ...]] = ("log_dir",)

    name: Name = "tensorboard"
    """Name of the Deployment and the Service, to which -tb is added."""

    log_dir: Annotated[str | None, From("train", "modelDir")] = None
    """Directory with event files. Default: the training's modelDir."""

    gateway: Gateway | None = None
    """Gateway through which an HTTPRoute leads here, under /NAMESPACE/tensorboard/APP. Default: none."""

    hostname: Subdomain | None = None
    """Host name of the HTTPRoute. Default: all of the gateway's."""


def build(params: Any, placement: Placement) -> list[Manifest]:
    raise NotImplementedError
