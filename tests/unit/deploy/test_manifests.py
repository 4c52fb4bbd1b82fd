"""The manifests of an environment: in one order, each object once, and the same text each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairway.deploy.apps.app import Environment, load_app
from fairway.deploy.apps.edits import create_app
from fairway.deploy.manifests import render, to_json, to_yaml
from fairway.deploy.target import Target, parse_overrides, resolve
from fairway.errors import UsageError


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return resolve(create_app(tmp_path / "mnist"), Environment("dev", namespace="models"))


def test_the_order_is_that_of_the_components(target: Target) -> None:
    manifests = render(target, target.choose())
    makers = [each["metadata"]["labels"]["app.kubernetes.io/component"] for each in manifests]
    order = [each.name for each in target.choose()]
    assert sorted(makers, key=order.index) == makers
    assert set(makers) == set(order)
    assert {each["metadata"]["namespace"] for each in manifests} == {"models"}


def test_the_text_is_the_same_each_time(target: Target, tmp_path: Path) -> None:
    again = resolve(load_app(tmp_path / "mnist"), Environment("dev", namespace="models"))
    for write in (to_yaml, to_json):
        assert write(render(target, target.choose())) == write(render(again, again.choose()))


def test_yaml_and_json_say_the_same(target: Target) -> None:
    manifests = render(target, target.choose())
    text = to_yaml(manifests)
    assert list(yaml.safe_load_all(text)) == manifests
    assert text.startswith("---\n")
    assert "&id" not in text  # no aliases: kubectl reads them, people do not
    listed = json.loads(to_json(manifests))
    assert (listed["apiVersion"], listed["kind"], listed["items"]) == ("v1", "List", manifests)


@pytest.mark.parametrize(
    "value", ["no", "1:30", "007", "é", "a\nb", "2020-01-01", "1e3", "0o7", "=", "~", ""]
)
def test_words_stay_words(value: str) -> None:
    manifests: list[dict[str, Any]] = [{"kind": "X", "env": {"name": value}}]
    assert list(yaml.safe_load_all(to_yaml(manifests))) == manifests


@pytest.mark.parametrize(
    "value",
    [
        *("1e3", "12e4", "1.5e-3", "0o7", "y", "N", "no", "on", "1_000", "0x1f", "1:30"),
        *("0X1F", "0O17", "-0o17", "+0x1", "0B11", "0o1_7", "1_0e3", "1e1_0", "0128", "-08", "1._5", "._5e3"),
    ],
)
def test_words_that_another_reader_takes_for_numbers_have_quotes(value: str) -> None:
    assert to_yaml([{"value": value}]) == f"---\nvalue: '{value}'\n"


@pytest.mark.parametrize(
    "value", ["v1", "yes-man", "e3", "8500-x", "1.2.3", "10.0.0.1:80", "nginx", "0xg", "0b", "1e", "_1"]
)
def test_other_words_have_none(value: str) -> None:
    assert to_yaml([{"value": value}]) == f"---\nvalue: {value}\n"


def test_shared_parts_are_written_out() -> None:
    labels = {"a": "b"}
    text = to_yaml([{"kind": "X", "one": labels, "other": labels}])
    assert text.count("a: b") == 2


def test_nothing_is_nothing() -> None:
    assert to_yaml([]) == ""
    assert json.loads(to_json([]))["items"] == []


def test_two_components_that_make_the_same_object(target: Target) -> None:
    words = ["mnist-deploy-gcp.name=mnist-deploy-pvc", "mnist-deploy-gcp.storage=pvc"]
    overrides = parse_overrides(target.app, words)
    clash = resolve(target.app, target.environment, overrides)
    with pytest.raises(UsageError, match="mnist-deploy-pvc and mnist-deploy-gcp both make") as caught:
        render(clash, clash.choose())
    assert "fairway param set" in caught.value.hint
