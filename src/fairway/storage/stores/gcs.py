"""A prefix in a bucket of Google Cloud Storage as a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fairway.errors import StorageError, missing_extra
from fairway.storage.files import storage_errors
from fairway.storage.stores.store import (
    Count,
    Entry,
    ExistsError,
    NotThereError,
    check_key,
    is_key,
    uncounted,
)

try:
    from fairway.storage.stores.gcs_connection import (
        TIMEOUT,
        ConditionError,
        GcsConnection,
        PastTheEndError,
        chunk_retries,
    )
except ImportError as err:
    raise missing_extra("google-cloud-storage", "gcs", "gs://…") from err

CHUNK_BYTES = 2 * 2**20
"""Larger files are sent in chunks of this size, each of which must be on its way within the time-out."""
DELETES_AT_ONCE = 8
CHANGES = 5
"""How often a download starts anew because the object was replaced meanwhile."""
_FIELDS = "items(name,size,updated,generation),nextPageToken"

T = TypeVar("T")


class GcsStore:
    """A `Store` on Google Cloud Storage.

    Args:
        uri: As the user gave it.
        bucket: The bucket; nobody makes it but its owner.
        prefix: Before every key; empty or with `/` at its end.

    Raises:
        UsageError: an environment variable has a value it cannot have.
    """

    def __init__(self, uri: str, bucket: str, prefix: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = bucket, prefix
        self._connection = GcsConnection(bucket)
        self._pool = ThreadPoolExecutor(DELETES_AT_ONCE, thread_name_prefix="gcs")

    def list(self, prefix: str = "") -> list[Entry]:
        """Return all files whose key starts with a prefix."""
        found: list[Entry] = []
        options: dict[str, Any] = {"prefix": self._prefix + prefix, "fields": _FIELDS}

        def page(client: Any) -> tuple[list[Any], str | None]:
            pages = client.list_blobs(self._bucket, **options, timeout=TIMEOUT, retry=None)
            return list(next(pages.pages, ())), pages.next_page_token

        while True:
            blobs, token = self._ask("list", prefix, page)
            found += [self._entry(blob) for blob in blobs]
            if not token:
                break
            options["page_token"] = token
        # The console makes empty objects "a/b/" to show a directory.
        return sorted(entry for entry in found if is_key(entry.key))

    def stat(self, key: str) -> Entry | None:
        """Return one file's entry; `None` if it is not there."""

        def reload(client: Any) -> Entry:
            blob = self._blob(client, key)
            blob.reload(timeout=TIMEOUT, retry=None)
            return self._entry(blob)

        check_key(key)
        try:
            return self._ask("read", key, reload)
        except NotThereError:
            return None

    def read(self, key: str, start: int = 0) -> bytes:
        """Return the content from a byte on."""
        check_key(key)
        options = {"start": start or None, "raw_download": True, "timeout": TIMEOUT, "retry": None}

        def get(client: Any) -> bytes:
            content: bytes = self._blob(client, key).download_as_bytes(**options)
            return content

        try:
            return self._ask("read", key, get)
        except PastTheEndError:
            return b""

    def write(self, key: str, data: bytes) -> None:
        """Write a small file whole."""
        check_key(key)
        options = {"timeout": TIMEOUT, "retry": None}
        self._ask("write", key, lambda client: self._blob(client, key).upload_from_string(data, **options))

    def create(self, key: str, data: bytes) -> None:
        """Write a file that must not exist, by a conditional PUT."""
        check_key(key)
        attempts = 0

        def put(client: Any) -> None:
            nonlocal attempts
            attempts += 1
            options = {"timeout": TIMEOUT, "retry": None}
            self._blob(client, key).upload_from_string(data, if_generation_match=0, **options)

        try:
            self._ask("write", key, put)
        except ConditionError as err:
            # An earlier attempt may have succeeded although its answer was lost.
            if attempts == 1 or self.read(key) != data:
                raise ExistsError(f"{self._uri(key)} exists already") from err

    def upload(self, source: Path, key: str, count: Count = uncounted) -> None:
        """Write a file of the disk; a large one in chunks, and what breaks off goes on with the last one."""
        check_key(key)
        with storage_errors("read", source):
            size = source.stat().st_size
            if size <= CHUNK_BYTES:
                self.write(key, source.read_bytes())
                count(size)
                return

        def send(client: Any) -> None:
            file.seek(0)
            blob = self._blob(client, key)
            blob.chunk_size = CHUNK_BYTES
            try:
                # Without a size even what would fit into one request goes in chunks.
                blob.upload_from_file(_Counted(file, count), timeout=TIMEOUT, retry=chunk_retries())
            except ValueError as err:  # the server has kept less of a chunk than it was sent
                raise ConnectionError(str(err)) from err

        with storage_errors("read", source), source.open("rb") as file:
            self._ask("write", key, send)

    def download(self, key: str, target: Path, count: Count = uncounted) -> None:
        """Write a file to the disk; what breaks off goes on from the byte that is missing."""
        check_key(key)
        with storage_errors("write", target), target.open("wb") as file:
            for _ in range(CHANGES):
                entry = self.stat(key)
                if entry is None:
                    raise NotThereError(f"there is no {self._uri(key)}")
                try:
                    self._fetch(entry, file, count)
                except (NotThereError, ConditionError):  # that generation is gone
                    file.seek(0)
                    file.truncate()
                else:
                    return
        raise StorageError(f"cannot read {self._uri(key)}: it is replaced faster than it can be read")

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, several at a time."""
        left = list(keys)
        for key in left:
            check_key(key)
        for _ in self._pool.map(self._delete_one, left):
            pass

    def _delete_one(self, key: str) -> None:
        with suppress(NotThereError):
            self._ask(
                "delete", key, lambda client: self._blob(client, key).delete(timeout=TIMEOUT, retry=None)
            )

    def _fetch(self, entry: Entry, file: BinaryIO, count: Count) -> None:
        """Write the rest of an object of a certain generation to an open file."""

        def get(client: Any) -> None:
            start = file.tell()
            if start >= entry.size:  # all has come, and yet the attempt failed: it is damaged
                start = file.seek(0)
                file.truncate()
            options = {"start": start or None, "raw_download": True, "timeout": TIMEOUT, "retry": None}
            blob = self._blob(client, entry.key, int(entry.tag))
            blob.download_to_file(_Counted(file, count), checksum=None if start else "auto", **options)

        if entry.size:
            self._ask("read", entry.key, get, progress=file.tell)

    def _ask(
        self, action: str, key: str, call: Callable[[Any], T], progress: Callable[[], object] = lambda: None
    ) -> T:
        return self._connection.ask(action, self._uri(key), call, progress)

    def _blob(self, client: Any, key: str, generation: int | None = None) -> Any:
        return client.bucket(self._bucket).blob(self._prefix + key, generation=generation)

    def _uri(self, key: str) -> str:
        return f"{self.uri}/{key}" if key else self.uri

    def _entry(self, blob: Any) -> Entry:
        key = blob.name.removeprefix(self._prefix)
        return Entry(key, int(blob.size), blob.updated.timestamp(), str(blob.generation))


class _Counted:
    """A file that tells what is read from it or written to it."""

    def __init__(self, file: BinaryIO, count: Count) -> None:
        self._file, self._count = file, count
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._count(len(content))
        return content

    def write(self, content: bytes) -> int:
        self._count(len(content))
        return self._file.write(content)
