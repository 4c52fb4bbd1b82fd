"""HTTPRoutes of the Gateway API: ways into the cluster."""

from __future__ import annotations

from collections.abc import Sequence

from fairway.deploy.components.base import Placement
from fairway.deploy.resources import Manifest, manifest


def http_route(
    placement: Placement,
    name: str,
    instance: str,
    gateway: str,
    hostname: str | None,
    rules: Sequence[Manifest],
) -> Manifest:
    """Return a route.

    Args:
        placement: Where it goes.
        name: Its name.
        instance: The component's param `name`.
        gateway: `NAME`, in the route's namespace, or `NAMESPACE/NAME`.
        hostname: `None`: all of the gateway's.
        rules: Which path leads where.
    """
    namespace, slash, rest = gateway.partition("/")
    parent = {"namespace": namespace, "name": rest} if slash else {"name": gateway}
    return manifest(
        "HTTPRoute",
        placement.metadata(name, instance),
        {
            "parentRefs": [parent],
            **({"hostnames": [hostname]} if hostname else {}),
            "rules": list(rules),
        },
    )


def mount_rules(path: str, service: str, port: int) -> list[Manifest]:
    """Return the rules that show, under a path, what a Service has at `/`.

    Args:
        path: Without a slash in the end. A browser is sent to the one with it, as pages name their parts
            relatively.
        service: The Service's name.
        port: Its port.
    """
    redirect = {"path": {"type": "ReplaceFullPath", "replaceFullPath": f"{path}/"}, "statusCode": 302}
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    return [
        {
            "matches": [exact(path)],
            "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}],
        },
        {
            "matches": [prefix(f"{path}/")],
            "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
            "backendRefs": [backend(service, port)],
        },
    ]


def exact(path: str) -> Manifest:
    """Return a match of one path."""
    return {"path": {"type": "Exact", "value": path}}


def prefix(path: str) -> Manifest:
    """Return a match of a path and all below it: element by element, so `/a` does not match `/a:b`."""
    return {"path": {"type": "PathPrefix", "value": path}}


def backend(service: str, port: int, weight: int | None = None) -> Manifest:
    """Return a Service to which requests go; with a weight, as many as that in proportion."""
    return {"name": service, "port": port} | ({} if weight is None else {"weight": weight})
