"""`fairway doctor ENV`: finds out before anything is applied what would not work, and says what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from fairway.deploy.environment import connect
from fairway.deploy.manifests import render
from fairway.deploy.settings import DoctorSettings
from fairway.deploy.target import Target
from fairway.deploy.verbs.checks.access import check_context, check_namespace, check_rights, check_version
from fairway.deploy.verbs.checks.check import Check, Outcome, Patient, fail
from fairway.deploy.verbs.checks.kinds import (
    check_gateways,
    check_kinds,
    check_manifests,
    check_metrics,
    check_operator,
)
from fairway.deploy.verbs.checks.probe import check_writing
from fairway.deploy.verbs.checks.quota import check_quotas
from fairway.deploy.verbs.checks.secrets import check_accounts, check_secrets
from fairway.deploy.verbs.checks.storage import check_claims
from fairway.errors import ClusterError, UsageError

Look = Callable[[Patient], Awaitable[list[Check]]]
Report = Callable[[Check], None]

IN_CLUSTER: dict[str, Look] = {
    "cluster": check_context,
    "Kubernetes": check_version,
    "kinds": check_kinds,
    "metrics": check_metrics,
    "gateways": check_gateways,
    "namespace": check_namespace,
}
"""What can be looked at without a namespace, which is looked for last."""
IN_NAMESPACE: dict[str, Look] = {
    "operator": check_operator,
    "claims": check_claims,
    "secrets": check_secrets,
    "service accounts": check_accounts,
    "quotas": check_quotas,
}


async def run(target: Target, settings: DoctorSettings, report: Report) -> None:
    """Look at all that an environment needs.

    Args:
        target: The environment.
        settings: What of it.
        report: Is told of each finding as soon as it is there.
    """
    try:
        manifests = render(target, target.choose())
    except UsageError as err:
        report(fail("params", err.message, err.hint))
        return
    try:
        async with connect(target.environment) as kube:
            await _examine(Patient(kube, target, manifests), settings, report)
    except ClusterError as err:  # it cannot be asked: what else there is to say needs it
        report(fail("cluster", err.message, err.hint))


async def _examine(patient: Patient, settings: DoctorSettings, report: Report) -> None:
    found: list[Check] = []
    for title, look in IN_CLUSTER.items():
        found = await _look(title, look, patient, report)
    if any(check.outcome is Outcome.FAIL for check in found):
        return
    rights = await _look("rights", check_rights, patient, report)
    looks = dict(IN_NAMESPACE)
    if not any(check.outcome is Outcome.FAIL for check in rights):
        looks["manifests"] = check_manifests  # else the same would be said of each
    if settings.probe:
        looks["write probe"] = partial(check_writing, timeout_s=settings.timeout)
    for title, look in looks.items():
        await _look(title, look, patient, report)


async def _look(title: str, look: Look, patient: Patient, report: Report) -> list[Check]:
    """Look at one thing; that it may not be looked at is a finding too.

    Raises:
        AwayError: the cluster does not answer.
    """
    from fairway.deploy.kube.errors import AwayError

    try:
        checks = await look(patient)
    except AwayError:
        raise
    except ClusterError as err:
        checks = [fail(title, err.message, err.hint)]
    for check in checks:
        report(check)
    return checks
