"""`fairway image`, without docker."""

from __future__ import annotations

import json

import pytest

from fairway.deploy.verbs import image
from tests.unit.cli.conftest import Run

NAMES = {"serve": "here/fairway-serve:1", "train": "here/fairway-train:1"}


@pytest.mark.parametrize("verb", ["build", "push"])
def test_the_names_are_printed(run: Run, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr(image, verb, lambda targets, **_: {target: NAMES[target] for target in targets})
    words = ("image", verb, "--registry", "here", "--tag", "1")
    assert run(*words).out == "here/fairway-serve:1\nhere/fairway-train:1\n"
    assert json.loads(run(*words, "-o", "json").out) == NAMES
    assert json.loads(run(*words, "serve", "-o", "json").out) == {"serve": NAMES["serve"]}
