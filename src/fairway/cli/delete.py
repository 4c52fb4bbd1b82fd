"""`fairway delete`."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fairway.deploy.settings import DeleteSettings

if TYPE_CHECKING:
    from fairway.deploy.target import Target

log = logging.getLogger(__name__)


def delete(
    env: Annotated[str, Parameter(help="Name of the environment.")],
    /,
    settings: DeleteSettings = DeleteSettings(),  # noqa: B008 - frozen
) -> None:
    """Delete what apply has made of an environment, and wait until its pods have ended.

    Models stay, and so do claims (but with --data), secrets and all that apply did not make.
    Prints what is deleted; asks first.

    For example:

        fairway delete dev
        fairway delete dev -c train --yes
        fairway delete dev --data

    See also: fairway apply, fairway status, fairway env
    """
    from fairway.deploy.environment import load_target

    asyncio.run(_delete(load_target(env), settings))


async def _delete(target: Target, settings: DeleteSettings) -> None:
    from fairway.cli.confirm import confirm
    from fairway.deploy.delete import describe, find, remove, without_claims
    from fairway.deploy.environment import connect

    async with connect(target.environment) as kube:
        found = await find(kube, target, settings.component)
        chosen = found if settings.data else without_claims(found)
        left = [each for each in found if each not in chosen]
        if chosen:
            names = "".join(f"\n  {describe(each)}" for each in chosen)
            where = f"namespace {target.environment.namespace} of {kube.connection.context}"
            confirm(f"Delete from {where}:{names}\nAll of it?", yes=settings.yes)
        else:
            log.info("there is nothing to delete")
        deleted = await remove(kube, target, chosen, settings)
    if settings.output == "json":
        rows = [{"kind": each["kind"], "name": each["metadata"]["name"]} for each in deleted]
        print(json.dumps(rows, indent=2))
    else:
        for each in deleted:
            print(f"{describe(each)} deleted")
    for each in left:
        log.info("%s stays, with its data; delete it with --data", describe(each))
