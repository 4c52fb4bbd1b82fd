"""What requests are answered from."""

import re
import time
from typing import Any, cast

import pytest

from fairway.serve.versions.models import Models
from fairway.serve.versions.table import ModelTable
from fairway.tfs.request import ModelSpec
from fairway.tfs.status import Code, RequestError
from fairway.tfs.versions import State, VersionStatus

# Only their identity counts here.
ONE, TWO, OTHER = (cast(Any, text) for text in ("version 1", "version 2", "another model"))
STATUSES = (
    VersionStatus(3, State.END, "it is corrupt"),
    VersionStatus(2, State.AVAILABLE),
    VersionStatus(1, State.AVAILABLE),
)


@pytest.fixture
def models() -> Models:
    models = Models()
    models.replace(
        {
            "m": ModelTable((2, 1), {"stable": 1, "broken": 3}, STATUSES, ""),
            "other": ModelTable((7,), {}, (VersionStatus(7, State.AVAILABLE),), ""),
            "empty": ModelTable((), {}, (), "no version in /empty yet"),
        },
        {"m": {1: ONE, 2: TWO}, "other": {7: OTHER}, "empty": {}},
    )
    return models


@pytest.mark.parametrize(
    ("spec", "servable"),
    [
        (ModelSpec("m"), TWO),
        (ModelSpec("m", 1), ONE),
        (ModelSpec("m", 2), TWO),
        (ModelSpec("m", label="stable"), ONE),
        (ModelSpec("other"), OTHER),
    ],
)
def test_what_answers(models: Models, spec: ModelSpec, servable: object) -> None:
    assert models.find(spec) is servable


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        (ModelSpec("x"), Code.NOT_FOUND, "Servable not found for request: Latest(x)"),
        (ModelSpec("empty"), Code.NOT_FOUND, "Servable not found for request: Latest(empty)"),
        (ModelSpec("m", 3), Code.NOT_FOUND, "Servable not found for request: Specific(m, 3)"),
        (ModelSpec("m", 0), Code.NOT_FOUND, "Servable not found for request: Specific(m, 0)"),
        (ModelSpec("m", label="broken"), Code.NOT_FOUND, "Servable not found for request: Specific(m, 3)"),
        (ModelSpec("m", label="b"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: b"),
        (ModelSpec("x", label="b"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: b"),
    ],
)
def test_what_does_not(models: Models, spec: ModelSpec, code: Code, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        models.find(spec)
    assert caught.value.code is code


def test_statuses(models: Models) -> None:
    assert models.statuses(ModelSpec("m")) == STATUSES
    assert models.statuses(ModelSpec("m", 3)) == STATUSES[:1]
    assert models.statuses(ModelSpec("m", label="stable")) == STATUSES[2:]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("x"), "Could not find any versions of model x"),
        (ModelSpec("empty"), "Could not find any versions of model empty"),
        (ModelSpec("m", 9), "Could not find version 9 of model m"),
    ],
)
def test_no_statuses(models: Models, spec: ModelSpec, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        models.statuses(spec)
    assert caught.value.code is Code.NOT_FOUND


def test_readiness(models: Models) -> None:
    assert models.serving == {"m": (2, 1), "other": (7,), "empty": ()}
    assert models.problems == {"empty": "no version in /empty yet"}


def test_finding_takes_next_to_nothing(models: Models) -> None:
    spec = ModelSpec("m")
    best = min(seconds_for(lambda: models.find(spec)) for _ in range(20))
    assert best < 5e-6


def seconds_for(function: Any) -> float:
    started = time.perf_counter()
    for _ in range(1000):
        function()
    return (time.perf_counter() - started) / 1000
