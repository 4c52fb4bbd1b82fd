"""NetworkPolicies: who may connect to a component's pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairway.deploy.components.base import Placement
from fairway.deploy.resources import Manifest, manifest


def network_policy(placement: Placement, instance: str, name: str, ingress: Sequence[Manifest]) -> Manifest:
    """Return a policy that lets in only what some rules name. What pods connect to themselves is left free.

    Args:
        placement: Where it goes.
        instance: The component's param `name`: its pods are guarded.
        name: The policy's name.
        ingress: Of `allow`; none: nobody gets in. Probes and port-forward always do.
    """
    return manifest(
        "NetworkPolicy",
        placement.metadata(name, instance),
        {
            "podSelector": {"matchLabels": placement.selector(instance)},
            "policyTypes": ["Ingress"],
            "ingress": list(ingress),
        },
    )


def allow(peers: Sequence[Manifest] | None, *ports: int) -> list[Manifest]:
    """Return the rules that let peers in.

    Args:
        peers: Of `pods`, `namespace_pods` and `gateway_pods`; `None`: everybody; empty: nobody.
        ports: TCP ports.
    """
    if peers is not None and not peers:
        return []  # a rule without peers would let everybody in
    entries = [{"protocol": "TCP", "port": port} for port in ports]
    return [({} if peers is None else {"from": list(peers)}) | {"ports": entries}]


def pods(labels: Mapping[str, str]) -> list[Manifest]:
    """Return the pods of the namespace with some labels as peers; without labels none."""
    return [{"podSelector": {"matchLabels": dict(labels)}}] if labels else []


def namespace_pods(namespace: str | None) -> list[Manifest]:
    """Return all pods of a namespace as peers; without one none."""
    if namespace is None:
        return []
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]


def gateway_pods(gateway: str | None, gateway_namespace: str | None, placement: Placement) -> list[Manifest]:
    """Return the proxies of a Gateway as peers.

    In a namespace of its own all pods are taken for proxies, in that of the app only those with the Gateway
    API's label: https://gateway-api.sigs.k8s.io/geps/gep-1762/

    Args:
        gateway: `NAME`, in the namespace of the app, or `NAMESPACE/NAME`; `None`: there is none.
        gateway_namespace: Where its proxies run; `None`: where it is itself.
        placement: Says which is the app's.
    """
    if gateway is None:
        return []
    own, slash, name = gateway.rpartition("/")
    namespace = gateway_namespace or (own if slash else placement.namespace)
    if namespace != placement.namespace:
        return namespace_pods(namespace)
    return pods({"gateway.networking.k8s.io/gateway-name": name})


def front_peers(
    service_type: str, gateway: str | None, gateway_namespace: str | None, placement: Placement
) -> list[Manifest] | None:
    """Return who may ask what is meant for people.

    Args:
        service_type: Of the Service before it: other types than ClusterIP let others in than the cluster.
        gateway: Of its HTTPRoute.
        gateway_namespace: Where the Gateway's proxies run; `None`: where it is itself.
        placement: Where it is.
    """
    return gateway_pods(gateway, gateway_namespace, placement) if service_type == "ClusterIP" else None
