"""The kinds of component: params in, manifests out."""

from __future__ import annotations

from fairway.deploy.components import claim, service, serving, tensorboard, train, web
from fairway.deploy.components.base import Kind

KINDS = {
    kind.name: kind
    for kind in (
        Kind("storage", claim.ClaimParams, claim.build, claim.takes_part),
        Kind("train", train.TrainParams, train.build, retired=train.RETIRED, needs=train.NEEDS),
        Kind(
            "mnist-service",
            service.ServiceParams,
            service.build,
            retired=service.RETIRED,
            needs=service.NEEDS,
        ),
        Kind(
            "serving",
            serving.ServingParams,
            serving.build,
            serving.takes_part,
            serving.RETIRED,
            serving.NEEDS,
        ),
        Kind("tensorboard", tensorboard.TensorBoardParams, tensorboard.build, needs=tensorboard.NEEDS),
        Kind("web-ui", web.WebParams, web.build, needs=web.NEEDS),
    )
}
"""By name, in the order in which they are applied: those before those that take values from them."""
