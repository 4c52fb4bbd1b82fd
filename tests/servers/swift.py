"""OpenStack Swift with its S3 API: checks signatures, conditions and digests, keeps objects on the disk.

All four servers of Swift (proxy, account, container, object) run in one process, with one copy of each
object and without daemons.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from uuid import uuid4

from tests.servers.process import ServerProcess, inherited_socket
from tests.servers.s3 import make_bucket, s3_client, s3_environment

ADMIN, READER = "test:admin", "test:reader"
"""Access keys. The reader may do only what an ACL grants."""
SECRETS = {ADMIN: "admin-secret", READER: "reader-secret"}
PART_POWER = 2

_SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = fairway
[storage-policy:0]
name = one
default = yes
"""
_COMMON = """\
[DEFAULT]
swift_dir = {directory}
devices = {directory}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_level = ERROR
log_custom_handlers = tests.servers.swift.log_to_stderr
"""
_BACKEND = """\
[app:main]
use = egg:swift#{name}
"""
_PROXY = f"""\
[pipeline:main]
pipeline = catch_errors s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
s3_acl = true
[filter:tempauth]
use = egg:swift#tempauth
user_{ADMIN.replace(":", "_")} = {SECRETS[ADMIN]} .admin
user_{READER.replace(":", "_")} = {SECRETS[READER]}
[filter:slo]
use = egg:swift#slo
"""


class Swift(ServerProcess):
    """A Swift cluster of one machine.

    Attributes:
        reader_environment: As `environment`, for somebody who may only list and read, in the buckets that
            were shared by `share`.
    """

    name = "Swift s3api"
    scheme = "s3"

    def __init__(self) -> None:
        super().__init__("tests.servers.swift", "/info")
        self.environment = s3_environment(self.endpoint, ADMIN, SECRETS[ADMIN])
        self.reader_environment = s3_environment(self.endpoint, READER, SECRETS[READER])

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URI."""
        return make_bucket(self.environment, f"fairway-{uuid4().hex[:12]}")

    def share(self, uri: str) -> None:
        """Let the reader list a bucket and read the objects that it has now."""
        bucket = uri.removeprefix("s3://").partition("/")[0]
        client = s3_client(self.environment)
        client.put_bucket_acl(Bucket=bucket, GrantRead=f'id="{READER}"')
        for each in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            client.put_object_acl(Bucket=bucket, Key=each["Key"], GrantRead=f'id="{READER}"')
        client.close()


def serve() -> None:
    """Serve on the inherited socket until a signal comes."""
    import eventlet
    import eventlet.event

    eventlet.monkey_patch()
    from swift.common.http_protocol import SwiftHttpProtocol
    from swift.common.storage_policy import reload_storage_policies
    from swift.common.utils import NullLogger, set_swift_dir
    from swift.common.wsgi import loadapp

    directory = _scratch_directory()
    listener = inherited_socket(directory)
    (directory / "swift.conf").write_text(_SWIFT_CONF)
    set_swift_dir(str(directory))
    reload_storage_policies()
    device = directory / "devices" / "disk"
    device.mkdir(parents=True)
    servers = [("proxy", eventlet.greenio.GreenSocket(listener))]
    for name in ("account", "container", "object"):
        listener = eventlet.listen(("127.0.0.1", 0), backlog=128)
        _write_ring(directory / f"{name}.ring.gz", listener.getsockname()[1], device.name)
        servers.append((name, listener))
    for name, listener in servers:
        path = directory / f"{name}-server.conf"
        rest = _PROXY if name == "proxy" else _BACKEND.format(name=name)
        path.write_text(_COMMON.format(directory=directory) + rest)
        # As swift.common.wsgi.run_server does, which however can only be called once in a process.
        server = eventlet.spawn(
            eventlet.wsgi.server,
            listener,
            loadapp(str(path), global_conf={"log_name": name}),
            NullLogger(),
            protocol=SwiftHttpProtocol,
            capitalize_response_headers=False,
        )
        server.link(lambda _: os.kill(os.getpid(), signal.SIGTERM))  # one that fails ends all
    eventlet.event.Event().wait()


def _write_ring(path: Path, port: int, device: str) -> None:
    from swift.common.ring import RingBuilder

    builder = RingBuilder(PART_POWER, replicas=1, min_part_hours=0)
    builder.add_dev(
        {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": device, "weight": 1, "id": 0}
    )
    builder.rebalance()
    builder.get_ring().save(str(path))


def _scratch_directory() -> Path:
    """Return a directory on a file system with extended attributes, where Swift keeps metadata."""
    for parent in (tempfile.gettempdir(), "/var/tmp", "/dev/shm", str(Path.home())):
        try:
            directory = Path(tempfile.mkdtemp(prefix="fairway-swift-", dir=parent))
        except OSError:
            continue
        try:
            os.setxattr(directory, "user.swift.metadata", b"x" * 1024)
            return directory
        except OSError:
            directory.rmdir()
    raise SystemExit("no directory with extended attributes for Swift's objects; set TMPDIR to one")


def log_to_stderr(
    conf: dict[str, str], name: str, _console: bool, _route: str, _fmt: str, *loggers: object
) -> None:
    """Be Swift's `log_custom_handlers`, as it else writes to syslog only."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{name or conf.get('log_name')}: %(message)s"))
    loggers[0].addHandler(handler)  # type: ignore[attr-defined]


if __name__ == "__main__":
    serve()
