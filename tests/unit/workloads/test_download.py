"""Downloading from mirrors: a real server on loopback, whole and broken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fairway.config import DataSettings
from fairway.errors import DataError, StorageError
from fairway.workloads.mnist import data
from fairway.workloads.mnist.download import FILES, download


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    """Does not report a client that hangs up, as ours does on a file that is too long."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A mirror and the directory it serves, empty at first."""
    directory = tmp_path / "mirror"
    directory.mkdir()
    with QuietServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", directory
        server.shutdown()
        thread.join()


@pytest.fixture
def full_mirror(mirror: tuple[str, Path], mnist_dir: Path) -> tuple[str, Path]:
    for name in FILES:
        (mirror[1] / name).write_bytes((mnist_dir / name).read_bytes())
    return mirror


def test_files_land_in_the_cache_and_are_not_fetched_twice(
    full_mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url, served = full_mirror
    assert data.load(DataSettings(data_url=f"{url}/")).name == "mnist"
    cache = tmp_path / "cache" / "fairway" / "mnist"
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)
    for path in served.iterdir():
        path.unlink()
    assert data.load(DataSettings(data_url=url, dataset="mnist")).name == "mnist"


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: b"x" + whole[1:], lambda _: b""])
def test_wrong_content_never_lands(full_mirror: tuple[str, Path], tmp_path: Path, change: object) -> None:
    assert callable(change)
    url, served = full_mirror
    broken = served / "t10k-labels-idx1-ubyte.gz"
    broken.write_bytes(change(broken.read_bytes()))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz has .* bytes and sha256"):
        download(tmp_path / "cache", url)
    assert not (tmp_path / "cache" / broken.name).exists()


def test_endless_file_is_cut_off(full_mirror: tuple[str, Path], tmp_path: Path) -> None:
    url, served = full_mirror
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(b"x" * 1_000_000)
    with pytest.raises(DataError, match="is longer than 4,542 bytes"):
        download(tmp_path / "cache", url)


def test_second_mirror_helps_out(
    full_mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairway.workloads.mnist.download.MIRRORS", ("http://127.0.0.1:9", full_mirror[0]))
    download(tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_every_mirror_and_its_fault_is_named(mirror: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"download failed \({mirror[0]}: HTTP 404\)"):
        download(tmp_path / "cache", mirror[0])
    with pytest.raises(DataError, match="nowhere"):
        download(tmp_path / "cache", "nowhere")


def test_cache_that_cannot_be_written_is_an_error(mirror: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of the path is a file"):
        download(tmp_path / "file" / "cache", mirror[0])
