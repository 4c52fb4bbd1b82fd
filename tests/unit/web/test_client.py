"""The client of a model server: states, versions, and every way a server can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from fairway.errors import ServerError, UsageError
from fairway.web.client import ModelServer, NoVersionError, Prediction, ServerStatus

BLANK = np.zeros((28, 28), np.float32)
LEFT = np.zeros((28, 28), np.float32)
LEFT[:, :14] = 1


def run(
    fake: Callable[[httpx.Request], httpx.Response], *questions: Callable[[ModelServer], Any]
) -> list[Any]:
    async def ask() -> list[Any]:
        server = ModelServer("somewhere:8500", "mnist", httpx.MockTransport(fake))
        answers = []
        for question in questions:
            answer = question(server)
            answers.append(await answer if asyncio.iscoroutine(answer) else answer)
        await server.close()
        return answers

    return asyncio.run(ask())


def status(server: ModelServer) -> Any:
    return server.status()


def predict(server: ModelServer) -> Any:
    return server.predict(LEFT)


@pytest.mark.parametrize(
    ("states", "message", "expected"),
    [
        ({}, "", ServerStatus("empty")),
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
    def replace(server: ModelServer) -> None:
        fake.states = {7: "END", 8: "AVAILABLE"}

    _, _, answer = run(fake, predict, replace, predict)
    assert answer.version == 8


def test_no_version_is_an_error_that_says_so(fake: Any) -> None:
    fake.states = {}
    with pytest.raises(NoVersionError, match="no version of mnist yet"):
        run(fake, predict)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx.ConnectError("All connection attempts failed"), "nothing listens there"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "name or service not known"),
        (httpx.ConnectTimeout(""), "no connection within 3 s"),
        (httpx.ReadTimeout(""), "no answer within 3 s"),
        (httpx.RemoteProtocolError("Server disconnected"), "server disconnected"),
    ],
)
def test_no_answer_is_explained(fake: Any, error: Exception, words: str) -> None:
    fake.down = error
    with pytest.raises(ServerError, match=words) as raised:
        run(fake, status)
    assert raised.value.message.startswith("model server at somewhere:8500 does not answer: ")
    assert "fairway serve" in raised.value.hint


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


@pytest.mark.parametrize("address", ["localhost:8500", "http://a:1", "https://models.example", "[::1]:8500"])
def test_addresses(address: str) -> None:
    assert ModelServer(address, "mnist").address == address


@pytest.mark.parametrize(
    "address", ["", ":8500", "a b", "ftp://a", "a:b", "a:99999", "http://a/v1", "a:1?b=c", "http://a:0"]
)
def test_what_is_no_address_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        ModelServer(address, "mnist")
