"""`fairway apply`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import ApplySettings
from fairway.errors import UsageError

if TYPE_CHECKING:
    from fairway.deploy.state.record import Record
    from fairway.deploy.target import Target
    from fairway.deploy.verbs.apply import Change

log = logging.getLogger(__name__)


def apply(
    env: EnvironmentName,
    /,
    settings: ApplySettings = ApplySettings(),  # noqa: B008 - frozen
) -> None:
    """Make the cluster be as an environment says. Prints a line per object.

    All is checked first, by the cluster too; only then is anything sent. A training that runs, or has ended,
    with the same params is left as it is. One with other params is in the way until it has ended, and is
    then replaced only with --replace. What was exported stays in every case.

    An object of the same name that belongs to another environment, or that fairway did not make,
    is left alone, and is an error. The latter --force-conflicts takes over, but for claims and
    jobs; fairway delete then deletes them.

    --prune is for components that the app no longer has or whose param enabled is false, and for
    what the others no longer make. What was applied by its name and takes no part here stays.

    With --wait the exit code is 1 as soon as a component cannot go on without help, and says why.

    For example:

        fairway apply dev
        fairway apply dev -c train --set train.numWorkers=2 --wait
        fairway apply dev --dry-run server
        fairway apply dev --prune --replace

    See also: fairway diff, fairway show, fairway status, fairway delete
    """
    import asyncio

    from fairway.deploy.environment import load_target

    if settings.timeout is not None and not settings.wait:
        raise UsageError("--timeout is how long --wait waits", hint="Add --wait, or leave --timeout out.")
    asyncio.run(_apply(load_target(env, settings.set), settings))


async def _apply(target: Target, settings: ApplySettings) -> None:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.apply import run
    from fairway.deploy.verbs.wait import wait_until_ready

    changes: list[Change] = []

    def report(change: Change) -> None:
        changes.append(change)
        if settings.output == "table":
            print(change, flush=True)

    async with connect(target.environment) as kube:

        async def resume(components: Sequence[str]) -> None:
            again = replace(settings, component=tuple(components), prune=False)
            await run(kube, target, again, lambda change: log.info("%s", change))

        try:
            await run(kube, target, settings, report)
        finally:
            if settings.output == "json":
                print(json.dumps([asdict(change) for change in changes], indent=2), flush=True)
        if settings.wait and not settings.dry_run:
            await wait_until_ready(
                kube, target, settings.component, _show, resume, timeout_s=settings.timeout
            )


def _show(record: Record) -> None:
    log.info("%s", record)
