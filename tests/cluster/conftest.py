"""What tests on a real cluster share: KUBECONFIG names it."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.apps import DEADLINE_S

Kubectl = Callable[..., str]


LONGEST = ("test_training", "test_tutorial", "test_traffic", "test_up", "test_verbs")
"""Begun first, so that none of them is left over at the end, with the other test processes idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=rank)


def _run(*words: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    """Skip where no cluster is named; one that is named has to answer."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    try:
        _run("version", "--request-timeout=10s")
    except (OSError, AssertionError, subprocess.TimeoutExpired) as err:
        pytest.fail(f"the cluster of KUBECONFIG does not answer: {err}")


@pytest.fixture
def kubectl() -> Kubectl:
    """Run kubectl and return its output."""
    return _run


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of the test's own, which goes away afterwards."""
    name = f"fairway-test-{secrets.token_hex(4)}"
    _run("create", "namespace", name)
    yield name
    _run("delete", "namespace", name, "--wait=false")
