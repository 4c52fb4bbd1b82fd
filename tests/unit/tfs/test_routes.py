"""Which paths mean what."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.tfs.request import ModelSpec
from fairway.tfs.routes import Route, parse_route
from fairway.tfs.status import Code, RequestError


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/models/m:predict", Route("predict", ModelSpec("m"))),
        ("POST", "/v1/models/m/versions/12:predict", Route("predict", ModelSpec("m", 12))),
        ("POST", "/V1/Models/m:PREDICT", Route("predict", ModelSpec("m"))),
        ("POST", "/v1/models/m:classify", Route("classify", ModelSpec("m"))),
        ("POST", "/v1/models/m/labels/canary:Regress", Route("regress", ModelSpec("m", label="canary"))),
        ("POST", "/v1/models/m/labels/a%20b:predict", Route("predict", ModelSpec("m", label="a b"))),
        ("GET", "/v1/models/m/labels/canary", Route("status", ModelSpec("m", label="canary"))),
        ("GET", "/v1/models/m/labels/canary/metadata", Route("metadata", ModelSpec("m", label="canary"))),
        ("GET", "/v1/models/metadata", Route("status", ModelSpec("metadata"))),
        ("GET", "/v1/models/m", Route("status", ModelSpec("m"))),
        ("GET", "/v1/models/m/versions/0", Route("status", ModelSpec("m", 0))),
        ("GET", "/v1/models/m/metadata", Route("metadata", ModelSpec("m"))),
        ("GET", "/v1/models/m/versions/3/metadata", Route("metadata", ModelSpec("m", 3))),
        ("GET", "/v1/models/m%C3%BCnchen", Route("status", ModelSpec("münchen"))),
        ("GET", "/v1/models/..%2F..%2Fetc%2Fpasswd", Route("status", ModelSpec("../../etc/passwd"))),
        ("GET", "/v1/models/%ff", Route("status", ModelSpec("\ufffd"))),
    ],
)
def test_paths_that_mean_something(method: str, path: str, route: Route) -> None:
    assert parse_route(method, path) == route


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m"),
        ("DELETE", "/v1/models/m"),
        ("POST", "/v1/models:predict"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/a/b"),
        ("GET", "/v1/models/../m"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/latest:predict"),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m/versions/1/labels/a:predict"),
        ("POST", "/v1/models/m/labels/:predict"),
        ("POST", "/v1/models/m:predict/"),
    ],
)
def test_what_tensorflow_serving_calls_malformed(method: str, path: str) -> None:
    with pytest.raises(RequestError, match="Malformed request: ") as caught:
        parse_route(method, path)

    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000])
def test_a_version_beyond_64_bits(digits: str) -> None:
    with pytest.raises(RequestError, match="Failed to convert version: 9+ to numeric"):
        parse_route("GET", f"/v1/models/m/versions/{digits}")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/versions/3", "/V1/models/labels/a/metadata"])
def test_a_path_without_a_model(path: str) -> None:
    with pytest.raises(RequestError, match="Missing model name in request.") as caught:
        parse_route("GET", path)

    assert caught.value.code is Code.INVALID_ARGUMENT


def test_other_paths_are_not_found() -> None:
    with pytest.raises(RequestError) as caught:
        parse_route("GET", "/favicon.ico")

    assert caught.value.code is Code.NOT_FOUND


@given(st.sampled_from(["GET", "POST", "PUT"]), st.text())
def test_no_path_is_too_strange(method: str, rest: str) -> None:
    with suppress(RequestError):
        assert parse_route(method, f"/v1/models/{rest}").spec.name
