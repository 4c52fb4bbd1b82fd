"""`fairway sync` beside readers that take what they see, through outages, kills and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from fairway.config import SyncSettings
from fairway.errors import StorageError
from fairway.local.sync import run
from fairway.storage.exports import find_version, list_versions
from fairway.storage.manifest import MANIFEST
from fairway.storage.outage import Outage
from fairway.storage.publish import publish_version, remove_version
from fairway.storage.stores import retry
from fairway.storage.sync import Sync
from tests.conftest import Fairway
from tests.manifests import make_version
from tests.servers.fixtures import use
from tests.servers.moto import Moto
from tests.servers.process import StoreServer
from tests.servers.proxy import Answer, Delay, FaultProxy, Request, Reset

VERSIONS = 24
DEADLINE_S = 60.0


class Watching:
    """A running `fairway sync --watch`."""

    def __init__(self, environment: dict[str, str], source: str, target: Path, *words: str) -> None:
        command = [sys.executable, "-m", "fairway", "sync", source, str(target), "--watch", *words]
        self.process = subprocess.Popen(
            [*command, "--poll-seconds", "0.05"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.output += line

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.01)

    def end(self, signum: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signum)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream
                stream.close()


Watch = Callable[..., Watching]


@pytest.fixture
def watch(environment: dict[str, str], moto: Moto, via_proxy: FaultProxy) -> Iterator[Watch]:
    """Start watchers whose store is behind the proxy; those that still run at the end are killed."""
    started: list[Watching] = []
    variables = environment | moto.environment | {"S3_ENDPOINT": via_proxy.endpoint}

    def start(*words: object) -> Watching:
        started.append(Watching(variables, *words))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[str, int], None]:
    """Publish a version of a number; its content is made of it."""
    return lambda uri, number: void(publish_version(make_version(tmp_path / "made", number), uri))


def void(_: object) -> None: ...


def numbers(directory: Path) -> list[int]:
    return [version.number for version in list_versions(directory) if not version.problem]


def load_newest(directory: Path) -> int | None:
    """Do as TensorFlow Serving does: take the highest number that is there, and read its files at once.

    Raises:
        AssertionError: not all of them are there.
    """
    found = [int(path.name) for path in directory.glob("*") if path.name.isdigit()]
    if not found:
        return None
    path = directory / str(max(found))
    content = [(path / "saved_model.pb").read_bytes()]
    content += [each.read_bytes() for each in sorted((path / "variables").iterdir())]
    assert [len(each) for each in content] == [1000] * 4
    return max(found)


def test_a_reader_like_tensorflow_serving_never_sees_a_part(
    moto: Moto, watch: Watch, publish: Callable[[str, int], None], tmp_path: Path
) -> None:
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    seen: list[int | Exception | None] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.append(load_newest(target))
            except Exception as err:
                seen.append(err)
            time.sleep(0.0005)  # the proxy needs this interpreter too

    watching = watch(uri, target, "--keep", "2", "--delete")
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, VERSIONS + 1):
            publish(uri, number)
            watching.wait_for(lambda number=number: (target / str(number)).is_dir())  # type: ignore[misc]
        watching.wait_for(lambda: numbers(target) == [VERSIONS - 1, VERSIONS])
    finally:
        done.set()
        reader.join()
    assert [each for each in seen if isinstance(each, Exception)] == []
    assert set(seen) > set(range(2, VERSIONS + 1))
    assert watching.end(signal.SIGTERM) == 0
    assert sorted(path.name for path in target.iterdir()) == [str(VERSIONS - 1), str(VERSIONS)]


def test_a_rollback_in_the_store_reaches_the_directory(
    moto: Moto, watch: Watch, publish: Callable[[str, int], None], tmp_path: Path
) -> None:
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    publish(uri, 1)
    publish(uri, 2)
    watching = watch(uri, target, "--delete")
    watching.wait_for(lambda: numbers(target) == [1, 2])
    remove_version(uri, 2)
    watching.wait_for(lambda: numbers(target) == [1])
    remove_version(uri, 1)
    watching.wait_for(lambda: "no complete version" in watching.output)
    assert watching.end(signal.SIGINT) == 0
    assert numbers(target) == [1]


def test_an_outage_is_said_once_and_survived(
    moto: Moto,
    watch: Watch,
    via_proxy: FaultProxy,
    publish: Callable[[str, int], None],
    tmp_path: Path,
) -> None:
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    watching = watch(uri, target)
    watching.wait_for(lambda: len(via_proxy.requests) > 2)  # nothing there is waited for
    publish(uri, 1)
    watching.wait_for(lambda: numbers(target) == [1])

    via_proxy.fault = lambda _: Answer(403, "AccessDenied")
    before = len(via_proxy.requests)
    watching.wait_for(lambda: len(via_proxy.requests) > before + 10)
    via_proxy.fault = lambda _: None
    publish(uri, 2)
    watching.wait_for(lambda: numbers(target) == [1, 2])

    assert watching.end(signal.SIGTERM) == 0
    assert watching.output.count("access is denied") == 1
    assert watching.output.count("copying goes on") == 1


def test_a_store_that_does_not_answer_is_survived(
    moto: Moto,
    via_proxy: FaultProxy,
    publish: Callable[[str, int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    publish(uri, 1)
    sync, outage = Sync(uri, str(target), delete=True), Outage("it is back")
    via_proxy.fault = lambda _: Reset(after=0)
    for _ in range(2):
        with outage.noted("trying again"):
            sync.step()
    assert outage.problem
    via_proxy.fault = lambda request: Reset(after=500) if "variables" in request.path else None
    with outage.noted("trying again"):
        assert sync.step() is None
    assert not outage.problem
    assert sync.failures.keys() == {1}
    assert list(target.iterdir()) == []
    via_proxy.fault = lambda _: None
    assert [version.number for version in Sync(uri, str(target)).run()] == [1]
    assert len([each for each in caplog.messages if "trying again" in each]) == 1


def test_a_signal_in_the_middle_of_a_version_leaves_nothing(
    moto: Moto,
    watch: Watch,
    via_proxy: FaultProxy,
    publish: Callable[[str, int], None],
    tmp_path: Path,
) -> None:
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    publish(uri, 1)
    via_proxy.requests.clear()
    via_proxy.fault = lambda request: Delay(0.5) if "variables" in request.path else None
    watching = watch(uri, target)
    watching.wait_for(lambda: any("variables" in request.path for request in via_proxy.requests))
    assert watching.end(signal.SIGTERM) == 0
    assert list(target.iterdir()) == []


def test_a_second_signal_ends_at_once_and_a_restart_goes_on(
    moto: Moto,
    watch: Watch,
    via_proxy: FaultProxy,
    publish: Callable[[str, int], None],
    tmp_path: Path,
) -> None:
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    publish(uri, 1)
    is_slow = True

    def fault(request: Request) -> Delay | None:
        return Delay(30) if "variables" in request.path and is_slow else None

    via_proxy.requests.clear()
    via_proxy.fault = fault
    watching = watch(uri, target)
    watching.wait_for(lambda: any("variables" in request.path for request in via_proxy.requests))
    watching.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    while watching.process.poll() is None and time.monotonic() < started + 10:
        time.sleep(0.1)
        watching.process.send_signal(signal.SIGTERM)
    assert watching.wait() == 128 + signal.SIGTERM
    assert numbers(target) == []

    is_slow = False
    watching = watch(uri, target)
    watching.wait_for(lambda: numbers(target) == [1])
    assert watching.end(signal.SIGTERM) == 0


def test_two_watchers_share_a_directory(
    moto: Moto, watch: Watch, publish: Callable[[str, int], None], tmp_path: Path
) -> None:
    uri, target = f"{moto.new_bucket()}/models", tmp_path / "served"
    both = [watch(uri, target, "--keep", "2", "--delete") for _ in range(2)]
    for number in range(1, 9):
        publish(uri, number)
    both[0].wait_for(lambda: numbers(target) == [7, 8])
    both[1].wait_for(lambda: "version 8" in both[0].output + both[1].output)
    assert [each.end(signal.SIGTERM) for each in both] == [0, 0]
    assert [line for each in both for line in each.output.splitlines() if "not copied" in line] == []
    assert sorted(path.name for path in target.iterdir()) == ["7", "8"]


def test_a_look_is_one_request(
    moto: Moto, via_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{moto.new_bucket()}/models"
    with monkeypatch.context() as past_the_proxy:
        use(moto, past_the_proxy)
        for number in range(1, 11):
            publish_version(make_version(tmp_path / "made", number, files=20), uri)
    sync = Sync(uri, str(tmp_path / "served"), keep=2, delete=True)
    assert [version.number for version in sync.run()] == [10, 9]
    via_proxy.requests.clear()
    for looks in (1, 2, 3):
        sync.step()
        assert len(via_proxy.requests) == looks


def test_there_and_back(server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a disk to a store, from there to another, and back to a disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = f"{server.new_bucket()}/a", f"{server.new_bucket()}/b"
    made = [make_version(tmp_path / "made", number) for number in (1, 2, 3)]
    for source, target in ((tmp_path / "made", first), (first, second), (second, tmp_path / "back")):
        assert [version.number for version in Sync(str(source), str(target)).run()] == [3, 2, 1]
        assert list(Sync(str(source), str(target)).run()) == []
    for version in made:
        copy = tmp_path / "back" / str(version.number)
        assert (copy / MANIFEST).read_bytes() == (version.path / MANIFEST).read_bytes()
    assert not list((tmp_path / "cache" / "fairway" / "sync").glob("*"))

    sync = partial(Sync, str(tmp_path / "made"), first, keep=2, delete=True)
    assert list(sync().run()) == []
    assert [version.number for version in list_versions(first)] == [2, 3]


def test_a_damaged_source_is_not_published(moto: Moto, via_proxy: FaultProxy, tmp_path: Path) -> None:
    make_version(tmp_path / "made", 1)
    (make_version(tmp_path / "made", 2).path / "saved_model.pb").write_bytes(bytes(1000))
    uri = f"{moto.new_bucket()}/models"
    sync = Sync(str(tmp_path / "made"), uri)
    assert [version.number for version in sync.run()] == [1]
    assert "wrong checksum of saved_model.pb" in sync.failures[2]
    assert [version.number for version in list_versions(uri)] == [1]


def test_a_command_that_a_store_gave_no_answer_is_to_be_given_again(
    moto: Moto, via_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.2)
    uri = f"{moto.new_bucket()}/models"
    for number in (1, 2):
        make_version(tmp_path / "made", number)

    def error() -> StorageError:
        with pytest.raises(StorageError, match="2 of 2 versions could not be copied") as caught:
            run(str(tmp_path / "made"), uri, SyncSettings(), lambda _: None)
        return caught.value

    def fail(status: int, code: str, path: str) -> Callable[[Request], Answer | None]:
        return lambda each: Answer(status, code) if each.method == "PUT" and path in each.path else None

    via_proxy.fault = fail(503, "ServiceUnavailable", "/models/")
    assert error().is_retryable
    one_denied = fail(403, "AccessDenied", "/2/")
    via_proxy.fault = lambda each: one_denied(each) or fail(503, "SlowDown", "/1/")(each)
    assert not error().is_retryable


def test_the_command(fairway: Fairway, moto: Moto, via_proxy: FaultProxy, tmp_path: Path) -> None:
    uri = f"{moto.new_bucket()}/models"
    variables = moto.environment
    make_version(tmp_path / "made", 1)
    make_version(tmp_path / "made", 2)

    done = fairway("sync", "made", uri, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{uri}/2\n{uri}/1\n", "copied 2 versions\n")
    done = fairway("sync", uri, "served", "--keep", "1", **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "served/2\n", "copied 1 version\n")
    done = fairway("sync", uri, "served", "--keep", "1", **variables)
    assert done.stderr == "everything is there already: 1 version\n"

    done = fairway("sync", f"{uri}/none", "served", **variables)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"error: no complete version in {uri}/none")
    done = fairway("sync", "s3://no-such-bucket/x", "served", **variables)
    assert done.returncode == 1
    assert "there is no bucket no-such-bucket" in done.stderr
    done = fairway("sync", uri, f"{uri}/copy", **variables)
    assert done.returncode == 2

    listed = fairway("models", "list", "--export-dir", uri, **variables)
    assert [line.split()[-1] for line in listed.stdout.splitlines()[1:]] == ["complete", "complete"]
    shown = fairway("models", "show", "--export-dir", uri, **variables)
    assert f"path: {uri}/2" in shown.stdout
    assert find_version(uri).number == 2
