"""The app's files as people write them: found from anywhere, read, and refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.deploy.apps.app import App, find_app, list_environments, load_app, load_environment
from fairway.deploy.apps.edits import create_app
from fairway.errors import FairwayError, UsageError

APP = """\
version: 1
name: mnist
components:
  train:
    kind: train
  web-ui:
    kind: web-ui
    params: {replicas: 2}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app" / "environments").mkdir(parents=True)
    (tmp_path / "app" / "fairway.yaml").write_text(APP)
    return tmp_path / "app"


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """Give the current directory back afterwards."""
    before = Path.cwd()
    yield tmp_path
    os.chdir(before)


def environment(root: Path, text: str, name: str = "dev") -> App:
    (root / "environments" / f"{name}.yaml").write_text(text)
    return load_app(root)


def refusal(root: Path, text: str | bytes) -> FairwayError:
    path = root / "fairway.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FairwayError) as caught:
        load_app(root)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_an_app_is_read(root: Path) -> None:
    app = load_app(root)
    assert (app.name, list(app.components)) == ("mnist", ["train", "web-ui"])
    assert app.component("web-ui").params == {"replicas": "2"}
    assert app.component("train").params == {}


def test_a_new_app_is_right(tmp_path: Path) -> None:
    app = create_app(tmp_path / "new" / "digits")
    assert app.name == "digits"
    assert app.component("train").params["pvcName"] == app.component("storage").params["name"]
    assert list_environments(app) == []


def test_it_is_found_from_any_folder(root: Path, work: Path) -> None:
    deep = root / "a" / "b"
    deep.mkdir(parents=True)
    for directory in (root, deep, root / "environments"):
        os.chdir(directory)
        assert find_app().root == root.resolve()
    os.chdir(root.parent)
    assert find_app(Path("app/a")).root == root.resolve()
    (work / "link").symlink_to(deep)
    os.chdir(work / "link")
    assert find_app().root == root.resolve()
    assert find_app(work / "link").root == root.resolve()


def test_the_inner_of_two_apps_is_found(root: Path) -> None:
    inner = create_app(root / "inner")
    (inner.root / "sub").mkdir()
    assert find_app(inner.root / "sub").name == "inner"
    assert find_app(root / "environments").name == "mnist"


def test_no_app_names_the_way_to_one(tmp_path: Path) -> None:
    (tmp_path / "fairway.yaml").mkdir()  # a directory of that name is none
    with pytest.raises(FairwayError, match=r"no fairway.yaml in .* or above") as caught:
        find_app(tmp_path)
    assert "fairway init mnist" in caught.value.hint


def test_a_directory_that_is_gone(work: Path) -> None:
    gone = work / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with pytest.raises(FairwayError, match="the current directory: it does not exist"):
        find_app()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no version, but this fairway reads version 1"),
        ("version: 2\n", "has the version '2', but this fairway reads version 1"),
        ("version: 1\n", "has no name"),
        ("version: 1\nname: My App\n", "name: 'My App' is not a name of small letters"),
        ("version: 1\nname: [a]\n", "name: ['a'] is not a word"),
        ("version: 1\nname: mnist\n", "has no components"),
        ("version: 1\nname: mnist\ncomponents: {}\n", "has no components"),
        ("version: 1\nname: mnist\ncomponents: [train]\n", "has no components"),
        ("version: 1\nname: mnist\nkomponents: {}\n", "unknown key komponents; did you mean 'components'?"),
        ("- version: 1\n", "the file is a list, not `key: value` lines"),
        ("just words\n", "the file is 'just words', not"),
        (
            APP.replace("kind: train", "kind: trian"),
            "train.kind is 'trian', which is no kind of component; did you mean 'train'?",
        ),
        (APP.replace("    kind: train\n", "    params: {}\n"), "components.train.kind is missing"),
        (APP.replace("kind: train", "kind: [train]"), "components.train.kind is a list, which is no kind"),
        (
            APP.replace("kind: train", "kind: train\n    parms: {}"),
            "unknown key components.train.parms; did you mean 'params'?",
        ),
        (APP.replace("{replicas: 2}", "[replicas]"), "components.web-ui.params is a list, not"),
        (APP.replace("  train:", "  Train_1:"), "'Train_1' is not a name of small letters"),
        (APP.replace("  web-ui:", "  train:"), "line 6: the key 'train' is there twice"),
        (
            APP.replace("    kind: train", "\tkind: train"),
            "line 5: found character that cannot start any token",
        ),
        (b"\xff\xfe\x00binary", "is no text in UTF-8"),
        (b"\x7fELF\x00\x01", "control characters are not allowed"),
    ],
)
def test_what_is_wrong_with_an_app_is_said(root: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(root, text).message


def test_the_nearest_component_is_named(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no component 'webui' in .*; did you mean 'web-ui'\?") as caught:
        load_app(root).component("webui")
    assert caught.value.hint == "It has: train, web-ui."


def test_an_environment_is_read(root: Path) -> None:
    app = environment(
        root, "context: c\nserver: https://1.2.3.4\nnamespace: n\nparams: {train: {numWorkers: 2}}\n"
    )
    found = load_environment(app, "dev")
    assert (found.context, found.server, found.certificate_authority) == ("c", "https://1.2.3.4", None)
    assert (found.namespace, found.params) == ("n", {"train": {"numWorkers": "2"}})


def test_an_empty_environment_has_no_cluster_yet(root: Path) -> None:
    found = load_environment(environment(root, ""), "dev")
    assert (found.context, found.namespace, found.params) == (None, "default", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contxt: c\n", "unknown key contxt; did you mean 'context'?"),
        ("context: {a: b}\n", "context is a mapping, not a word"),
        ("namespace: My_NS\n", "namespace: 'My_NS' is not a name"),
        ("params: {trian: {}}\n", "did you mean 'train'?"),
        ("params: [train]\n", "params is a list, not `key: value` lines"),
        ("params: {train: numWorkers}\n", "params.train is 'numWorkers', not `key: value` lines"),
        ("- a\n", "the file is a list"),
    ],
)
def test_what_is_wrong_with_an_environment_is_said(root: Path, text: str, message: str) -> None:
    app = environment(root, text)
    with pytest.raises(FairwayError) as caught:
        load_environment(app, "dev")
    assert message in caught.value.message
    assert "environments/dev.yaml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["prd", "..", "../app", "a/b", "", "PROD", "prod.yaml", "/etc/passwd"])
def test_an_unknown_environment_is_no_path(root: Path, name: str) -> None:
    app = environment(root, "", "prod")
    with pytest.raises(FairwayError, match="not found in") as caught:
        load_environment(app, name)
    assert caught.value.hint == "There are: prod."


def test_the_nearest_environment_is_named(root: Path) -> None:
    with pytest.raises(FairwayError, match="environment 'prd' not found in .*; did you mean 'prod'?"):
        load_environment(environment(root, "", "prod"), "prd")


def test_a_file_that_cannot_be_an_environment(root: Path) -> None:
    app = environment(root, "", "My Env")
    with pytest.raises(FairwayError, match="the name of an environment: 'My Env' is not a name"):
        load_environment(app, "My Env")


def test_half_written_files_are_no_environments(root: Path) -> None:
    app = environment(root, "")
    (root / "environments" / ".part-x.yaml").touch()
    (root / "environments" / "notes.txt").touch()
    assert list_environments(app) == ["dev"]


def test_an_app_without_the_directory_has_no_environments(root: Path) -> None:
    (root / "environments").rmdir()
    assert list_environments(load_app(root)) == []
    with pytest.raises(FairwayError, match="environment 'dev' not found") as caught:
        load_environment(load_app(root), "dev")
    assert "fairway env add" in caught.value.hint
