"""Which rights we are told to have."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.unit.deploy.kube.api import kube


@pytest.mark.parametrize(
    ("right", "attributes"),
    [
        (("create", "TFJob"), {"group": "kubeflow.org", "resource": "tfjobs", "subresource": ""}),
        (("get", "Pod", "log"), {"group": "", "resource": "pods", "subresource": "log"}),
    ],
)
@pytest.mark.parametrize("allowed", [True, False])
def test_the_api_server_is_asked_for_a_right(
    right: tuple[str, ...],
    attributes: dict[str, str],
    allowed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Any]] = []

    async def answer(request: Request) -> Response:
        assert request.url.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert request.method == "POST"
        assert request.headers["Content-Type"] == "application/json"
        seen.append(json.loads(await request.body()))
        return JSONResponse({"status": {"allowed": allowed}}, status_code=201)

    async def ask() -> bool:
        async with kube(tmp_path, monkeypatch, answer) as client:
            return await client.may(*right)

    assert asyncio.run(ask()) is allowed
    expected = {"verb": right[0], "namespace": "mine", **attributes}
    assert seen[0]["spec"]["resourceAttributes"] == expected
    assert seen[0]["kind"] == "SelfSubjectAccessReview"


def test_of_the_whole_cluster_no_namespace_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: Request) -> Response:
        attributes = json.loads(await request.body())["spec"]["resourceAttributes"]
        return JSONResponse({"status": {"allowed": attributes["namespace"] == ""}}, status_code=201)

    async def ask() -> bool:
        async with kube(tmp_path, monkeypatch, answer) as client:
            return await client.may("list", "StorageClass")

    assert asyncio.run(ask())
