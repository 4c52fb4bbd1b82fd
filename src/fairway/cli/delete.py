"""`fairway delete`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import DeleteSettings

if TYPE_CHECKING:
    from fairway.deploy.resources import Manifest
    from fairway.deploy.target import Target

log = logging.getLogger(__name__)


def delete(
    env: EnvironmentName,
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
    import asyncio

    from fairway.cli.confirm import confirm
    from fairway.deploy.environment import load_target
    from fairway.deploy.verbs.delete import describe, without_claims

    target = load_target(env)
    found = asyncio.run(_find(target, settings))
    chosen = found if settings.data else without_claims(found)
    if chosen:
        # Asked between two loops, as in one Ctrl-C would wait for the answer.
        log.info("in namespace %s:", target.environment.namespace)
        for each in chosen:
            log.info("  %s", describe(each))
        confirm(f"Delete {_count(chosen)}?", yes=settings.yes)
    else:
        log.info("there is nothing to delete")
    asyncio.run(_remove(target, chosen, settings))
    for each in found:
        if each not in chosen:
            log.info("%s stays, with its data; delete it with --data", describe(each))


async def _find(target: Target, settings: DeleteSettings) -> list[Manifest]:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.delete import find

    async with connect(target.environment) as kube:
        return await find(kube, target, settings.component)


async def _remove(target: Target, objects: Sequence[Manifest], settings: DeleteSettings) -> None:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.delete import describe, remove, wait_for_end

    deleted: list[Manifest] = []

    def report(manifest: Manifest) -> None:
        deleted.append(manifest)
        if settings.output == "table":
            print(f"{describe(manifest)} deleted", flush=True)

    async with connect(target.environment) as kube:
        try:
            await remove(kube, objects, report)
            await wait_for_end(kube, target, objects, timeout_s=settings.timeout)
        finally:
            if settings.output == "json":
                rows = [{"kind": each["kind"], "name": each["metadata"]["name"]} for each in deleted]
                print(json.dumps(rows, indent=2), flush=True)


def _count(objects: Sequence[Manifest]) -> str:
    from fairway.deploy.verbs.delete import describe

    return f"these {len(objects)} objects" if len(objects) > 1 else describe(objects[0])
