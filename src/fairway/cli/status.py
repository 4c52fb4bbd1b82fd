"""`fairway status`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from fairway.cli.arguments import EnvironmentName
from fairway.cli.output import table
from fairway.deploy.settings import StatusSettings

if TYPE_CHECKING:
    from fairway.deploy.state.record import Record
    from fairway.deploy.target import Target

log = logging.getLogger(__name__)


def status(
    env: EnvironmentName,
    /,
    settings: StatusSettings = StatusSettings(),  # noqa: B008 - frozen
) -> None:
    """Show the state of each component in one line, and why it is not ready; of a training how far it is.

    The states: ready, running, done, starting, waiting (for another component), stuck (it needs help),
    failed, absent (not applied yet) and dropped (the app no longer has it). The exit code is 0 whatever they
    are: programs read -o json. On a terminal --watch redraws; elsewhere it prints a line per change.

    For example:

        fairway status dev
        fairway status dev -c train --watch
        fairway status dev -o json

    See also: fairway logs, fairway apply, fairway doctor
    """
    import asyncio

    from fairway.deploy.environment import load_target

    target = load_target(env, settings.set)
    asyncio.run(_watch(target, settings) if settings.watch else _show(target, settings))


async def _show(target: Target, settings: StatusSettings) -> None:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.status import run

    async with connect(target.environment) as kube:
        records = await run(kube, target, settings.component)
    if settings.output == "json":
        print(json.dumps([record.to_json() for record in records], indent=2))
        return
    print(_table(records))
    for hint, names in _hints(records).items():
        log.info("%s: %s", ", ".join(names), hint)


def _hints(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return the components that each hint is for."""
    hints: dict[str, list[str]] = {}
    for record in records:
        if record.hint:
            hints.setdefault(record.hint, []).append(record.component)
    return hints


async def _watch(target: Target, settings: StatusSettings) -> None:
    from fairway.deploy.environment import connect
    from fairway.deploy.verbs.status import watch

    show = _redraw if settings.output == "table" and sys.stdout.isatty() else _print_changes
    async with connect(target.environment) as kube:
        await show(watch(kube, target, settings.component), settings)


async def _redraw(found: AsyncIterator[list[Record]], _settings: StatusSettings) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        async for records in found:
            live.update(Text(_table(records)), refresh=True)


async def _print_changes(found: AsyncIterator[list[Record]], settings: StatusSettings) -> None:
    import time

    from fairway.deploy.verbs.wait import Changes

    changes = Changes()
    async for records in found:
        for record in changes.among(records, time.monotonic()):
            print(json.dumps(record.to_json()) if settings.output == "json" else record, flush=True)


def _table(records: Sequence[Record]) -> str:
    cells = [["COMPONENT", "STATE", "PODS", "REASON"]]
    cells += [
        [
            record.component,
            record.state,
            f"{record.ready}/{record.pods}" if record.pods else "-",
            record.reason,
        ]
        for record in records
    ]
    return table(cells)
