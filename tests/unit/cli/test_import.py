"""`fairway import`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "ks_app"
    (root / "components").mkdir(parents=True)
    (root / "environments" / "dev" / "one").mkdir(parents=True)
    environments = {"dev/one": {"destination": {"server": "https://10.0.0.1", "namespace": "kubeflow"}}}
    app = {"apiVersion": "0.3.0", "kind": "ksonnet.io/app", "name": "ks_app", "environments": environments}
    (root / "app.yaml").write_text(json.dumps(app))
    components = {"train": {"numWorkers": 2, "modelDir": "gs://b/m", "old": 1}}
    (root / "components" / "params.libsonnet").write_text(json.dumps({"components": components}))
    (root / "environments" / "dev" / "one" / "params.libsonnet").write_text(
        'std.extVar("__ksonnet/params") + { components+: { train+: { numWorkers: 3 } } }'
    )
    return root


def test_an_old_app_is_taken_over(run: Run, old: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert run("import", "ks_app/") == (0, "ks-app/fairway.yaml\n", "")
    notes = [record.getMessage() for record in caplog.records]
    assert any(
        "train: old is left out: a component of kind train has no param 'old'" in note for note in notes
    )
    assert any("fairway env set dev-one --context CONTEXT" in note for note in notes)
    assert all("\n" not in note for note in notes)


def test_it_can_be_worked_with_at_once(run: Run, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("import", "ks_app", "mnist", "--name", "digits").out == "mnist/fairway.yaml\n"
    monkeypatch.chdir("mnist")
    rows = json.loads(run("param", "list", "train", "--env=dev-one", "-o", "json").out)
    found = {row["param"]: (row["value"], row["origin"]) for row in rows}
    assert found["numWorkers"] == (3, "environment dev-one")
    assert found["modelDir"] == ("gs://b/m", "app")
    assert json.loads(run("env", "list", "-o", "json").out)[0]["namespace"] == "kubeflow"


def test_what_was_made_is_printed_for_programs(run: Run, old: Path) -> None:
    made = json.loads(run("import", "ks_app", "mnist", "-o", "json").out)
    assert (made["name"], made["path"]) == ("mnist", "mnist/fairway.yaml")
    assert any("train: old is left out" in note for note in made["notes"])


def test_what_is_no_old_app(run: Run, old: Path, tmp_path: Path) -> None:
    for words, message in [
        (("components",), "components is not a directory"),
        (("ks_app/components",), "is no ksonnet app: it has no app.yaml"),
        (("ks_app", "ks_app"), "there is something in ks_app already"),
    ]:
        failed = run("import", *words)
        assert failed.code == 1
        assert message in failed.err
        assert failed.err.splitlines()[1]
    assert [path.name for path in tmp_path.iterdir()] == ["ks_app"]
