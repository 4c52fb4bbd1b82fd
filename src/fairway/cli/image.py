"""`fairway image`: the container images that the pods of a cluster run."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from cyclopts import App, Parameter

from fairway.cli.output import Output, print_result

log = logging.getLogger(__name__)

app = App(
    name="image",
    help="""Build and push the container images that a cluster runs.

    See also: fairway param, fairway apply
    """,
)

Target = Literal["train", "serve"]
Targets = Annotated[
    Target, Parameter(help="train: with TensorFlow. serve: all else, without. Default: both.")
]
Registry = Annotated[
    str, Parameter(help="Registry, and the path in it that is yours: registry.example.org/me.")
]
Tag = Annotated[str | None, Parameter(help="Tag of the images. Default: the version of fairway.")]


@app.command
def build(
    *targets: Targets,
    registry: Registry | None = None,
    tag: Tag = None,
    base: Annotated[
        str | None,
        Parameter(help="Image to build on, with Python 3.11 to 3.13. Default: python:3.11-slim-bookworm."),
    ] = None,
    network: Annotated[
        str | None, Parameter(help="Network of the build: `host` is this machine's own. Default: docker's.")
    ] = None,
    output: Output = "table",
) -> None:
    """Build the images with docker, from the checkout of fairway. Prints their names.

    Proxy settings of the environment (HTTPS_PROXY …) hold for the build and do not stay in the image.

    For example:

        fairway image build
        fairway image build serve --tag dev --network host
        fairway image build --registry registry.example.org/me

    See also: fairway image push
    """
    from fairway.deploy.verbs import image

    names = image.build(targets or image.TARGETS, registry=registry, tag=tag, base=base, network=network)
    print_result(names, output, "\n".join(names.values()))
    if registry:
        log.info("Next: fairway image push --registry %s%s", registry, f" --tag {tag}" if tag else "")
    else:
        log.info("For a cluster that pulls its images build with --registry, then: fairway image push")
    _tell_params(names)


@app.command
def push(*targets: Targets, registry: Registry, tag: Tag = None, output: Output = "table") -> None:
    """Push the built images to their registry. Prints their names.

    For example:

        fairway image push --registry registry.example.org/me

    See also: fairway image build
    """
    from fairway.deploy.verbs import image

    names = image.push(targets or image.TARGETS, registry=registry, tag=tag)
    print_result(names, output, "\n".join(names.values()))
    _tell_params(names)


def _tell_params(names: dict[Target, str]) -> None:
    log.info("Let the components run it:")
    if train := names.get("train"):
        log.info("  fairway param set train image %s", train)
    if serve := names.get("serve"):
        log.info("  fairway param set COMPONENT image %s  (mnist-deploy-…, tensorboard, web-ui)", serve)
