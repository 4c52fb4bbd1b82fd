"""The client of a model server: states, versions, and every way a server can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.client.answers import NoVersionError, Prediction, ServerStatus
from fairway.client.rest import RestClient
from fairway.errors import ServerError

BLANK = np.zeros((28, 28), np.float32)
LEFT = np.zeros((28, 28), np.float32)
LEFT[:, :14] = 1


def run(
    fake: Callable[[httpx.Request], httpx.Response],
    *questions: Callable[[RestClient], Any],
    **selection: Any,
) -> list[Any]:
    async def ask() -> list[Any]:
        server = RestClient("somewhere:8500", "mnist", transport=httpx.MockTransport(fake), **selection)
        answers = []
        for question in questions:
            answer = question(server)
            answers.append(await answer if asyncio.iscoroutine(answer) else answer)
        await server.close()
        return answers

    return asyncio.run(ask())


def status(server: RestClient) -> Any:
    return server.status()


def predict(server: RestClient) -> Any:
    return server.predict(LEFT)


@pytest.mark.parametrize(
    ("states", "message", "expected"),
    [
        ({}, "", ServerStatus("empty", detail="Could not find any versions of model mnist")),
        ({3: "AVAILABLE", 12: "AVAILABLE"}, "", ServerStatus("serving", 12)),
        ({3: "AVAILABLE", 12: "LOADING"}, "", ServerStatus("serving", 3)),
        ({3: "END", 12: "START"}, "", ServerStatus("loading", 12)),
        ({3: "END"}, "", ServerStatus("empty")),
        ({3: "END"}, "no such op", ServerStatus("failed", 3, "no such op")),
    ],
)
def test_status(fake: Any, states: dict[int, str], message: str, expected: ServerStatus) -> None:
    fake.states, fake.message = states, message
    assert run(fake, status) == [expected]


def test_prediction_comes_from_the_version_it_names(fake: Any) -> None:
    fake.states = {3: "AVAILABLE", 12: "AVAILABLE"}
    [answer] = run(fake, predict)
    assert isinstance(answer, Prediction)
    assert (answer.digit, answer.version, len(answer.probabilities)) == (2, 12, 10)
    assert answer.probabilities[2] == 0.91
    assert fake.paths == ["/v1/models/mnist", "/v1/models/mnist/versions/12:predict"]


def test_status_is_not_asked_before_every_prediction(fake: Any) -> None:
    run(fake, predict, predict, predict)
    assert fake.paths.count("/v1/models/mnist") == 1


def test_a_version_that_was_just_replaced_is_asked_in_its_new_one(fake: Any) -> None:
    def replace(server: RestClient) -> None:
        fake.states = {7: "END", 8: "AVAILABLE"}

    _, _, answer = run(fake, predict, replace, predict)
    assert answer.version == 8


def test_no_version_is_an_error_that_says_so(fake: Any) -> None:
    fake.states = {}
    with pytest.raises(NoVersionError, match="no version of mnist yet"):
        run(fake, predict)


def test_a_version_on_its_way_is_an_error_that_names_it(fake: Any) -> None:
    fake.states = {3: "LOADING"}
    with pytest.raises(NoVersionError, match="is loading version 3 of mnist"):
        run(fake, predict)


def test_a_version_that_could_not_be_loaded_is_an_error_that_says_why(fake: Any) -> None:
    fake.states, fake.message = {3: "END"}, "no such op"
    with pytest.raises(NoVersionError, match="could not load version 3 of mnist: no such op"):
        run(fake, predict)


@pytest.mark.parametrize(
    ("selection", "path"),
    [({"version": 3}, "/v1/models/mnist/versions/3"), ({"label": "a b"}, "/v1/models/mnist/labels/a b")],
)
def test_the_wanted_version_is_asked(selection: dict[str, Any], path: str) -> None:
    paths = []

    def server(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if request.method == "GET":
            return httpx.Response(
                200, json={"model_version_status": [{"version": "3", "state": "AVAILABLE"}]}
            )
        answer = {"classes": 1, "predictions": [0.1] * 10}
        return httpx.Response(200, json={"predictions": [answer]})

    [answer] = run(server, predict, **selection)
    assert answer.version == 3
    assert paths == [path, "/v1/models/mnist/versions/3:predict"]


@pytest.mark.parametrize(
    ("selection", "words"),
    [({"version": 4}, "no version 4 of mnist"), ({"label": "x"}, "no label 'x' of mnist")],
)
def test_a_version_that_is_not_there_is_an_error_with_the_servers_words(
    fake: Any, selection: dict[str, Any], words: str
) -> None:
    fake.states = {}
    with pytest.raises(NoVersionError, match=f"{words}: Could not find"):
        run(fake, predict, **selection)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("All connection attempts failed"), "nothing listens there"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "name or service not known"),
        (httpx.ConnectTimeout(""), "no connection within 3 s"),
        (httpx.ReadTimeout(""), "no answer within 3 s"),
        (httpx.RemoteProtocolError("Server disconnected"), "server disconnected"),
        (httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)"), "not speak TLS"),
        (httpx.ConnectError("[SSL: X_Y] certificate expired (_ssl.c:1006)"), "answer: certificate expired$"),
    ],
)
def test_no_answer_is_explained(fake: Any, error: Exception, words: str) -> None:
    fake.down = error
    with pytest.raises(ServerError, match=words) as raised:
        run(fake, status)
    assert raised.value.message.startswith("model server at somewhere:8500 does not answer: ")
    assert "fairway serve" in raised.value.hint


def test_a_grpc_port_is_recognised(fake: Any) -> None:
    fake.down = httpx.RemoteProtocolError("illegal request line")
    with pytest.raises(ServerError, match="not as a model server does") as raised:
        run(fake, status)
    assert "8500" in raised.value.hint


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(404, text="<html>not found"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"model_version_status": [{"version": "x"}]}),
        httpx.Response(500, text=""),
    ],
)
def test_another_kind_of_server_is_recognised(reply: httpx.Response) -> None:
    with pytest.raises(ServerError, match="not as a model server does"):
        run(lambda request: reply, status)


@pytest.mark.parametrize(
    "prediction",
    [
        [0.1] * 10,
        {"classes": 3, "predictions": [0.1] * 9},
        {"classes": 10, "predictions": [0.1] * 10},
        {"classes": 3, "predictions": [None] * 10},
        {"scores": [0.1] * 10},
    ],
)
def test_another_models_answer_is_not_shown(fake: Any, prediction: Any) -> None:
    fake.reply = httpx.Response(200, json={"predictions": [prediction]})
    with pytest.raises(ServerError, match="ten probabilities"):
        run(fake, predict)


def test_a_refusal_is_passed_on_and_not_repeated(fake: Any) -> None:
    fake.reply = httpx.Response(400, json={"error": "wrong shape"})
    with pytest.raises(ServerError, match="refuses: wrong shape"):
        run(fake, predict)
    assert sum(path.endswith(":predict") for path in fake.paths) == 1
