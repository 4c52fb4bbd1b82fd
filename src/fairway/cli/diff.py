"""`fairway diff`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import DiffSettings
from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.deploy.target import Target
    from fairway.deploy.verbs.diff import Difference

EQUAL, DIFFERENT, ERROR = 0, 1, 2


def diff(
    env: EnvironmentName,
    /,
    settings: DiffSettings = DiffSettings(),  # noqa: B008 - frozen
) -> int:
    """Show what apply would change: what is in the cluster beside what it would make of the manifests.

    The exit codes are kubectl's: 0 nothing differs, 1 something does, 2 and up an error.

    For example:

        fairway diff dev
        fairway diff dev -c train --set train.trainSteps=500
        fairway diff dev -o json

    See also: fairway apply, fairway show, fairway param
    """
    import asyncio

    from fairway.deploy.environment import load_target

    try:
        found = asyncio.run(_diff(load_target(env, settings.set), settings))
    except FairwayError as err:
        err.exit_code = max(err.exit_code, ERROR)
        raise
    different = [each for each in found if each.state != "equal"]
    if settings.output == "json":
        print(json.dumps([asdict(each) for each in different], indent=2))
    else:
        for each in different:
            print(f"{each.kind} {each.name}: {each.state}" + (f" ({each.note})" if each.note else ""))
            print(each.diff)
    return DIFFERENT if different else EQUAL


async def _diff(target: Target, settings: DiffSettings) -> list[Difference]:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.diff import run

    async with connect(target.environment) as kube:
        return await run(kube, target, settings.component)
