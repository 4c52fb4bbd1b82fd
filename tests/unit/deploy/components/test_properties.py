"""What holds for the manifests of every component."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fairway.deploy.components import KINDS
from fairway.deploy.components.base import PodParams
from fairway.deploy.manifests import to_yaml
from fairway.deploy.resources import JOBS, RESOURCES, Manifest
from fairway.errors import UsageError
from tests.unit.deploy.components.cases import CASES, NAMESPACE, build, build_case

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
OWN = {
    "app.kubernetes.io/managed-by": "fairway",
    "app.kubernetes.io/part-of": "mnist",
    "fairway/environment": "dev",
}

every_case = pytest.mark.parametrize("name", CASES)


def templates(manifest: Any) -> Iterator[Manifest]:
    """Yield the pod templates anywhere in a manifest."""
    if isinstance(manifest, dict):
        if "containers" in manifest.get("spec", {}):
            yield manifest
        else:
            for entry in manifest.values():
                yield from templates(entry)
    elif isinstance(manifest, list):
        for entry in manifest:
            yield from templates(entry)


def pods(name: str) -> list[Manifest]:
    return [template for manifest in build_case(name) for template in templates(manifest)]


def containers(name: str) -> list[Manifest]:
    specs = [pod["spec"] for pod in pods(name)]
    return [each for spec in specs for each in (*spec.get("initContainers", []), *spec["containers"])]


@every_case
def test_objects_are_of_known_kinds_and_carry_the_owner(name: str) -> None:
    kind = CASES[name][0]
    for manifest in build_case(name):
        assert manifest["apiVersion"] == RESOURCES[manifest["kind"]].api_version
        metadata = manifest["metadata"]
        assert metadata["namespace"] == NAMESPACE
        assert LABEL.fullmatch(metadata["name"])
        own = OWN | {"app.kubernetes.io/name": kind}
        assert own.items() <= metadata["labels"].items()
        assert {"app.kubernetes.io/instance", "app.kubernetes.io/component"} <= metadata["labels"].keys()
        for template in templates(manifest):
            assert metadata["labels"].items() <= template["metadata"]["labels"].items()


@every_case
def test_objects_that_end_carry_their_hash_and_no_others(name: str) -> None:
    for manifest in build_case(name):
        assert ("fairway/manifest" in manifest["metadata"].get("annotations", {})) == (
            manifest["kind"] in JOBS
        )


@every_case
def test_names_are_short_enough(name: str) -> None:
    for container in containers(name):
        assert LABEL.fullmatch(container["name"])
        for port in container.get("ports", []):
            assert re.fullmatch("[a-z0-9-]{1,15}", port["name"])
    for pod in pods(name):
        for value in pod["metadata"]["labels"].values():
            assert len(value) <= 63
        for volume in pod["spec"]["volumes"]:
            assert LABEL.fullmatch(volume["name"])


@every_case
def test_pods_are_nobody_and_may_do_nothing(name: str) -> None:
    for pod in pods(name):
        spec, user = pod["spec"], pod["spec"]["securityContext"]
        assert user["runAsNonRoot"]
        assert user["runAsUser"] == user["runAsGroup"] == user["fsGroup"] == 10001
        assert user["fsGroupChangePolicy"] == "OnRootMismatch"
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is ("serviceAccountName" in spec)
        assert spec["enableServiceLinks"] is False
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert not any("hostPath" in volume for volume in spec["volumes"])


@every_case
def test_containers_write_nothing_but_tmp_and_have_bounds(name: str) -> None:
    for container in containers(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys()


@every_case
def test_mounts_are_of_volumes_that_are_there_each_at_a_path_of_its_own(name: str) -> None:
    for pod in pods(name):
        volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
        assert len(set(volumes)) == len(volumes)
    for container in containers(name):
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(set(paths)) == len(paths)
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)


@every_case
def test_pods_that_mount_a_claim_are_better_off_where_its_disk_is(name: str) -> None:
    for pod in pods(name):
        on_claim = any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"])
        assert ("affinity" in pod["spec"]) == on_claim
        if on_claim:
            (preferred,) = pod["spec"]["affinity"]["podAffinity"][
                "preferredDuringSchedulingIgnoredDuringExecution"
            ]
            assert preferred["weight"] == 100
            assert preferred["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
            # All of the app and the environment, whatever component they are of.
            assert preferred["podAffinityTerm"]["labelSelector"] == {"matchLabels": OWN}


@every_case
def test_servers_are_asked_for_their_health(name: str) -> None:
    if CASES[name][0] in ("serving", "tensorboard", "web-ui"):
        for pod in pods(name):
            (container,) = pod["spec"]["containers"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@every_case
def test_no_variable_is_there_twice(name: str) -> None:
    for container in containers(name):
        names = [variable["name"] for variable in container.get("env", [])]
        assert len(set(names)) == len(names)


@every_case
def test_secrets_are_named_and_never_shown(name: str) -> None:
    assert "Secret" not in [manifest["kind"] for manifest in build_case(name)]
    for container in containers(name):
        for variable in container.get("env", []):
            if "SECRET" in variable["name"] or "KEY" in variable["name"]:
                assert variable["valueFrom"]["secretKeyRef"].keys() == {"name", "key"}


@every_case
def test_what_is_selected_is_there(name: str) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(name)]
    for manifest in build_case(name):
        spec = manifest["spec"]
        for selector in (spec.get("selector", {}), spec.get("podSelector", {})):
            wanted = selector.get("matchLabels", selector)
            if CASES[name][0] != "mnist-service":  # its pods are another component's
                assert all(wanted.items() <= own.items() for own in labels)


@every_case
def test_manifests_are_the_same_each_time_and_plain_in_yaml(name: str) -> None:
    text = to_yaml(build_case(name))
    assert text == to_yaml(build_case(name))
    assert list(yaml.safe_load_all(text)) == build_case(name)
    assert not re.search(r"&id\d|\*id\d", text), "YAML has an alias: two parts are one object"


PODS = {kind: written for kind, written in CASES.values() if issubclass(KINDS[kind].params, PodParams)}
"""Params of each kind of component that has pods."""

every_kind_with_pods = pytest.mark.parametrize("kind", PODS)


@every_kind_with_pods
@pytest.mark.parametrize(
    ("written", "words", "hint"),
    [
        (
            {"cpu": "4", "cpuLimit": "2"},
            "cpu is 4, more than cpuLimit, which is 2",
            "Set cpuLimit to at least 4",
        ),
        (
            {"cpu": "2500m", "cpuLimit": "2"},
            "cpu is 2500m, more than cpuLimit",
            "Set cpuLimit to at least 2500m",
        ),
        (
            {"memory": "1.5Gi", "memoryLimit": "1500M"},
            "memory is 1.5Gi, more than memoryLimit, which is 1500M",
            "Set memoryLimit to at least 1.5Gi",
        ),
    ],
)
def test_a_pod_may_take_what_is_set_aside_for_it(
    kind: str, written: dict[str, str], words: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build(kind, **PODS[kind] | written)
    assert words in caught.value.message
    assert hint in caught.value.hint


@every_kind_with_pods
def test_a_pod_may_take_no_more_than_is_set_aside(kind: str) -> None:
    build(kind, **PODS[kind] | {"cpu": "2", "cpuLimit": "2000m", "memory": "1024Mi", "memoryLimit": "1Gi"})


@pytest.mark.parametrize("kind", ["train", "mnist-service", "tensorboard", "web-ui"])
def test_the_name_of_a_service_begins_with_a_letter(kind: str) -> None:
    """As that of a training does, which names the Services of its tasks."""
    with pytest.raises(UsageError, match="name is '8ball', but .* begins with a letter"):
        build(kind, name="8ball")
