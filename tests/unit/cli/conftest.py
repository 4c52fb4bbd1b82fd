"""The command line in this process, in an app of its own."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from fairway.cli import build_app
from fairway.deploy.apps.edits import create_app
from fairway.errors import FairwayError
from tests.unit.deploy.kube.tls import self_signed


class Result(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs a command; an explained error is a result too, as for a shell."""

    def run(*words: str) -> Result:
        capsys.readouterr()
        try:
            code = build_app()(list(words), exit_on_error=False, result_action="return_value")
        except FairwayError as err:
            return Result(err.exit_code, capsys.readouterr().out, f"{err.message}\n{err.hint}")
        printed = capsys.readouterr()
        return Result(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go into the directory of a new app."""
    for name in [name for name in os.environ if name.startswith("TF_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "mnist"
    create_app(root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def local(root: Path) -> Path:
    """Give the file of an environment `local`."""
    path = root / "environments" / "local.yaml"
    path.write_text("context: kind\nserver: https://127.0.0.1:6443\nnamespace: models\n")
    return path


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Give a function that writes a kubeconfig with the contexts `kind`, the current one, and `other`."""
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    pem = self_signed(tmp_path / "ca.pem").pem

    def write(server: str = "https://127.0.0.1:6443") -> Path:
        authority = {"certificate-authority-data": base64.b64encode(pem.encode()).decode()}
        clusters: dict[str, dict[str, Any]] = {
            "kind": {"server": server, **authority},
            "other": {"server": "https://10.0.0.1"},
        }
        contexts = {"kind": {"namespace": "models"}, "other": {}}
        content = {
            "current-context": "kind",
            "clusters": [{"name": name, "cluster": cluster} for name, cluster in clusters.items()],
            "contexts": [
                {"name": name, "context": {"cluster": name, "user": "me", **more}}
                for name, more in contexts.items()
            ],
            "users": [{"name": "me", "user": {"token": "t"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    write()
    return write
