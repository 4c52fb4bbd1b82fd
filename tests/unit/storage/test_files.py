"""Files and directories that are there whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairway.errors import StorageError
from fairway.storage.files import (
    ABANDONED_S,
    lock_directory,
    make_directory,
    publish_directory,
    scratch_directory,
    sha256,
    write_atomic,
)


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(StorageError, match=f"cannot write {target}"):
            write_atomic(target, b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_directory_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of the path is a file"):
        make_directory(tmp_path / "file" / "below")


def test_publish_never_replaces(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "kept").touch()
    with scratch_directory(tmp_path, ".new-") as scratch:
        with pytest.raises(StorageError, match="exists already"):
            publish_directory(scratch, tmp_path / "1")
        publish_directory(scratch, tmp_path / "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    assert (tmp_path / "1" / "kept").exists()


def test_scratch_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_directory(tmp_path, ".new-") as scratch:
        (scratch / "half").touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_behind_is_removed_a_day_later(tmp_path: Path) -> None:
    for name, age_s in ((".new-old", ABANDONED_S + 60), (".new-in-use", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
        then = time.time() - age_s
        os.utime(tmp_path / name, (then, then))
    with scratch_directory(tmp_path, ".new-"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".new-in-use"]


def test_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from fairway.storage.files import lock_directory\n"
        f"with lock_directory(pathlib.Path({str(tmp_path)!r}), 'train'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StorageError, match="another process is at work"),
            lock_directory(tmp_path, "train"),
        ):
            pass
        holder.kill()
        holder.wait()
    with lock_directory(tmp_path, "train"):
        pass


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
