"""A prefix in a bucket of S3, or of a server that speaks its protocol, as a store."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fairway.errors import StorageError, missing_extra
from fairway.storage.files import storage_errors
from fairway.storage.stores.s3_parts import (
    PART_BYTES,
    PARTS_AT_ONCE,
    at_once,
    description,
    part_size,
    read_part,
    tag_of,
    write_at,
)
from fairway.storage.stores.s3_settings import explain, s3_settings
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
    from fairway.storage.stores.s3_connection import (
        ConditionError,
        PastTheEndError,
        S3Connection,
        UnknownRequestError,
    )
    from fairway.storage.stores.s3_errors import raise_refusal
except ImportError as err:
    raise missing_extra("boto3", "s3", "s3://…") from err

CHUNK_BYTES = 2**18
DELETE_BATCH = 100
"""S3 takes 1000, but Swift then needs longer than the wait for an answer: 10 s, about 10 ms for each."""
CHANGES = 5
"""How often a download starts anew because the object was replaced meanwhile."""


T = TypeVar("T")


class S3Store:
    """A `Store` on S3.

    Args:
        uri: As the user gave it.
        bucket: The bucket; nobody makes it but its owner.
        prefix: Before every key; empty or with `/` at its end.

    Raises:
        UsageError: an environment variable has a value it cannot have.
        StorageError: the profile is unusable.
    """

    def __init__(self, uri: str, bucket: str, prefix: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = bucket, prefix
        settings = s3_settings()
        explain(settings)
        self._connection = S3Connection(settings, bucket)
        self._pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="s3")
        self._has_batches = True

    def list(self, prefix: str = "") -> list[Entry]:
        """Return all files whose key starts with a prefix."""
        found: list[Entry] = []
        options: dict[str, str] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            page = self._ask("list", prefix, lambda client: client.list_objects_v2(**options))
            found += [self._entry(each["Key"], each["Size"], each) for each in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                break
            options["ContinuationToken"] = page["NextContinuationToken"]
        # The consoles of some stores make empty objects "a/b/" to show a directory.
        return sorted(entry for entry in found if is_key(entry.key))

    def stat(self, key: str) -> Entry | None:
        """Return one file's entry; `None` if it is not there."""
        where = self._where(key)
        try:
            found = self._ask("read", key, lambda client: client.head_object(**where))
        except NotThereError:
            return None
        return self._entry(where["Key"], found["ContentLength"], found)

    def read(self, key: str, start: int = 0) -> bytes:
        """Return the content from a byte on."""
        where = self._where(key)
        part = {"Range": f"bytes={start}-"} if start else {}

        def get(client: Any) -> bytes:
            answer = client.get_object(**where, **part)
            content: bytes = answer["Body"].read()
            return content if "ContentRange" in answer else content[start:]

        try:
            return self._ask("read", key, get)
        except PastTheEndError:
            return b""

    def write(self, key: str, data: bytes) -> None:
        """Write a small file whole."""
        where = self._where(key)
        self._ask("write", key, lambda client: client.put_object(**where, Body=io.BytesIO(data)))

    def create(self, key: str, data: bytes) -> None:
        """Write a file that must not exist, by a conditional PUT."""
        where, attempts = self._where(key), 0

        def put(client: Any) -> None:
            nonlocal attempts
            attempts += 1
            client.put_object(**where, Body=io.BytesIO(data), IfNoneMatch="*")

        exists = ExistsError(f"{self._uri(key)} exists already")
        try:
            self._ask("write", key, put)
        except ConditionError as err:
            # An earlier attempt may have succeeded although its answer was lost.
            if attempts == 1 or self.read(key) != data:
                raise exists from err
        # Swift looks at the condition before it takes the content, so writers at the same moment all succeed
        # (in half of the trials with two), and the last one's content stays.
        if not self._connection.is_aws and self.read(key) != data:
            raise exists

    def upload(self, source: Path, key: str, count: Count = uncounted) -> None:
        """Write a file of the disk; a large one in parts, which become visible together."""
        where = self._where(key)
        with storage_errors("read", source):
            size = source.stat().st_size
            if size > PART_BYTES:
                self._upload_parts(source, size, key, count)
                return
            self._ask(
                "write", key, lambda client: client.put_object(**where, Body=read_part(source, 0, size))
            )
            count(size)

    def download(self, key: str, target: Path, count: Count = uncounted) -> None:
        """Write a file to the disk; a large one in parts, all of the same state of the object."""
        check_key(key)
        with storage_errors("write", target), target.open("wb") as file:
            for _ in range(CHANGES):
                try:
                    self._copy(key, file.fileno(), count)
                except ConditionError:
                    file.truncate(0)
                except PastTheEndError:
                    return  # an empty object has no first byte
                else:
                    return
        raise StorageError(f"cannot read {self._uri(key)}: it is replaced faster than it can be read")

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, many with one request where the server can."""
        left = list(keys)
        for key in left:
            check_key(key)
        while left:
            batch, left = left[:DELETE_BATCH], left[DELETE_BATCH:]
            if self._has_batches and len(batch) > 1:
                self._has_batches = self._delete_batch(batch)
            if not self._has_batches or len(batch) == 1:
                for key in batch:
                    self._delete_one(key)

    def _copy(self, key: str, descriptor: int, count: Count) -> None:
        tag, size = self._fetch(key, descriptor, 0, None, count)

        def fetch(start: int) -> None:
            self._fetch(key, descriptor, start, tag, count)

        at_once(self._pool, fetch, range(PART_BYTES, size, PART_BYTES))

    def _fetch(self, key: str, descriptor: int, start: int, tag: str | None, count: Count) -> tuple[str, int]:
        """Write one part of an object to its place in an open file; return the object's ETag and size.

        What breaks off goes on from the byte that is missing. The object must have the ETag `tag`, if any.
        """
        where, at, size = self._where(key), start, 0

        def get(client: Any) -> None:
            nonlocal at, size, tag
            condition = {"IfMatch": tag} if tag else {}
            answer = client.get_object(**where, Range=f"bytes={at}-{start + PART_BYTES - 1}", **condition)
            tag, size = answer["ETag"], answer["ContentLength"]
            if "ContentRange" in answer:
                size = int(answer["ContentRange"].rpartition("/")[2])
            else:
                at = 0  # a server that knows no ranges sends the whole
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                write_at(descriptor, chunk, at)
                at += len(chunk)
                count(len(chunk))

        self._ask("read", key, get, progress=lambda: at)
        return tag or "", size

    def _upload_parts(self, source: Path, size: int, key: str, count: Count) -> None:
        where = self._where(key)
        upload = self._ask("write", key, lambda client: client.create_multipart_upload(**where))["UploadId"]
        step = part_size(size)

        def send(start: int) -> dict[str, Any]:
            number = start // step + 1

            def put(client: Any) -> dict[str, Any]:
                body = read_part(source, start, step)
                return description(
                    number, client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
                )

            part = self._ask("write", key, put)
            count(min(step, size - start))
            return part

        try:
            parts = at_once(self._pool, send, range(0, size, step))
            self._complete(key, upload, parts)
        except BaseException:
            self._connection.try_once(lambda client: client.abort_multipart_upload(**where, UploadId=upload))
            raise

    def _complete(self, key: str, upload: str, parts: Sequence[dict[str, Any]]) -> None:
        """Make an upload visible; where it is gone, an earlier attempt has, although its answer was lost."""
        where = self._where(key) | {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
        try:
            self._ask("write", key, lambda client: client.complete_multipart_upload(**where))
        except NotThereError:
            entry = self.stat(key)
            if entry is None or entry.tag != tag_of(parts):
                raise

    def _delete_one(self, key: str) -> None:
        where = self._where(key)
        self._ask("delete", key, lambda client: client.delete_object(**where))

    def _delete_batch(self, keys: Sequence[str]) -> bool:
        """Delete with one request; tell whether the server knows such requests."""
        objects = [{"Key": self._prefix + key} for key in keys]

        def delete(client: Any) -> None:
            answer = client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
            raise_refusal(answer)

        try:
            self._ask("delete", "", delete)
        except UnknownRequestError:
            return False
        return True

    def _ask(
        self, action: str, key: str, call: Callable[[Any], T], progress: Callable[[], object] = lambda: None
    ) -> T:
        return self._connection.ask(action, self._uri(key), call, progress)

    def _where(self, key: str) -> dict[str, Any]:
        check_key(key)
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _uri(self, key: str) -> str:
        return f"{self.uri}/{key}" if key else self.uri

    def _entry(self, name: str, size: int, found: dict[str, Any]) -> Entry:
        key = name.removeprefix(self._prefix)
        return Entry(key, size, found["LastModified"].timestamp(), found["ETag"].strip('"'))
