"""Refusals, with bodies as a real API server (1.32) writes them, and broken connections."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from fairway.deploy.kube.errors import (
    AwayError,
    Conflict,
    ConflictError,
    ExpiredError,
    ImmutableError,
    NamespaceMissingError,
    NotServedError,
    Target,
    refused,
    unreachable,
)
from fairway.errors import ClusterError
from tests.unit.deploy.kube.api import status_body

TARGET = Target("prod", "https://api.example.com", "mine", "Deployment", "web")


def explain(code: int, message: str, *causes: dict[str, str], target: Target = TARGET) -> ClusterError:
    error = refused(code, json.dumps(status_body(code, message, *causes)).encode(), target)
    assert "\n" not in error.message
    return error


def test_conflicts_name_managers_and_fields() -> None:
    said = 'conflict with "kubectl-client-side-apply" using apps/v1'
    error = explain(
        409,
        'Apply failed with 3 conflicts: conflicts with "kubectl-client-side-apply" using apps/v1:\n- .spec.a',
        {"reason": "FieldManagerConflict", "message": said, "field": ".spec.replicas"},
        {"reason": "FieldManagerConflict", "message": said, "field": ".spec.paused"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "hpa" using v2', "field": ".spec.x"},
    )
    assert isinstance(error, ConflictError)
    assert error.conflicts[0] == Conflict("kubectl-client-side-apply", ".spec.replicas")
    assert error.message == (
        "Deployment web is also managed by others: "
        "kubectl-client-side-apply has set .spec.replicas, .spec.paused; hpa has set .spec.x"
    )


def test_a_conflict_of_another_sort_is_passed_on() -> None:
    error = explain(409, 'Operation cannot be fulfilled on deployments.apps "web"')
    assert not isinstance(error, ConflictError)
    assert "Operation cannot be fulfilled" in error.message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("Invalid value: core.PodTemplateSpec{...}: field is immutable", "spec.template"),
        ("Forbidden: spec is immutable after creation except resources.requests and x\n  core.P{}", "spec"),
    ],
)
def test_an_immutable_field_has_a_class_of_its_own(message: str, field: str) -> None:
    error = explain(422, f"Job.batch is invalid: {field}: {message}", {"message": message, "field": field})
    assert isinstance(error, ImmutableError)
    assert error.message == f"Deployment web is there already, and {field} cannot be changed in it"


def test_an_invalid_field_is_named_without_the_whole_object() -> None:
    cause = {"field": "spec.replicas", "message": "Invalid value: -1: " + "x" * 5000}
    error = explain(422, "Deployment.apps is invalid", cause)
    assert error.message.startswith("Deployment web is not valid: spec.replicas: Invalid value: -1: xxx")
    assert len(error.message) < 400


def test_an_unknown_field_is_named() -> None:
    cause = ".spec.foo: field not declared in schema"
    said = f"failed to create typed patch object (/d; apps/v1, Kind=Deployment): {cause}"
    assert explain(500, said).message == f"Deployment web is not valid: {cause}"


def test_a_missing_namespace_says_how_to_make_it() -> None:
    error = explain(404, 'namespaces "mine" not found')
    assert isinstance(error, NamespaceMissingError)
    assert error.message == "namespace mine does not exist in the cluster of context prod"
    assert error.hint == "Make it: kubectl --context prod create namespace mine"


def test_a_missing_object_is_named() -> None:
    assert explain(404, 'deployments.apps "web" not found').message == (
        "Deployment web does not exist in namespace mine of context prod"
    )


@pytest.mark.parametrize(
    ("kind", "operator", "hint"),
    [
        ("TFJob", "Kubeflow's training operator", "fairway param set COMPONENT launcher job"),
        ("JobSet", "the JobSet controller", "fairway param set COMPONENT launcher job"),
        ("HTTPRoute", "the Gateway API", "CRDs"),
    ],
)
@pytest.mark.parametrize("is_group_served", [True, False])
def test_a_kind_that_is_not_served_names_who_brings_it(
    kind: str, operator: str, hint: str, is_group_served: bool
) -> None:
    target = Target("prod", "https://api.example.com", "mine", kind)
    served = json.dumps(status_body(404, "the server could not find the requested resource")).encode()
    error = refused(404, served if is_group_served else b"404 page not found\n", target)
    assert isinstance(error, NotServedError)
    assert error.message.startswith(f"the cluster of context prod has no {kind} (")
    assert f"{operator} is not installed" in error.message
    assert hint in error.hint


def test_a_quota_is_told_with_its_numbers() -> None:
    error = explain(
        403,
        'pods "p" is forbidden: exceeded quota: small, requested: pods=1,requests.cpu=2, '
        "used: pods=0,requests.cpu=0, limited: pods=0,requests.cpu=1",
    )
    assert error.message == (
        "Deployment web exceeds quota small of namespace mine: it asks for pods=1,requests.cpu=2;"
        " in use are pods=0,requests.cpu=0 of pods=0,requests.cpu=1"
    )
    assert "describe quota" in error.hint


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            'pods is forbidden: User "jane" cannot list resource "pods" in API group ""'
            ' in the namespace "mine"',
            "jane may not list pods in namespace mine of context prod",
        ),
        (
            'nodes is forbidden: User "system:serviceaccount:a:b" cannot get resource "nodes" in API group ""'
            " at the cluster scope",
            "system:serviceaccount:a:b may not get nodes in the whole cluster of context prod",
        ),
        (
            'pods "p" is forbidden: violates PodSecurity "restricted:latest": host namespaces',
            'the cluster of context prod forbids Deployment web: violates PodSecurity "restricted:latest":'
            " host namespaces",
        ),
    ],
)
def test_what_is_forbidden_is_told(message: str, said: str) -> None:
    assert explain(403, message).message == said


def test_a_namespace_on_its_way_out_is_told() -> None:
    error = explain(403, "forbidden", {"reason": "NamespaceTerminating", "message": "", "field": ""})
    assert error.message == "namespace mine of context prod is being deleted"


def test_refused_credentials_do_not_repeat_them() -> None:
    error = explain(401, "Unauthorized")
    assert "does not accept the credentials" in error.message
    assert "kubectl --context prod auth whoami" in error.hint


@pytest.mark.parametrize(
    ("code", "kind"), [(410, ExpiredError), (429, AwayError), (503, AwayError), (500, ClusterError)]
)
def test_what_can_be_tried_again_has_a_class(code: int, kind: type[ClusterError]) -> None:
    assert type(explain(code, "too old resource version: 1 (2)")) is kind


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Bad Gateway</body></html>", "answers HTTP 502 for Deployment web"),
        (b"upstream\nis away", "answers HTTP 502 for Deployment web: upstream is away"),
        (b"[]", "answers HTTP 502 for Deployment web: []"),
        (b"", "answers HTTP 502 for Deployment web"),
    ],
)
def test_an_answer_that_is_no_api_servers_is_told(body: bytes, said: str) -> None:
    error = refused(502, body, TARGET)
    assert isinstance(error, AwayError)
    assert error.message == f"https://api.example.com {said}"


def test_a_token_is_never_in_a_message() -> None:
    error = unreachable(httpx2.LocalProtocolError("Illegal header value b'Bearer hush\\n'"), TARGET)
    assert "hush" not in error.message
    assert "line break in the token" in error.message


def test_a_request_about_no_object_is_named_so() -> None:
    target: Any = Target("prod", "https://api.example.com")
    assert "refuses the request" in explain(500, "etcd is away", target=target).message
