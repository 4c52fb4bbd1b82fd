"""`fairway doctor`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from fairway.cli.arguments import EnvironmentName
from fairway.deploy.settings import DoctorSettings

if TYPE_CHECKING:
    from fairway.deploy.verbs.checks.check import Check

_SYMBOLS = {"ok": ("✓", 32), "warn": ("!", 33), "fail": ("✗", 31)}


def doctor(
    env: EnvironmentName,
    /,
    settings: DoctorSettings = DoctorSettings(),  # noqa: B008 - frozen
) -> int:
    """Check all that an environment needs, each in a line, with what to do where something is missing.

    Looked at are: the cluster and its version, operators and CRDs, the namespace, your rights, claims,
    Secrets, quota, and whether the cluster takes the manifests. Last a short Job tries from a pod, with the
    training's image and settings, to write where the training will; it is deleted again. The exit code is 1
    if anything fails.

    For example:

        fairway doctor dev
        fairway doctor dev --no-probe -o json

    See also: fairway status, fairway apply, fairway env
    """
    from fairway.deploy.environment import load_target
    from fairway.deploy.verbs.doctor import run
    from fairway.deploy.verbs.ending import run_until_stopped

    checks: list[Check] = []

    def report(check: Check) -> None:
        checks.append(check)
        if settings.output == "table":
            print(_line(check), flush=True)

    code = run_until_stopped(run(load_target(env, settings.set), settings, report))
    if settings.output == "json":
        print(json.dumps([check.to_json() for check in checks], indent=2))
    return code or int(any(check.outcome == "fail" for check in checks))


def _line(check: Check) -> str:
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    symbol, colour = _SYMBOLS[check.outcome]
    mark = f"{check.outcome:<4}" if plain else f"\x1b[{colour}m{symbol}\x1b[0m"
    indent = " " * (len(f"{check.outcome:<4}") if plain else len(symbol))
    hint = f"\n{indent} {check.hint}" if check.hint else ""
    return f"{mark} {check.title}: {check.sentence}{hint}"
