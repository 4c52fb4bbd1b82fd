"""Kubeconfig files: merged, read and refused as kubectl does it."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairway.deploy.kube import kubeconfig as module
from fairway.deploy.kube.kubeconfig import IN_CLUSTER, load_connection
from fairway.errors import ClusterError
from tests.unit.deploy.kube.tls import self_signed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, no kubeconfig, no pod, no proxy."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path: Path, **sections: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **sections}))
    return path


def context(name: str, **more: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": name, "user": name, **more}}


def cluster(name: str, server: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "cluster": {"server": server, **more}}


def user(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "user": more}


def one(path: Path, *, context_: dict[str, Any] | None = None, **sections: Any) -> Path:
    """Write a kubeconfig with the context `a`."""
    given = {
        "current-context": "a",
        "contexts": [context_ or context("a")],
        "clusters": [cluster("a", "https://a.example.com:6443")],
        "users": [user("a", token="t")],
    }
    return write(path, **given | sections)


def use(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))


def test_the_usual_place_is_read(home: Path) -> None:
    one(home / ".kube" / "config", context_=context("a", namespace="mine"))
    found = load_connection(None)
    assert (found.context, found.server, found.namespace) == ("a", "https://a.example.com:6443", "mine")
    assert found.ca_fingerprint is None
    assert found == load_connection("a")


def test_of_several_files_the_first_that_has_an_entry_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(home / "1", contexts=[context("a", namespace="first")], clusters=None)
    second = one(home / "2", context_=context("a", namespace="second"), users=[user("a", token="second")])
    third = write(
        home / "3",
        **{"current-context": "b"},
        contexts=[context("b")],
        clusters=[cluster("b", "https://b.example.com"), cluster("a", "https://other.example.com")],
        users=[user("a", token="third")],
    )
    use(monkeypatch, first, home / "not-there", second, third)
    found = load_connection(None)
    assert (found.context, found.namespace) == ("a", "first")
    assert found.server == "https://a.example.com:6443"
    assert found.config.user is not None
    assert found.config.user.token == "second"


def test_paths_are_relative_to_their_own_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(home / "ca.pem")
    clusters = write(
        home / "clusters" / "config",
        clusters=[cluster("a", "https://a.example.com", **{"certificate-authority": "../ca.pem"})],
    )
    users = write(
        home / "users" / "config", users=[user("a", tokenFile="token", **{"client-certificate": "x.pem"})]
    )
    use(monkeypatch, clusters, users, write(home / "config", contexts=[context("a")]))
    found = load_connection("a")
    assert found.config.user is not None
    assert found.config.user.token_file == str(home / "users" / "token")
    assert found.config.user.client_cert == str(home / "users" / "x.pem")
    der = ssl.PEM_cert_to_DER_cert(certificate.pem)
    assert found.ca_fingerprint == hashlib.sha256(der).hexdigest()


def test_the_fingerprint_is_of_the_certificates_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = self_signed(home / "ca.pem").pem
    fingerprints = []
    for text in (pem, f"# a comment\n{pem}\n\n", pem.replace("\n", "\r\n")):
        data = base64.b64encode(text.encode()).decode()
        clusters = [cluster("a", "https://a.example.com", **{"certificate-authority-data": data})]
        use(monkeypatch, one(home / "config", clusters=clusters))
        fingerprints.append(load_connection(None).ca_fingerprint)
    assert len(set(fingerprints)) == 1
    assert fingerprints[0] is not None


def test_what_the_connection_needs_beside_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    more = {"tls-server-name": "inner", "proxy-url": "http://proxy:1", "extensions": [extension]}
    spec = {"command": "bin/get", "apiVersion": "client.authentication.k8s.io/v1", "provideClusterInfo": True}
    path = one(
        home / "config",
        clusters=[cluster("a", "https://a.example.com/k8s/", **more)],
        users=[user("a", exec=spec)],
    )
    use(monkeypatch, path)
    found = load_connection(None)
    assert (found.server, found.tls_server_name, found.proxy) == (
        "https://a.example.com/k8s",
        "inner",
        "http://proxy:1",
    )
    assert found.plugin is not None
    assert found.plugin.command == str(home / "bin" / "get")
    assert found.plugin.cluster == {
        "server": "https://a.example.com/k8s/",
        "tls-server-name": "inner",
        "proxy-url": "http://proxy:1",
        "config": {"audience": "x"},
    }


def test_the_proxy_of_the_environment_is_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one(home / "config"))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert load_connection(None).proxy == "http://proxy:1"
    monkeypatch.setenv("NO_PROXY", ".example.com")
    assert load_connection(None).proxy is None


def test_secrets_are_not_in_the_text_of_a_connection(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one(home / "config", users=[user("a", token="hush")]))
    assert "hush" not in repr(load_connection(None))


@pytest.fixture
def in_pod(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    account = home / "account"
    account.mkdir()
    (account / "namespace").write_text("mine\n")
    (account / "token").write_text("t")
    self_signed(account / "ca.crt")
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return account


@pytest.mark.usefixtures("in_pod")
def test_a_pod_has_its_service_account() -> None:
    found = load_connection(None)
    assert (found.context, found.server, found.namespace) == (IN_CLUSTER, "https://[fd00::1]:443", "mine")
    assert found.ca_fingerprint


@pytest.mark.usefixtures("in_pod")
def test_a_kubeconfig_counts_before_the_service_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one(home / "config"))
    assert load_connection(None).context == "a"
    use(monkeypatch, home / "not-there")
    with pytest.raises(ClusterError, match="there is no kubeconfig"):
        load_connection(None)


def test_without_a_kubeconfig_it_is_said_where_it_was_looked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match=r"there is no kubeconfig: .*/\.kube/config does not exist"):
        load_connection(None)
    use(monkeypatch, home / "x", home / "y")
    with pytest.raises(ClusterError, match="to find context c in: .*/x, .*/y does not exist") as caught:
        load_connection("c")
    assert "KUBECONFIG" in caught.value.hint


def test_an_unknown_context_names_the_nearest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [context("production"), context("staging")]
    use(monkeypatch, one(home / "config", contexts=names))
    with pytest.raises(ClusterError, match="context prodution is not in the kubeconfig; have: ") as caught:
        load_connection("prodution")
    assert caught.value.message.endswith("have: production, staging")
    assert caught.value.hint.startswith("Did you mean production?")


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"current-context": ""}, "has no current context"),
        ({"contexts": []}, "has no contexts"),
        ({"clusters": []}, "of cluster 'a', which the kubeconfig does not have"),
        ({"users": []}, "of user 'a', which the kubeconfig does not have"),
        ({"contexts": [{"name": "a"}]}, "of a cluster, which the kubeconfig does not have"),
        ({"contexts": ["a"]}, "has an entry without a name in contexts"),
        ({"contexts": 7}, "has an entry without a name in contexts"),
        ({"clusters": [cluster("a", "x", **{"insecure-skip-tls-verify": "perhaps"})]}, "cannot be used"),
        ({"clusters": [cluster("a", "x", **{"certificate-authority": "gone"})]}, "gone, the CA of context a"),
        ({"clusters": [cluster("a", "x", **{"certificate-authority-data": "!"})]}, "is not base64"),
        ({"clusters": [cluster("a", "x", **{"certificate-authority-data": "aGk="})]}, "is no certificate"),
        ({"users": [user("a", **{"auth-provider": {"name": "gcp"}})]}, "'auth-provider', which fairway does"),
        ({"users": [user("a", **{"as": "admin"})]}, "'as', which fairway does not support"),
    ],
)
def test_a_broken_kubeconfig_is_said_in_a_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], what: str
) -> None:
    use(monkeypatch, one(home / "config", **sections))
    with pytest.raises(ClusterError, match=what):
        load_connection(None)


@pytest.mark.parametrize(
    ("text", "what"), [("a: [\n", "is no YAML, line 2"), ("- a", "has no clusters, contexts and users")]
)
def test_a_file_that_is_no_kubeconfig_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str
) -> None:
    (home / "config").write_text(text)
    use(monkeypatch, home / "config")
    with pytest.raises(ClusterError, match=f"/config {what}"):
        load_connection(None)


def test_a_file_that_may_not_be_read_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one(home / "config"))

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ClusterError, match="/config cannot be read: Permission denied"):
        load_connection(None)
