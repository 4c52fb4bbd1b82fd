"""Several models: from a file that changes, and by a request over gRPC."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fairway.tfs import protos

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


@pytest.fixture
def place(models: Path, tmp_path: Path) -> Callable[[str, str, int], Path]:
    """Copy a model to the base path of a name under a version number."""

    def place(model: str, name: str, number: int) -> Path:
        target = tmp_path / name / str(number)
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(models / model, tmp_path / "new")
        return (tmp_path / "new").rename(target)

    return place


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file with models, whole at once; the values follow name and base path."""

    def write(**models: str) -> Path:
        configs = "".join(
            f'config {{ name: "{name}" base_path: "{tmp_path / name}" {more} }}\n'
            for name, more in models.items()
        )
        (tmp_path / "new.config").write_text(f"model_config_list {{\n{configs}}}\n")
        return (tmp_path / "new.config").rename(tmp_path / "models.config")

    return write


def serving(server: Any) -> dict[str, list[int]]:
    found: dict[str, list[int]] = server.client.get(f"{server.root}/readyz").json()["models"]
    return found


def predict(server: Any, path: str) -> Any:
    url = f"{server.root}/v1/models/{path}:predict"
    answer = server.client.post(url, json={"instances": [1.0]}).json()
    return answer.get("predictions", answer.get("error"))


LABELS = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'


def test_a_file_that_changes(
    place: Callable[[str, str, int], Path],
    write: Callable[..., Path],
    serve: Callable[..., Any],
    tmp_path: Path,
) -> None:
    place("half_plus_two", "two", 1)
    place("half_plus_three", "two", 2)
    place("half_plus_three", "three", 1)
    path = write(two="model_version_policy { all {} }")
    server = serve(flags=[f"--model_config_file={path}", "--model_config_file_poll_wait_seconds=0.05"])
    server.wait_for(lambda: serving(server) == {"two": [2, 1]})
    assert (predict(server, "two"), predict(server, "two/versions/1")) == ([3.5], [2.5])

    write(two="model_version_policy { all {} }" + LABELS, three="")
    server.wait_for(lambda: serving(server) == {"two": [2, 1], "three": [1]})
    assert predict(server, "two/labels/stable") == [2.5]
    assert predict(server, "two/labels/canary") == [3.5]
    assert predict(server, "two/labels/x") == "Unrecognized servable version label: x"

    write(two="", three="", none="")
    server.wait_for(lambda: "models.config is not applied, all stays as it is" in server.output)
    assert serving(server) == {"two": [2, 1], "three": [1]}
    assert f"{{none: no version in {tmp_path / 'none'} yet}}" in server.output

    write(two="model_version_policy { specific { versions: 1 } }")
    server.wait_for(lambda: serving(server) == {"two": [1]})
    assert predict(server, "three") == "Servable not found for request: Latest(three)"


@pytest.fixture(params=[1, 2])
def server(
    request: pytest.FixtureRequest,
    place: Callable[[str, str, int], Path],
    serve: Callable[..., Any],
    tmp_path: Path,
) -> Any:
    place("half_plus_two", "m", 1)
    server = serve(base_path=tmp_path / "m", flags=[f"--workers={request.param}"])
    server.wait_for_version(1)
    return server


@pytest.fixture
def channel(server: Any) -> Iterator[grpc.Channel]:
    server.wait_for(lambda: "gRPC answers" in server.output)
    address = re.search(r"gRPC answers at (\S+)", server.output)
    assert address
    with grpc.insecure_channel(address[1]) as channel:
        yield channel


def reload(channel: grpc.Channel, **models: Path) -> None:
    request = protos.message("tensorflow.serving.ReloadConfigRequest")()
    for name, path in models.items():
        request.config.model_config_list.config.add(
            name=name, base_path=str(path), model_platform="tensorflow"
        )
    response = protos.message("tensorflow.serving.ReloadConfigResponse")
    call = channel.unary_unary(
        RELOAD, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
    )
    call(request, timeout=60)


def test_a_reload_request(
    server: Any, channel: grpc.Channel, place: Callable[[str, str, int], Path], tmp_path: Path
) -> None:
    place("half_plus_three", "three", 1)
    reload(channel, m=tmp_path / "m", three=tmp_path / "three")
    assert serving(server) == {"m": [1], "three": [1]}
    assert (predict(server, "m"), predict(server, "three")) == ([2.5], [3.5])

    with pytest.raises(grpc.RpcError) as caught:
        reload(channel, three=tmp_path / "nothing")
    assert "did not become available: {three: no version in" in caught.value.details()
    assert serving(server) == {"m": [1], "three": [1]}

    reload(channel, m=tmp_path / "three")
    assert serving(server) == {"m": [1]}
    assert predict(server, "m") == [3.5]
