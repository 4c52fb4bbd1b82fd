"""`fairway open`: ports of this machine lead into the cluster until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairway.deploy.environment import connect
from fairway.deploy.settings import OpenSettings
from fairway.deploy.state.diagnosis import diagnose
from fairway.deploy.state.snapshot import take_snapshot
from fairway.deploy.target import Target
from fairway.deploy.verbs.ending import run_until_stopped, together
from fairway.deploy.verbs.forwards import Forward, Opened, find_forwards, open_forwards
from fairway.deploy.verbs.wait import Changes
from fairway.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from fairway.deploy.kube.client import Kube

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at why something is not ready."""
ENDING = "Ctrl-C closes the ports; what runs in the cluster goes on."


def run(target: Target, settings: OpenSettings) -> int:
    """Open ports until a signal comes.

    Args:
        target: The environment.
        settings: What of it, and where.

    Returns:
        The exit code, that of the signal.

    Raises:
        UsageError: a component has no port.
        FairwayError: a port of this machine is taken.
        ClusterError: nothing is applied, or the cluster refuses or is away at first.
    """
    chosen = target.choose(settings.component)
    forwards = find_forwards(target, chosen, settings)
    portless = {each.name for each in chosen} - {forward.component for forward in forwards}
    if not forwards or (settings.component and portless):
        names = ", ".join(sorted(portless)) or "the app"
        able = find_forwards(target, target.choose(), settings)
        raise UsageError(
            f"{names} has nothing to open",
            hint=f"These have: {', '.join(dict.fromkeys(each.component for each in able)) or 'none'}.",
        )
    return run_until_stopped(_open(target, forwards, settings.host))


async def _open(target: Target, forwards: Sequence[Forward], host: str) -> None:
    async with connect(target.environment) as kube, open_forwards(kube, forwards, host) as opened:
        await opened.refresh()
        if not opened.is_applied:
            name = target.environment.name
            raise ClusterError(
                f"nothing to open is there yet of {name}: no Service "
                + ", ".join(dict.fromkeys(forward.service for forward in forwards)),
                hint=f"Make it with: fairway up {name}, or fairway apply {name}",
            )
        await together(opened.follow(), opened.show(ENDING), explain(kube, target, opened))


async def explain(kube: Kube, target: Target, opened: Opened) -> None:
    """Log, as long as any port is open, why what it leads to is not ready.

    Args:
        kube: The cluster.
        target: The environment.
        opened: The ports.
    """
    changes, clock = Changes(), asyncio.get_running_loop().time
    told: set[str] = set()
    while opened.forwards:
        if names := opened.waiting | told:
            try:
                with opened.noted():
                    records = diagnose(target, await take_snapshot(kube, target), names)
                    for record in changes.among(records, clock()):
                        log.info("%s", record)
                    told = {record.component for record in records if not record.has_arrived}
            except ClusterError as err:
                log.warning("why something is not ready cannot be told: %s", err.message)
                return
        await asyncio.sleep(LOOK_S)
