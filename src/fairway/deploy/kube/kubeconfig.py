"""Where a cluster is and who we are there: the kubeconfig, or in a pod the service account.

Several files are merged as kubectl does it; lightkube itself reads one file, and in a pod none.
Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml
from lightkube.config.kubeconfig import DEFAULT_NAMESPACE, SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from fairway.deploy.kube.plugin import API, Plugin
from fairway.deploy.kube.proxy import proxy_for
from fairway.errors import ClusterError

IN_CLUSTER = "in-cluster"
"""Name of the context that a pod's service account makes."""
SECTIONS = {"contexts": "context", "clusters": "cluster", "users": "user"}
_PATHS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
}
# To leave these out without a word would be to act as somebody else.
_UNKNOWN_TO_US = ("as", "as-uid", "as-groups", "as-user-extra", "auth-provider")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Connection:
    """A context of the kubeconfig.

    Attributes:
        context: Its name.
        server: URL of the API server.
        ca_fingerprint: SHA-256 of the certificates (DER) that the server's must come from, in hexadecimal;
            None where the kubeconfig names none, and the system's count.
        namespace: The context's own; `default` where it names none.
        config: The same for lightkube.
        plugin: The program that gives the credentials; None where they are in the kubeconfig.
        proxy: URL of the proxy to the server; None: there is none.
        tls_server_name: The name that the server's certificate is for; None: the one in the URL.
    """

    context: str
    server: str
    ca_fingerprint: str | None
    namespace: str
    config: SingleConfig = field(repr=False)
    plugin: Plugin | None = field(default=None, repr=False)
    proxy: str | None = None
    tls_server_name: str | None = None


@dataclass(frozen=True)
class _Entry:
    """What one file says of a context, a cluster or a user."""

    content: Mapping[str, Any]
    folder: Path | None


@dataclass
class _Merged:
    """All files together: the first that has an entry wins."""

    current: str | None = None
    sections: dict[str, dict[str, _Entry]] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    files: list[Path] = field(default_factory=list)


def load_connection(context: str | None) -> Connection:
    """Return a context.

    Args:
        context: Its name; None takes the current one.

    Raises:
        ClusterError: there is no kubeconfig, it cannot be read, or it has no such context.
    """
    merged = _merged()
    name = context or merged.current
    if not merged.sections["contexts"]:
        raise _no_kubeconfig(merged, context)
    if not name:
        raise ClusterError(
            "the kubeconfig has no current context",
            hint=f"Choose one: kubectl config use-context NAME. It has: {_names(merged)}.",
        )
    if name not in merged.sections["contexts"]:
        raise _unknown_context(name, merged)
    return _connection(name, merged)


def _merged() -> _Merged:
    """Read all files there are; in a pod without any, its service account."""
    merged = _Merged()
    for path in _paths():
        if path.is_file():
            _merge(merged, _read(path), path.absolute())
    if not merged.files and not os.environ.get("KUBECONFIG"):
        _merge_service_account(merged)
    return merged


def _paths() -> list[Path]:
    named = os.environ.get("KUBECONFIG")
    if not named:
        return [Path("~/.kube/config").expanduser()]
    return [Path(each) for each in dict.fromkeys(named.split(os.pathsep)) if each]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except OSError as err:
        raise ClusterError(f"kubeconfig {path} cannot be read: {err.strerror}") from err
    except yaml.YAMLError as err:
        place = f", line {mark.line + 1}" if (mark := getattr(err, "problem_mark", None)) else ""
        raise ClusterError(f"kubeconfig {path} is no YAML{place}", hint="Mend it, or get it anew.") from err
    if not isinstance(content, dict):
        raise ClusterError(
            f"kubeconfig {path} has no clusters, contexts and users", hint="Name another with KUBECONFIG."
        )
    return content


def _merge(merged: _Merged, content: Mapping[str, Any], path: Path) -> None:
    merged.files.append(path)
    merged.current = merged.current or content.get("current-context") or None
    for section, key in SECTIONS.items():
        try:
            for entry in content.get(section) or ():
                found = _Entry(_set_only(entry.get(key) or {}), path.parent)
                merged.sections[section].setdefault(str(entry["name"]), found)
        except (AttributeError, KeyError, TypeError) as err:
            raise ClusterError(
                f"kubeconfig {path} has an entry without a name in {section}",
                hint="See: kubectl config view",
            ) from err


def _set_only(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value not in (None, "")}


def _merge_service_account(merged: _Merged) -> None:
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return
    try:
        namespace = Path(SERVICE_ACCOUNT, "namespace").read_text().strip()
    except OSError:
        return  # a pod that is not to speak to the API: as if there were no kubeconfig
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    here = {"cluster": IN_CLUSTER, "user": IN_CLUSTER, "namespace": namespace}
    server = {"server": f"https://{address}", "certificate-authority": f"{SERVICE_ACCOUNT}/ca.crt"}
    user = {"tokenFile": f"{SERVICE_ACCOUNT}/token"}
    for section, content in (("contexts", here), ("clusters", server), ("users", user)):
        merged.sections[section][IN_CLUSTER] = _Entry(content, None)
    merged.current = IN_CLUSTER


def _connection(name: str, merged: _Merged) -> Connection:
    context = merged.sections["contexts"][name].content
    cluster = _lookup(merged, "clusters", context.get("cluster"), name)
    user = _lookup(merged, "users", context["user"], name) if context.get("user") else _Entry({}, None)
    if odd := [key for key in _UNKNOWN_TO_US if key in user.content]:
        raise ClusterError(
            f"context {name} has a user with {odd[0]!r}, which fairway does not support",
            hint="Use a context with a token, a client certificate or a credential plugin (exec).",
        )
    where, who = _with_paths("clusters", cluster), _with_paths("users", user)
    config = _config(name, context, where, who)
    server = config.cluster.server.rstrip("/")
    ca = _ca(name, where)
    return Connection(
        context=name,
        server=server,
        ca_fingerprint=None if ca is None else _fingerprint(name, ca),
        namespace=config.context.namespace or DEFAULT_NAMESPACE,
        config=config,
        plugin=_plugin(who, where, ca, user.folder),
        proxy=where.get("proxy-url") or proxy_for(server, os.environ),
        tls_server_name=where.get("tls-server-name"),
    )


def _lookup(merged: _Merged, section: str, name: object, context: str) -> _Entry:
    found = merged.sections[section].get(str(name))
    if found is None:
        what = f"{section.removesuffix('s')} {name!r}" if name else f"a {section.removesuffix('s')}"
        raise ClusterError(
            f"context {context} is of {what}, which the kubeconfig does not have",
            hint="See: kubectl config view",
        )
    return found


def _with_paths(section: str, entry: _Entry) -> dict[str, Any]:
    """Return an entry with its paths made absolute: they are relative to their file."""
    folder = entry.folder or Path("/")
    paths = {key: str(folder / entry.content[key]) for key in _PATHS[section] if key in entry.content}
    return {**entry.content, **paths}


def _config(
    name: str, context: Mapping[str, Any], cluster: Mapping[str, Any], user: Mapping[str, Any]
) -> SingleConfig:
    """Return the context as lightkube has it."""
    own = {key: value for key, value in user.items() if key != "exec"}  # see `plugin`
    parts = {"contexts": {**context, "cluster": name, "user": name}, "clusters": cluster, "users": own}
    entries = {section: [{"name": name, SECTIONS[section]: content}] for section, content in parts.items()}
    try:
        config = KubeConfig.from_dict({"current-context": name, **entries}).get()
    except (msgspec.ValidationError, ConfigError) as err:
        raise ClusterError(
            f"context {name} of the kubeconfig cannot be used: {err}", hint="See: kubectl config view"
        ) from err
    assert config is not None
    return config


def _plugin(
    user: Mapping[str, Any], cluster: Mapping[str, Any], ca: bytes | None, folder: Path | None
) -> Plugin | None:
    spec = user.get("exec")
    if not spec:
        return None
    if not spec.get("provideClusterInfo"):
        return Plugin(spec, None, folder)
    keys = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
    told: dict[str, Any] = {key: cluster[key] for key in keys if key in cluster}
    if ca is not None:
        told["certificate-authority-data"] = base64.b64encode(ca).decode()
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == f"{API}/exec":
            told["config"] = extension.get("extension")
    return Plugin(spec, told, folder)


def _ca(context: str, cluster: Mapping[str, Any]) -> bytes | None:
    path, data = cluster.get("certificate-authority"), cluster.get("certificate-authority-data")
    try:
        if path is not None:
            return Path(path).read_bytes()
        return None if data is None else base64.b64decode(data, validate=True)
    except OSError as err:
        raise ClusterError(f"{path}, the CA of context {context}, cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ClusterError(f"certificate-authority-data of context {context} is not base64") from err


def _fingerprint(context: str, bundle: bytes) -> str:
    """Return the SHA-256 of the certificates alone: comments and line ends make no other cluster."""
    try:
        certificates = [ssl.PEM_cert_to_DER_cert(each) for each in _PEM.findall(bundle.decode())]
    except ValueError:
        certificates = []
    if not certificates:
        raise ClusterError(f"the CA of context {context} is no certificate", hint="Get the kubeconfig anew.")
    return hashlib.sha256(b"".join(certificates)).hexdigest()


def _no_kubeconfig(merged: _Merged, context: str | None) -> ClusterError:
    wanted = f" to find context {context} in" if context else ""
    if merged.files:
        return ClusterError(f"kubeconfig {_listed(merged.files)} has no contexts", hint=_GET_ONE)
    return ClusterError(f"there is no kubeconfig{wanted}: {_listed(_paths())} does not exist", hint=_GET_ONE)


_GET_ONE = "Name one with KUBECONFIG, or have the cluster's provider write it to ~/.kube/config."


def _unknown_context(name: str, merged: _Merged) -> ClusterError:
    near = difflib.get_close_matches(name, merged.sections["contexts"], 1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return ClusterError(
        f"context {name} is not in the kubeconfig; have: {_names(merged)}",
        hint=f"{meant}KUBECONFIG names the files that are read.",
    )


def _names(merged: _Merged) -> str:
    return _listed(sorted(merged.sections["contexts"]))


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))
