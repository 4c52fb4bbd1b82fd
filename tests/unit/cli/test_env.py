"""`fairway env`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.unit.cli.conftest import Run


def test_an_environment_is_tied_to_the_current_context(
    run: Run, root: Path, kubeconfig: Callable[..., Path]
) -> None:
    added = run("env", "add", "dev")
    assert added == (0, f"{root}/environments/dev.yaml\n", "")
    content = yaml.safe_load((root / "environments" / "dev.yaml").read_text())
    assert list(content) == ["context", "server", "certificateAuthority", "namespace"]
    assert (content["context"], content["server"]) == ("kind", "https://127.0.0.1:6443")
    assert content["certificateAuthority"].startswith("sha256:")
    assert content["namespace"] == "models"


def test_flags_in_any_place(run: Run, root: Path, kubeconfig: Callable[..., Path]) -> None:
    flags = ("--context=other", "--namespace", "default")
    assert run("env", "add", *flags, "before").code == 0
    assert run("env", "add", "behind", *flags).code == 0
    for name in ("before", "behind"):
        found = json.loads(run("env", "describe", "-o", "json", name).out)
        assert (found["context"], found["namespace"]) == ("other", "default")


def test_they_are_listed(run: Run, root: Path, kubeconfig: Callable[..., Path]) -> None:
    assert run("env", "list") == (0, "", "")
    assert json.loads(run("env", "list", "-o", "json").out) == []
    run("env", "add", "prod", "--context", "other", "--namespace", "mnist")
    run("env", "add", "dev")
    lines = [line.split() for line in run("env", "list").out.splitlines()]
    assert lines == [
        ["NAME", "CONTEXT", "NAMESPACE", "SERVER"],
        ["dev", "kind", "models", "https://127.0.0.1:6443"],
        ["prod", "other", "mnist", "https://10.0.0.1"],
    ]
    rows = json.loads(run("env", "list", "-o", "json").out)
    assert [list(row) for row in rows] == [["name", "context", "server", "namespace"]] * 2


def test_one_is_described(run: Run, local: Path) -> None:
    run("param", "set", "--env=local", "train", "numWorkers", "2")
    shown = run("env", "describe", "local")
    assert yaml.safe_load(shown.out)["params"] == {"train": {"numWorkers": "2"}}
    found = json.loads(run("env", "describe", "local", "-o", "json").out)
    assert list(found) == ["name", "context", "server", "namespace", "certificateAuthority", "params"]


def test_a_broken_one_hides_no_other(run: Run, local: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = local.with_name("broken.yaml")
    broken.write_text("a: [")
    listed = run("env", "list", "-o", "json")
    assert [row["name"] for row in json.loads(listed.out)] == ["local"]
    assert listed.code == 0
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"environment broken is left out: {broken}: line 2:" in warning
    assert run("env", "rm", "broken", "--yes").code == 0
    assert not broken.exists()


def test_another_context_is_another_cluster(run: Run, local: Path, kubeconfig: Callable[..., Path]) -> None:
    local.write_text("# mine\nnamespace: own  # here\nparams:\n  train: {numWorkers: 2}\n")
    assert run("env", "set", "local", "--context", "kind") == (0, "", "")
    lines = local.read_text().splitlines()
    assert lines[0:3] == ["# mine", "context: kind", "server: https://127.0.0.1:6443"]
    assert lines[4:] == ["namespace: own  # here", "params:", "  train: {numWorkers: 2}"]
    assert run("env", "set", "local", "--context=other").code == 0
    assert "certificateAuthority" not in local.read_text()
    assert run("env", "set", "local", "--namespace", "new").code == 0
    assert "namespace: new  # here" in local.read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("add", "local"), 1, "there is an environment 'local' already"),
        (("add", "a/b"), 2, "an environment cannot have that name: 'a/b'"),
        (("add", ".."), 2, "an environment cannot have that name: '..'"),
        (("add", "Prod"), 2, "an environment cannot have that name: 'Prod'"),
        (("add", "new", "--namespace", "My_NS"), 2, "a namespace cannot have that name: 'My_NS'"),
        (("add", "new", "--context", "kinf"), 1, "context kinf is not in the kubeconfig; have: kind, other"),
        (("add", "new", "--context", ""), 2, "--context is empty"),
        (("add", "new", "--namespace="), 2, "--namespace is empty"),
        (("set", "local"), 2, "nothing to change"),
        (("set", "local", "--context", ""), 2, "--context is empty"),
        (("set", "local", "--namespace", "", "--context", "kind"), 2, "--namespace is empty"),
        (("set", "lokal", "--namespace", "n"), 1, "environment 'lokal' not found"),
        (("describe", "lokal"), 1, "did you mean 'local'?"),
        (("rm", "lokal"), 1, "did you mean 'local'?"),
        (("rm", "local"), 2, "There is no terminal to ask on"),
    ],
)
def test_what_cannot_be_is_said(
    run: Run,
    local: Path,
    kubeconfig: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    before = local.read_text()
    failed = run("env", *words)
    assert failed.code == code
    assert message in failed.err
    assert failed.err.splitlines()[1]
    assert [path.name for path in local.parent.iterdir()] == ["local.yaml"]
    assert local.read_text() == before


def test_what_changed_is_printed_for_programs(run: Run, root: Path, kubeconfig: Callable[..., Path]) -> None:
    path = str(root / "environments" / "dev.yaml")
    record = {"name": "dev", "context": "kind", "server": "https://127.0.0.1:6443", "namespace": "models"}
    added = run("env", "add", "dev", "-o", "json")
    assert json.loads(added.out) == record | {"path": path}
    changed = run("env", "set", "dev", "--namespace", "new", "-o", "json")
    assert json.loads(changed.out) == record | {"namespace": "new", "path": path}
    removed = run("env", "rm", "dev", "--yes", "-o", "json")
    assert json.loads(removed.out) == {"name": "dev", "path": path}


def test_one_is_forgotten(run: Run, local: Path) -> None:
    assert run("env", "rm", "local", "--yes") == (0, "", "")
    assert not local.exists()


@pytest.mark.parametrize(("answer", "is_there"), [("y\n", False), ("yes\n", False), ("\n", True), ("", True)])
def test_it_is_asked_for_first(
    run: Run, local: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_there: bool
) -> None:
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    done = run("env", "rm", "local")
    assert local.exists() == is_there
    assert (done.code, "nothing was done" in done.err) == ((1, True) if is_there else (0, False))


def test_without_an_app_nobody_asks_the_kubeconfig(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no fairway.yaml in" in run("env", "add", "dev").err
