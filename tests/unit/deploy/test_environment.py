"""An environment is tied to one cluster; another one behind the same name is refused."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fairway.deploy.apps.app import Environment, load_environment
from fairway.deploy.apps.edits import add_environment, create_app
from fairway.deploy.environment import check_pinned, connect, load_target, pin
from fairway.deploy.kube.kubeconfig import load_connection
from fairway.errors import ClusterError, FairwayError
from tests.unit.deploy.kube.tls import self_signed

ONE, ANOTHER = "one.pem", "another.pem"
"""Certificates of two authorities, beside the kubeconfig."""


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    for name in (ONE, ANOTHER):
        (tmp_path / name).write_text(self_signed(tmp_path / name).pem)
    write(path)
    return path


def write(path: Path, server: str = "https://127.0.0.1:6443", ca: str | None = ONE) -> None:
    cluster = {"server": server}
    if ca:
        cluster["certificate-authority-data"] = base64.b64encode((path.parent / ca).read_bytes()).decode()
    content = {
        "current-context": "kind",
        "contexts": [
            {"name": "kind", "context": {"cluster": "kind", "user": "me", "namespace": "models"}},
            {"name": "other", "context": {"cluster": "other", "user": "me"}},
        ],
        "clusters": [
            {"name": "kind", "cluster": cluster},
            {"name": "other", "cluster": {"server": "https://10.0.0.1"}},
        ],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(content))


async def connected(environment: Environment) -> None:
    async with connect(environment):
        pass


def test_the_cluster_is_written_down(kubeconfig: Path) -> None:
    pinned = pin(Environment("dev"), None)
    assert (pinned.context, pinned.server, pinned.namespace) == ("kind", "https://127.0.0.1:6443", "models")
    assert pinned.certificate_authority
    assert pinned.certificate_authority.startswith("sha256:")
    assert pin(Environment("dev", namespace="own"), "kind").namespace == "own"
    other = pin(Environment("dev"), "other")
    assert (other.server, other.certificate_authority, other.namespace) == (
        "https://10.0.0.1",
        None,
        "default",
    )


def test_the_same_cluster_is_taken(kubeconfig: Path) -> None:
    pinned = pin(Environment("dev"), None)
    asyncio.run(connected(pinned))
    asyncio.run(connected(pin(Environment("dev"), "other")))


@pytest.mark.parametrize(
    ("server", "ca", "message"),
    [
        ("https://127.0.0.1:6444", ONE, "its server is https://127.0.0.1:6444, not https://127.0.0.1:6443"),
        ("https://127.0.0.1:6443", ANOTHER, "its certificate authority is sha256:"),
        ("https://127.0.0.1:6443", None, "its certificate authority is not given, not sha256:"),
        ("https://127.0.0.1:6444", ANOTHER, "its server is"),
    ],
    ids=["server", "authority", "no authority", "both"],
)
def test_another_cluster_of_the_same_name_is_refused(
    kubeconfig: Path, server: str, ca: str | None, message: str
) -> None:
    pinned = pin(Environment("dev"), None)
    write(kubeconfig, server, ca)
    with pytest.raises(ClusterError) as caught:
        asyncio.run(connected(pinned))
    assert "the context kind leads to another cluster than the one" in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint == "If that is meant: fairway env set dev --context kind"
    asyncio.run(connected(pin(pinned, "kind")))


def test_a_cluster_that_had_no_authority(kubeconfig: Path) -> None:
    write(kubeconfig, ca=None)
    pinned = pin(Environment("dev"), None)
    check_pinned(pinned, load_connection("kind"))
    write(kubeconfig)
    with pytest.raises(ClusterError, match="its certificate authority is sha256:.*, not not given"):
        check_pinned(pinned, load_connection("kind"))


def test_the_authority_may_be_written_otherwise(kubeconfig: Path) -> None:
    pinned = pin(Environment("dev"), None)
    authority = kubeconfig.parent / ONE
    authority.write_text("# a comment\r\n" + authority.read_text().replace("\n", "\r\n"))
    write(kubeconfig)
    asyncio.run(connected(pinned))


def test_the_current_context_does_not_count_later(kubeconfig: Path) -> None:
    pinned = pin(Environment("dev"), None)
    kubeconfig.write_text(kubeconfig.read_text().replace("current-context: kind", "current-context: other"))
    asyncio.run(connected(pinned))


@pytest.mark.parametrize(
    ("context", "server", "command"),
    [
        (None, None, "fairway env set dev --context CONTEXT"),
        ("kind", None, "fairway env set dev --context kind"),
        (None, "https://127.0.0.1:6443", "fairway env set dev --context CONTEXT"),
    ],
)
def test_without_a_cluster_there_is_none(
    kubeconfig: Path, context: str | None, server: str | None, command: str
) -> None:
    with pytest.raises(ClusterError, match="environment dev is not tied to a cluster yet") as caught:
        asyncio.run(connected(Environment("dev", context, server)))
    assert caught.value.hint == f"Choose one: {command}"


def test_a_context_that_is_gone(kubeconfig: Path) -> None:
    pinned = replace(pin(Environment("dev"), None), context="kinf")
    with pytest.raises(ClusterError, match="context kinf is not in the kubeconfig"):
        asyncio.run(connected(pinned))
    with pytest.raises(ClusterError, match="context nope is not in the kubeconfig"):
        pin(Environment("dev"), "nope")


def test_what_is_pinned_survives_the_file(kubeconfig: Path, tmp_path: Path) -> None:
    app = create_app(tmp_path / "mnist")
    pinned = pin(Environment("dev"), None)
    add_environment(app, pinned)
    assert load_environment(app, "dev") == pinned


def test_a_target_by_name(tmp_path: Path) -> None:
    app = create_app(tmp_path / "mnist")
    add_environment(app, Environment("dev", params={"train": {"numWorkers": "1"}}))
    target = load_target("dev", ["train.numWorkers=2"], app)
    assert target.choose(["train"])[0].values["numWorkers"].origin == "--set"
    assert load_target(None, app=app).environment.name == ""
    with pytest.raises(FairwayError, match="did you mean 'dev'"):
        load_target("de", app=app)
