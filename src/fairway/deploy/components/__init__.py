"""The kinds of component: params in, manifests out."""

from __future__ import annotations

from fairway.deploy.components import claim, service, serving, tensorboard, train, web
from fairway.deploy.components.base import Kind

KINDS = {
    kind.name: kind
    for kind in (
        Kind("storage", claim.ClaimParams, claim.build, claim.takes_part),
        Kind("train", train.TrainParams, train.build, retired=train.RETIRED),
        Kind("mnist-service", service.ServiceParams, service.build, retired=service.RETIRED),
        Kind("serving", serving.ServingParams, serving.build, serving.takes_part, serving.RETIRED),
        Kind("tensorboard", tensorboard.TensorBoardParams, tensorboard.build),
        Kind("web-ui", web.WebParams, web.build),
    )
}
"""By name, in the order in which they are applied: those before those that take values from them."""
