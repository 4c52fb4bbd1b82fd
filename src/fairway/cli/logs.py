"""`fairway logs`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import LogsSettings
from fairway.errors import UsageError

if TYPE_CHECKING:
    from fairway.deploy.target import Target
    from fairway.deploy.verbs.logs import Source

COLOURS = (36, 35, 33, 32, 34)


def logs(
    env: EnvironmentName,
    /,
    settings: LogsSettings = LogsSettings(),  # noqa: B008 - frozen
) -> None:
    """Print the logs of the pods, merged and in order of time, each line with its pod before it.

    With -f it goes on with what is written, also in pods that are restarted or come later. It ends by itself
    when it is about trainings and their pods have ended; otherwise with Ctrl-C.

    For example:

        fairway logs dev -c train -f
        fairway logs dev -c train --role chief --tail 20
        fairway logs dev -c mnist-deploy-pvc --previous

    See also: fairway status, fairway apply
    """
    import asyncio

    from fairway.deploy.environment import load_target

    if settings.follow and settings.previous:
        raise UsageError("nothing is added to a log of --previous", hint="Leave out -f, or --previous.")
    asyncio.run(_logs(load_target(env), settings))


async def _logs(target: Target, settings: LogsSettings) -> None:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.logs import follow, run

    async with connect(target.environment) as kube:
        await (follow if settings.follow else run)(kube, target, settings, Printer())


class Printer:
    """Prints lines with their source before them, each source in a colour of its own on a terminal."""

    def __init__(self) -> None:
        self._colours: dict[str, int] = {}
        self._is_plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))

    def __call__(self, source: Source, line: str) -> None:
        """Print a line."""
        colour = self._colours.setdefault(source.title, COLOURS[len(self._colours) % len(COLOURS)])
        prefix = f"{source.title:<{max(map(len, self._colours))}} │ "
        if not self._is_plain:
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        print(f"{prefix}{line}", flush=True)
