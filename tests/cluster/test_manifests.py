"""The golden files at a real API server: it accepts each, and warns of nothing."""

from __future__ import annotations

import yaml

from tests.cluster.conftest import Kubectl
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "manifests"
STRICT = ("--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors")


def test_the_api_server_accepts_every_golden_file(namespace: str, kubectl: Kubectl) -> None:
    """Pods in it also fit the strictest of the Pod Security Standards, or there would be a warning."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    refused = {}
    for path in sorted(GOLDEN.iterdir()):
        manifests = list(yaml.safe_load_all(path.read_text()))
        for manifest in manifests:
            manifest["metadata"]["namespace"] = namespace
        try:
            applied = kubectl("apply", *STRICT, "-f", "-", stdin=yaml.safe_dump_all(manifests))
        except AssertionError as err:
            refused[path.name] = str(err)
        else:
            assert len(applied.splitlines()) == len(manifests)
    assert not refused
