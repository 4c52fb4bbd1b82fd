"""Params as users write them: their names, what they take, and what is said of what they do not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.deploy.components import KINDS
from fairway.deploy.languages import SecretMount
from fairway.deploy.params import camel_case, find_param, help_texts, list_params, nearest, read_value
from fairway.errors import UsageError

TRAIN = KINDS["train"]
SERVING = KINDS["serving"]


def read(name: str, value: Any, kind: str = "train") -> Any:
    return read_value(KINDS[kind].params, name, value, kind)


def refusal(name: str, value: Any, kind: str = "train") -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(name, value, kind)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_param_has_help_and_can_have_its_default(kind: Any) -> None:
    texts = help_texts(kind.params)
    for name, param in list_params(kind.params).items():
        assert texts[name].endswith((".", "…")), name
        assert param.type
        if isinstance(param.default, str | int | float):
            assert read(name, param.default, kind.name) == param.default
            assert read(name, str(param.default), kind.name) == param.default
    assert not set(kind.retired) & set(list_params(kind.params))


def test_the_tutorials_names() -> None:
    assert camel_case("s3_secret_accesskeyid_key_name") == "s3SecretAccesskeyidKeyName"
    tutorial = (
        "name modelDir exportDir trainSteps batchSize learningRate numWorkers numPs secret envVariables"
    )
    assert set(tutorial.split()) < set(list_params(TRAIN.params))
    assert "gcpCredentialSecretName" in list_params(SERVING.params)


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("numWorkers", "2", 2),
        ("numWorkers", 2, 2),
        ("numWorkers", "007", 7),
        ("learningRate", "0.01", 0.01),
        ("learningRate", "1e-3", 0.001),
        ("learningRate", ".5", 0.5),
        ("learningRate", 1, 1.0),
        ("modelDir", "no", "no"),
        ("modelDir", "1:30", "1:30"),
        ("modelDir", "2020-01-01", "2020-01-01"),
        ("modelDir", "0x10", "0x10"),
        ("modelDir", "null", "null"),
        ("modelDir", "~", "~"),
        ("modelDir", "-x", "-x"),
        ("modelDir", "a b", "a b"),
        ("modelDir", True, "true"),
        ("evaluator", "true", True),
        ("evaluator", "Yes", True),
        ("evaluator", "on", True),
        ("evaluator", "off", False),
        ("evaluator", "0", False),
        ("secret", "user-gcp-sa=/var/secrets", SecretMount("user-gcp-sa", "/var/secrets")),
        ("secret", "", None),
        ("secret", None, None),
        ("envVariables", "", {}),
        ("envVariables", None, {}),
        ("trainSteps", "", None),
        ("enabled", "", None),
        ("launcher", "jobset", "jobset"),
    ],
)
def test_what_a_value_means(name: str, value: Any, meaning: Any) -> None:
    assert read(name, value) == meaning


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("numWorkers", "two", "train: numWorkers is 'two', but must be a whole number"),
        ("numWorkers", "1.5", "must be a whole number"),
        ("numWorkers", "0x10", "must be a whole number"),
        ("numWorkers", "1_000", "must be a whole number"),
        ("numWorkers", " 2", "must be a whole number"),
        ("numWorkers", "٢", "must be a whole number"),
        ("numWorkers", "9" * 5000, "must be a whole number"),
        ("numWorkers", True, "must be a whole number"),
        ("numWorkers", "-1", "numWorkers is '-1', but must be at least 0 and at most 1000"),
        ("numWorkers", "", "must have a value"),
        ("numWorkers", ["1"], "must be a whole number"),
        ("learningRate", "nan", "must be a number"),
        ("learningRate", "inf", "must be a number"),
        ("learningRate", "0", "must be above 0 and at most 10"),
        ("modelDir", "", "must have a value"),
        ("secret", "null", "secret is 'null', but"),
        ("modelDir", None, "must have a value"),
        ("modelDir", ["a"], "must be a word"),
        ("evaluator", "perhaps", "must be true or false"),
        ("launcher", "tfjobs", "must be one of tfjob, job, jobset; did you mean 'tfjob'?"),
        ("launcher", {"a": "b"}, "must be one of tfjob, job, jobset"),
        ("envVariables", "A", "'A' is not NAME=VALUE"),
        ("name", "Train", "'Train' is not a name of small letters"),
    ],
)
def test_what_a_value_cannot_be(name: str, value: Any, message: str) -> None:
    assert message in refusal(name, value).message


def test_a_refusal_says_what_the_param_is() -> None:
    hint = refusal("secretKeyRefs", "A=b").hint
    assert hint == "Environment variables whose values are in Secrets. It takes NAME=SECRET.KEY,…."
    assert len(refusal("modelDir", ["x" * 10_000]).message) < 400


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="kind train has no param 'numworker'; did you mean 'numWorkers'?"):
        find_param(TRAIN.params, "train", "numworker", TRAIN.retired)
    with pytest.raises(UsageError, match="has no param 'xyzzy'$"):
        find_param(TRAIN.params, "train", "xyzzy", TRAIN.retired)
    assert find_param(TRAIN.params, "train", "numWorkers", {}).field == "num_workers"


def test_retired_names() -> None:
    with pytest.raises(UsageError, match="the param numSteps of the 2019 tutorial is gone") as caught:
        find_param(TRAIN.params, "train", "numSteps", TRAIN.retired)
    assert caught.value.hint == "Set trainSteps."


def test_nearest() -> None:
    assert nearest("SERVING", ["serving", "train"]) == "; did you mean 'serving'?"
    assert nearest("q", ["serving", "train"]) == ""
    assert nearest("a", []) == ""


@given(st.text(max_size=30))
def test_any_word_is_a_directory_as_it_stands(word: str) -> None:
    if word:
        assert read("modelDir", word) == word


@settings(max_examples=20)
@given(st.text(max_size=10) | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_value_is_read_or_explained(value: Any) -> None:
    messages = []
    for name in list_params(TRAIN.params):
        try:
            read(name, value)
        except UsageError as err:
            messages.append(err.message.removeprefix(f"train: {name} is "))
    assert not [message for message in messages if message.startswith("train:")]


def test_help_is_parsed_only_where_it_is_shown() -> None:
    code = (
        "import sys; from fairway.deploy.components import KINDS; from fairway.deploy.params import *\n"
        "read_value(KINDS['train'].params, 'numWorkers', '2', 'train')\n"
        "assert 'docstring_parser' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
