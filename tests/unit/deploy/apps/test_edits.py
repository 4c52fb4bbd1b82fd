"""Changes to the app's files: nothing else changes, and a write that fails changes nothing."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairway.deploy.apps import edits
from fairway.deploy.apps.app import App, Environment, list_environments, load_app, load_environment
from fairway.deploy.apps.edits import (
    add_environment,
    app_name,
    change_environment,
    create_app,
    delete_param,
    remove_environment,
    set_params,
)
from fairway.errors import FairwayError, StorageError, UsageError
from fairway.storage.files import write_atomic

NOBODY = 65534


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = create_app(tmp_path / "mnist")
    add_environment(app, Environment("dev", "kind", "https://127.0.0.1:6443", "sha256:ab", "models"))
    return app


@pytest.fixture
def open_app() -> Iterator[App]:
    """Give an app in a directory that other users reach; as root nothing is denied, so be nobody there."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        app = create_app(Path(directory) / "mnist")
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        else:
            app.root.chmod(0o555)
        try:
            yield app
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            app.root.chmod(0o755)


def test_a_new_environment_is_read_back(app: App) -> None:
    path = app.environment_path("dev")
    assert path.read_text() == (
        "context: kind\nserver: https://127.0.0.1:6443\ncertificateAuthority: sha256:ab\nnamespace: models\n"
    )
    assert load_environment(app, "dev").certificate_authority == "sha256:ab"
    odd = Environment("odd", "a: b #c", params={"train": {"numWorkers": 2}, "tensorboard": {"logDir": "no"}})
    add_environment(app, odd)
    found = load_environment(app, "odd")
    assert (found.context, found.params) == (
        "a: b #c",
        {"train": {"numWorkers": "2"}, "tensorboard": {"logDir": "no"}},
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "Prod", "a b", "-x", "x" * 64, "a_b", "é"])
def test_names_that_cannot_be(app: App, name: str) -> None:
    with pytest.raises(UsageError, match="an environment cannot have that name") as caught:
        add_environment(app, Environment(name))
    assert caught.value.hint
    with pytest.raises(UsageError, match="a namespace cannot have that name"):
        add_environment(app, Environment("ok", namespace=name))
    assert list_environments(app) == ["dev"]


def test_an_environment_is_not_written_over(app: App) -> None:
    with pytest.raises(FairwayError, match="there is an environment 'dev' already") as caught:
        add_environment(app, Environment("dev"))
    assert "fairway env set dev" in caught.value.hint


def test_a_new_app_is_not_written_over(app: App) -> None:
    before = app.path.read_bytes()
    with pytest.raises(FairwayError, match="there is an app already"):
        create_app(app.root)
    assert app.path.read_bytes() == before


def test_the_name_of_a_new_app(tmp_path: Path) -> None:
    assert create_app(tmp_path / "My_Digits").name == "my-digits"
    assert create_app(tmp_path / "x", "other").name == "other"
    with pytest.raises(UsageError, match="an app cannot have that name") as caught:
        create_app(tmp_path / "___")
    assert "--name" in caught.value.hint
    assert not (tmp_path / "___").exists()
    assert app_name("ks_app") == "ks-app"
    for word in ("null", "true", "no", "007", "1e3"):
        assert create_app(tmp_path / word).name == word


def test_fields_of_an_environment_change_in_their_order(app: App) -> None:
    path = app.environment_path("dev")
    path.write_text("# mine\nnamespace: old  # here\nparams:\n  train:\n    numWorkers: 2\n")
    change_environment(
        app, "dev", {"context": "c", "server": "https://x", "certificate_authority": None, "namespace": "new"}
    )
    assert path.read_text() == (
        "# mine\ncontext: c\nserver: https://x\nnamespace: new  # here\n"
        "params:\n  train:\n    numWorkers: 2\n"
    )
    change_environment(app, "dev", {"server": None})
    assert "server" not in path.read_text()
    with pytest.raises(UsageError, match="a namespace cannot have that name"):
        change_environment(app, "dev", {"namespace": "My_NS"})


def test_an_environment_goes(app: App) -> None:
    remove_environment(app, "dev")
    assert list_environments(app) == []
    with pytest.raises(FairwayError, match="not found"):
        remove_environment(app, "dev")


def test_an_environment_goes_whatever_is_in_its_file(app: App) -> None:
    directory = app.root / "environments"
    (directory / "bad.yaml").write_text("a: [")
    (directory / "My Env.yaml").touch()
    (directory / "loop.yaml").symlink_to("loop.yaml")
    for name in ("bad", "My Env", "loop"):
        remove_environment(app, name)
    assert list_environments(app) == ["dev"]
    (directory / "w.yaml").mkdir()
    with pytest.raises(FairwayError, match="w.yaml is a directory") as caught:
        remove_environment(app, "w")
    assert caught.value.hint


def test_a_param_is_set_at_its_place(app: App) -> None:
    before = app.path.read_text()
    set_params(app, None, "train", {"trainSteps": "500", "numWorkers": "2"})
    added = "      exportDir: /mnt/export\n      trainSteps: 500\n      numWorkers: 2\n"
    assert app.path.read_text() == before.replace("      exportDir: /mnt/export\n", added)
    delete_param(app, None, "train", "trainSteps")
    delete_param(app, None, "train", "numWorkers")
    assert app.path.read_text() == before
    set_params(app, None, "web-ui", {"replicas": "2"})
    delete_param(app, None, "web-ui", "replicas")
    assert app.path.read_text() == before


def test_an_environment_has_its_own(app: App) -> None:
    before = app.environment_path("dev").read_text()
    set_params(app, "dev", "train", {"secret": "user-gcp-sa=/var/secrets"})
    assert load_environment(app, "dev").params == {"train": {"secret": "user-gcp-sa=/var/secrets"}}
    assert load_app(app.root).component("train").params == app.component("train").params
    delete_param(app, "dev", "train", "secret")
    assert app.environment_path("dev").read_text() == before


def test_what_is_not_set_cannot_be_deleted(app: App) -> None:
    for environment, file in (("dev", "dev.yaml"), (None, "fairway.yaml")):
        with pytest.raises(UsageError, match=f"numWorkers of train is not set in .*{file}") as caught:
            delete_param(app, environment, "train", "numWorkers")
        assert "fairway param list" in caught.value.hint


def test_nothing_wrong_is_written(app: App) -> None:
    before = app.path.read_bytes()
    for component, values in [
        ("trian", {"numWorkers": "2"}),
        ("train", {"numWorker": "2"}),
        ("train", {"numWorkers": "2", "trainSteps": "many"}),
        ("train", {"numSteps": "2"}),
        ("train", {"modelDir": "\udcff"}),
    ]:
        with pytest.raises(UsageError):
            set_params(app, None, component, values)
    assert app.path.read_bytes() == before


def test_a_word_that_is_no_text(app: App) -> None:
    with pytest.raises(UsageError, match=r"modelDir is '\\udcff', which is no text in UTF-8"):
        set_params(app, None, "train", {"modelDir": os.fsdecode(b"\xff")})


def test_what_cannot_be_changed_is_left_to_a_person(app: App) -> None:
    path = app.environment_path("dev")
    path.write_text("params:\n  train: &t {modelDir: /mnt/a}\n  web-ui: *t\n")
    with pytest.raises(FairwayError, match="cannot be changed there without changing something else") as err:
        set_params(app, "dev", "train", {"modelDir": "/mnt/b"})
    assert str(path) in err.value.message
    assert err.value.hint == "Change it by hand."


def test_a_link_stays_a_link_and_the_mode_the_mode(app: App, tmp_path: Path) -> None:
    real = tmp_path / "shared.yaml"
    app.path.rename(real)
    real.chmod(0o664)
    app.path.symlink_to(real)
    set_params(app, None, "train", {"numWorkers": "2"})
    assert app.path.is_symlink()
    assert "numWorkers: 2" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o664


def test_changes_at_the_same_time_are_all_kept(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_slowly(path: Path, data: bytes) -> None:
        time.sleep(0.05)  # in which the others would read what is replaced now
        write_atomic(path, data)

    monkeypatch.setattr(edits, "write_atomic", write_slowly)
    values = {"numWorkers": "4", "numPs": "1", "trainSteps": "9", "batchSize": "8"}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: set_params(app, None, "train", {name: values[name]}), values))
    assert values.items() <= load_app(app.root).component("train").params.items()
    assert sorted(path.name for path in app.root.iterdir()) == ["environments", "fairway.yaml"]


def test_setting_the_same_writes_nothing(app: App) -> None:
    set_params(app, None, "train", {"numWorkers": "2"})
    before = app.path.stat().st_ino
    set_params(app, None, "train", {"numWorkers": "2"})
    assert app.path.stat().st_ino == before


def test_a_directory_that_cannot_be_written_to(open_app: App) -> None:
    before = open_app.path.read_bytes()
    for change in (
        lambda: set_params(open_app, None, "train", {"numWorkers": "2"}),
        lambda: create_app(open_app.root / "inner"),
    ):
        with pytest.raises(StorageError, match=r"cannot \w+ .*: permission denied") as caught:
            change()
        assert caught.value.hint
    assert open_app.path.read_bytes() == before


def test_a_full_disk_leaves_the_old_file(app: App) -> None:
    before = app.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*fairway.yaml: a file would grow beyond"):
            set_params(app, None, "train", {"numWorkers": "2"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert app.path.read_bytes() == before
    assert sorted(path.name for path in app.root.iterdir()) == ["environments", "fairway.yaml"]


def test_a_file_where_the_directory_belongs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot create .*: a part of the path is a file"):
        create_app(tmp_path / "file" / "mnist")


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.chmod"])
def test_a_kill_leaves_the_old_file_or_the_new(app: App, moment: str) -> None:
    before = app.path.read_bytes()
    code = f"""
import os, pathlib, signal
from fairway.deploy.apps.app import load_app
from fairway.deploy.apps.edits import set_params
app = load_app(pathlib.Path({str(app.root)!r}))
{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
set_params(app, None, "train", {{"numWorkers": "2"}})
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert app.path.read_bytes() == before
    set_params(load_app(app.root), None, "train", {"numWorkers": "3"})
    assert load_app(app.root).component("train").params["numWorkers"] == "3"
