"""An app made of an old ksonnet app: what is taken over, what is noted, and that a failure leaves nothing."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from fairway.deploy.apps.app import App, list_environments, load_app, load_environment
from fairway.deploy.apps.takeover import take_over
from fairway.deploy.manifests import render
from fairway.deploy.target import resolve
from fairway.errors import FairwayError, StorageError

BASE = {
    "train": {
        "batchSize": 128,
        "exportDir": "gs://kubeflow-ci-mnist/export",
        "modelDir": "gs://kubeflow-ci-mnist/model",
        "learningRate": "0.01",
        "numPs": 0,
        "numWorkers": 2,
        "secret": "user-gcp-sa=/var/secrets",
        "pvcName": "null",
        "image": "gcr.io/kubeflow-examples/mnist/model:build-1",
        "trainSteps": 200,
    },
    "mnist-deploy-gcp": {
        "modelBasePath": "gs://kubeflow-ci-mnist/export",
        "injectIstio": "false",
        "numGpus": 0,
    },
    "mnist-service": {"name": "mnist-service", "trafficRule": "v1:100", "serviceType": "LoadBalancer"},
    "web-ui": {"replicas": 1, "containerPort": 5000, "type": "NodePort", "typo": 1},
    "my-own": {"a": 1},
}
JLEWI = {"train": {"numWorkers": 0, "trainSteps": 500, "secret": ""}, "web-ui": {"type": ""}}


class OldApp:
    """Writes a ksonnet app."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environments: dict[str, Any] = {}
        (root / "components").mkdir(parents=True)
        params = json.dumps({"global": {}, "components": BASE})
        (root / "components" / "params.libsonnet").write_text(params)
        self.environment("jlewi", "kubeflow", JLEWI)

    def environment(self, name: str, namespace: str, params: dict[str, Any]) -> None:
        folder = self.root / "environments" / name
        folder.mkdir(parents=True)
        merged = ", ".join(f"{json.dumps(key)}+: {json.dumps(value)}" for key, value in params.items())
        (folder / "params.libsonnet").write_text(
            f'local params = std.extVar("__ksonnet/params");\nparams + {{ components+: {{ {merged} }} }}\n'
        )
        destination = {"server": "https://35.196.1.1", "namespace": namespace}
        self.environments[name] = {"destination": destination, "path": name}
        spec = {"apiVersion": "0.3.0", "kind": "ksonnet.io/app", "name": "ks_app"}
        (self.root / "app.yaml").write_text(json.dumps(spec | {"environments": self.environments}))


@pytest.fixture
def old(tmp_path: Path) -> OldApp:
    return OldApp(tmp_path / "ks_app")


@pytest.fixture
def new(old: OldApp, tmp_path: Path) -> tuple[App, str]:
    app, notes = take_over(old.root, tmp_path / "mnist", None)
    return app, "\n".join(notes)


def test_params_are_taken_over(new: tuple[App, str]) -> None:
    app, _ = new
    train = app.component("train").params
    assert train["modelDir"] == "gs://kubeflow-ci-mnist/model"
    assert train["numWorkers"] == "2"
    assert train["learningRate"] == "0.01"
    assert train["secret"] == "user-gcp-sa=/var/secrets"
    assert app.component("mnist-service").params == {"serviceType": "LoadBalancer"}
    assert app.component("web-ui").params == {"type": "NodePort"}


def test_what_is_todays_default_is_not_written(new: tuple[App, str]) -> None:
    assert not {"batchSize", "numPs", "image"} & set(new[0].component("train").params)
    assert "numGpus" not in new[0].component("mnist-deploy-gcp").params


def test_an_environment_keeps_what_it_sets(new: tuple[App, str]) -> None:
    app, notes = new
    found = load_environment(app, "jlewi")
    assert (found.context, found.server, found.namespace) == (None, None, "kubeflow")
    assert found.params == {
        "train": {"numWorkers": "0", "trainSteps": "500", "secret": ""},
    }
    assert "web-ui (environment jlewi): type is left out: web-ui: type is '', but must have a value" in notes
    assert "environment jlewi has no cluster yet; its server was https://35.196.1.1." in notes
    assert "fairway env set jlewi --context CONTEXT" in notes


def test_what_is_left_out_is_noted(new: tuple[App, str]) -> None:
    notes = new[1]
    assert "my-own: there is no such component here; its params are left out" in notes
    assert "train: image gcr.io/kubeflow-examples/mnist/model:build-1 is the old tutorial's" in notes
    assert (
        "mnist-deploy-gcp: injectIstio is left out: the param injectIstio of the 2019 tutorial is gone."
        in notes
    )
    assert "web-ui: typo is left out: a component of kind web-ui has no param 'typo'" in notes


def test_what_comes_of_it_can_be_resolved(old: OldApp, tmp_path: Path) -> None:
    (old.root / "environments" / "jlewi" / "params.libsonnet").write_text('std.extVar("__ksonnet/params")')
    app, _ = take_over(old.root, tmp_path / "mnist", None)
    target = resolve(app, load_environment(app, "jlewi"))
    assert "mnist-deploy-gcp" in [each.name for each in target.choose()]


S3 = {
    "s3Enable": "false",
    "s3SecretName": "",
    "s3AwsRegion": "us-west-2",
    "s3Endpoint": "s3.us-west-2.amazonaws.com",
    "s3UseHttps": "true",
    "s3VerifySsl": "false",
    "modelBasePath": "s3://bucket/export",
}
"""As the 2019 tutorial's prototype wrote them, but for one that is not the default here."""


def aws(old: OldApp, tmp_path: Path, here: dict[str, Any], **base: str) -> tuple[App, str]:
    """Take over an app whose mnist-deploy-aws has some base params, and some in the environment `aws`."""
    params = {"global": {}, "components": BASE | {"mnist-deploy-aws": S3 | base}}
    (old.root / "components" / "params.libsonnet").write_text(json.dumps(params))
    old.environment("aws", "models", {"mnist-deploy-aws": here})
    app, notes = take_over(old.root, tmp_path / "mnist", None)
    return app, "\n".join(notes)


def shown(app: App, environment: str) -> Any:
    """Return the value of each param of mnist-deploy-aws, of which manifests can be made."""
    target = resolve(app, load_environment(app, environment))
    (component,) = target.choose(["mnist-deploy-aws"])
    assert render(target, [component])
    return {name: value.read for name, value in component.values.items()}


def test_params_without_an_effect_are_left_out(old: OldApp, tmp_path: Path) -> None:
    app, notes = aws(old, tmp_path, {"s3Endpoint": "minio:9000"})
    assert app.component("mnist-deploy-aws").params == {
        "name": "mnist-deploy-aws",
        "storage": "aws",
        "modelBasePath": "s3://bucket/export",
    }
    assert load_environment(app, "aws").params == {}
    for name in ("s3AwsRegion", "s3Endpoint", "s3VerifySsl"):
        words = f"mnist-deploy-aws: {name} is left out: it has no effect without s3Enable true"
        assert words in notes.splitlines()
    assert "mnist-deploy-aws (environment aws): s3Endpoint is left out: it has no effect" in notes
    assert "s3UseHttps" not in notes
    assert shown(app, "aws")["s3Endpoint"] is None


def test_an_environment_that_gives_them_an_effect_has_them(old: OldApp, tmp_path: Path) -> None:
    app, _ = aws(old, tmp_path, {"s3Enable": "true", "s3Endpoint": "minio:9000", "s3VerifySsl": "true"})
    assert load_environment(app, "aws").params["mnist-deploy-aws"] == {
        "s3AwsRegion": "us-west-2",
        "s3Enable": "true",
        "s3Endpoint": "minio:9000",
    }
    assert shown(app, "aws")["s3VerifySsl"] is True
    assert shown(app, "jlewi")["s3AwsRegion"] is None


def test_an_environment_that_takes_their_effect_away_does_without(old: OldApp, tmp_path: Path) -> None:
    app, _ = aws(old, tmp_path, {"s3Enable": "false"}, s3Enable="true")
    assert shown(app, "jlewi")["s3Endpoint"] == "s3.us-west-2.amazonaws.com"
    there = shown(app, "aws")
    assert (there["s3Enable"], there["s3Endpoint"], there["s3VerifySsl"]) == (False, None, True)


def test_a_value_that_cannot_be_is_left_out_for_that(old: OldApp, tmp_path: Path) -> None:
    _, notes = aws(old, tmp_path, {"s3UseHttps": "perhaps"})
    assert "(environment aws): s3UseHttps is left out: mnist-deploy-aws: s3UseHttps is 'perhaps'" in notes


def test_names_with_slashes_get_hyphens(old: OldApp, tmp_path: Path) -> None:
    old.environment("team/prod", "models", {"train": {"numWorkers": 4}})
    old.environment("team-prod", "models", {})
    old.environment("bad-namespace", "My_NS", {})
    app, notes = take_over(old.root, tmp_path / "mnist", None)
    assert list_environments(app) == ["jlewi", "team-prod"]
    assert load_environment(app, "team-prod").params == {"train": {"numWorkers": "4"}}
    text = "\n".join(notes)
    assert "environment team/prod is called team-prod now; it has no cluster yet" in text
    assert "environment team-prod: there is one called team-prod already; it is left out" in text
    assert "environment bad-namespace is left out: a namespace cannot have that name: 'My_NS'" in text


def test_the_new_apps_name(old: OldApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app, _ = take_over(Path("ks_app"), None, None)
    assert (app.path, app.name) == (Path("ks-app/fairway.yaml"), "ks-app")
    assert load_app(tmp_path / "ks-app").name == "ks-app"
    assert take_over(Path("ks_app"), Path("a"), "digits")[0].name == "digits"


def test_the_old_app_stays_as_it_is(old: OldApp, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in old.root.rglob("*") if path.is_file()}
    take_over(old.root, tmp_path / "mnist", None)
    assert {path: path.read_bytes() for path in old.root.rglob("*") if path.is_file()} == before


def test_nothing_is_written_over(old: OldApp, tmp_path: Path) -> None:
    for directory in (old.root, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FairwayError, match="there is something in .* already") as caught:
            take_over(old.root, directory, None)
        assert "fairway import" in caught.value.hint
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert take_over(old.root, tmp_path / "empty", None)[0].name == "empty"


@pytest.mark.parametrize("broken", ["components/params.libsonnet", "environments/jlewi/params.libsonnet"])
def test_an_app_that_cannot_be_read_leaves_nothing(old: OldApp, tmp_path: Path, broken: str) -> None:
    (old.root / broken).write_text("{ not jsonnet")
    with pytest.raises(FairwayError):
        take_over(old.root, tmp_path / "mnist", None)
    assert [path.name for path in tmp_path.iterdir()] == ["ks_app"]


def test_a_full_disk_leaves_nothing(old: OldApp, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError, match="a file would grow beyond the limit"):
            take_over(old.root, tmp_path / "mnist", None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["ks_app"]


def test_a_directory_that_cannot_be_made(old: OldApp, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write to .*/file: File exists"):
        take_over(old.root, tmp_path / "file" / "mnist", None)
