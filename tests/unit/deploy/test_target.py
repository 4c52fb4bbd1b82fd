"""The value of each param and where it comes from; which components take part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.apps.app import App, Environment, load_app
from fairway.deploy.target import Target, parse_overrides, resolve
from fairway.errors import UsageError


def app_of(tmp_path: Path, components: str) -> App:
    (tmp_path / "fairway.yaml").write_text(f"version: 1\nname: mnist\ncomponents:\n{components}")
    return load_app(tmp_path)


APP = """\
  web-ui: {kind: web-ui}
  server: {kind: serving, params: {storage: pvc}}
  train: {kind: train, params: {trainSteps: 200, pvcName: model, modelDir: /mnt/a}}
  model: {kind: storage, params: {name: model}}
"""


def resolved(app: App, params: dict[str, Any] | None = None, *words: str) -> Target:
    return resolve(app, Environment("dev", params=params or {}), parse_overrides(app, words))


def value(target: Target, component: str, param: str) -> tuple[Any, str]:
    (found,) = target.choose([component])
    return found.values[param].read, found.values[param].origin


def part(target: Target) -> list[str]:
    return [each.name for each in target.choose()]


def test_the_nearest_value_wins(tmp_path: Path) -> None:
    app = app_of(tmp_path, APP)
    assert value(resolved(app), "train", "batchSize") == (128, "default")
    assert value(resolved(app), "train", "trainSteps") == (200, "app")
    dev = {"train": {"trainSteps": "300"}}
    assert value(resolved(app, dev), "train", "trainSteps") == (300, "environment dev")
    assert value(resolved(app, dev, "train.trainSteps=400"), "train", "trainSteps") == (400, "--set")
    (train,) = resolved(app, dev, "train.trainSteps=400").choose(["train"])
    assert train.params.train_steps == 400  # type: ignore[attr-defined]
    assert train.values["trainSteps"].is_set
    assert not train.values["batchSize"].is_set


def test_what_is_set_nowhere_is_the_trainings(tmp_path: Path) -> None:
    target = resolved(app_of(tmp_path, APP), {"train": {"secret": "a=/b"}})
    assert value(target, "server", "modelBasePath") == ("/mnt/export", "train.exportDir")
    assert value(target, "web-ui", "pvcName") == ("model", "train.pvcName")
    assert value(target, "web-ui", "secret")[1] == "train.secret"
    (web,) = target.choose(["web-ui"])
    assert not web.values["pvcName"].is_set


def test_an_empty_value_is_none_and_not_the_trainings(tmp_path: Path) -> None:
    app = app_of(tmp_path, APP)
    dev = {"train": {"secret": "a=/b"}, "web-ui": {"secret": "", "pvcName": None}}
    assert value(resolved(app, dev), "web-ui", "secret") == (None, "environment dev")
    assert value(resolved(app, dev), "web-ui", "pvcName") == (None, "environment dev")
    assert value(resolved(app, dev, "train.secret="), "train", "secret") == (None, "--set")


def test_without_a_training_there_is_nothing_to_take(tmp_path: Path) -> None:
    target = resolved(app_of(tmp_path, "  server: {kind: serving}\n"))
    assert value(target, "server", "modelBasePath") == (None, "default")


TWO = "  one: {kind: train, params: {name: one, exportDir: /mnt/1}}\n  two: {kind: train, params: {name: two, exportDir: /mnt/2}}\n  server: {kind: serving}\n"  # noqa: E501


def test_of_two_trainings_the_first_one_counts(tmp_path: Path) -> None:
    target = resolved(app_of(tmp_path, TWO))
    assert value(target, "server", "modelBasePath") == ("/mnt/1", "one.exportDir")
    assert target.first("train") == target.choose(["one"])[0]


def test_a_training_that_is_switched_off_does_not(tmp_path: Path) -> None:
    app = app_of(tmp_path, TWO)
    target = resolved(app, None, "one.enabled=false")
    assert value(target, "server", "modelBasePath") == ("/mnt/2", "two.exportDir")
    assert target.first("train") == target.choose(["two"])[0]
    assert part(target)[0] == "two"
    both = resolved(app, None, "one.enabled=false", "two.enabled=false")
    assert value(both, "server", "modelBasePath") == ("/mnt/1", "one.exportDir")
    assert both.first("train") == both.choose(["one"])[0]


def test_components_are_in_the_order_in_which_they_are_applied(tmp_path: Path) -> None:
    target = resolved(app_of(tmp_path, APP))
    assert [each.name for each in target.components] == ["model", "train", "server", "web-ui"]
    assert [each.name for each in target.choose(["web-ui", "train", "web-ui"])] == ["train", "web-ui"]


def test_who_takes_part(tmp_path: Path) -> None:
    app = app_of(tmp_path, APP + "  away: {kind: serving, params: {storage: aws, name: away}}\n")
    assert part(resolved(app)) == ["model", "train", "server", "web-ui"]
    bucket = ["train.modelDir=s3://b/m", "train.exportDir=s3://b/e"]
    assert part(resolved(app, None, *bucket)) == ["train", "away", "web-ui"]
    assert part(resolved(app, None, *bucket, "model.enabled=true")) == ["model", "train", "away", "web-ui"]
    assert "train" not in part(resolved(app, None, "train.enabled=false"))
    assert [each.name for each in resolved(app).choose(["away"])] == ["away"]  # named ones always do


def test_a_claim_that_nobody_mounts_who_takes_part_does_not(tmp_path: Path) -> None:
    app = app_of(tmp_path, APP)
    off = ["train.enabled=false", "server.enabled=false", "web-ui.enabled=false"]
    assert part(resolved(app, None, *off)) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train", "--set 'train' is not COMPONENT.KEY=VALUE"),
        ("train=1", "is not COMPONENT.KEY=VALUE"),
        ("train.=1", "is not COMPONENT.KEY=VALUE"),
        ("train.numWorkers", "is not COMPONENT.KEY=VALUE"),
        ("trian.numWorkers=1", "no component 'trian' in .*; did you mean 'train'"),
    ],
)
def test_overrides_that_are_none(tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_overrides(app_of(tmp_path, APP), [word])
    assert caught.value.hint


def test_overrides(tmp_path: Path) -> None:
    app = app_of(tmp_path, APP)
    words = ["train.envVariables=A=1,B=x.y=z", "train.numWorkers=1", "train.numWorkers=2"]
    assert parse_overrides(app, words) == {"train": {"envVariables": "A=1,B=x.y=z", "numWorkers": "2"}}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": {"numWorker": "1"}}, "has no param 'numWorker'; did you mean 'numWorkers'"),
        ({"train": {"numWorkers": "x"}}, "train: numWorkers is 'x', but must be a whole number"),
        ({"train": {"numSteps": "1"}}, "numSteps of the 2019 tutorial is gone"),
        ({"server": {"injectIstio": "true"}}, "injectIstio of the 2019 tutorial is gone"),
    ],
)
def test_what_an_environment_cannot_have(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolved(app_of(tmp_path, APP), params)


def test_an_unknown_component_is_not_chosen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'train'"):
        resolved(app_of(tmp_path, APP)).choose(["trian"])


def test_where_objects_go(tmp_path: Path) -> None:
    target = resolved(app_of(tmp_path, APP))
    place = target.placement(target.choose(["server"])[0])
    assert (place.app, place.environment, place.namespace, place.component, place.kind) == (
        "mnist",
        "dev",
        "default",
        "server",
        "serving",
    )
