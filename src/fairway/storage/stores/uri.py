"""Where a directory lies: a path, `file:///path`, `s3://bucket/prefix` or `gs://bucket/prefix`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fairway.errors import UsageError
from fairway.storage.stores.store import Store

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def local_path(uri: str) -> Path | None:
    """Return the path of a directory on this machine; `None` for one in an object store.

    Raises:
        UsageError: the URI's scheme is unknown, it names no bucket, or the home of nobody.
    """
    match = _SCHEME.match(uri)
    if match is None:
        try:
            return Path(uri).expanduser()
        except RuntimeError as err:
            raise UsageError(
                f"{uri} lies in the home of a user who does not exist",
                hint=f"Write ./{uri} if it is a directory of this name.",
            ) from err
    scheme = match[1].lower()
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError(
                f"{uri} does not name a directory of this machine",
                hint="Write file:///path, with three slashes, or the path alone.",
            )
        return Path(unquote(parts.path))
    split_uri(uri)
    return None


def split_uri(uri: str) -> tuple[str, str, str]:
    """Return scheme (`s3` or `gs`), bucket and prefix of a URI; the prefix is empty or ends with `/`.

    Raises:
        UsageError: the scheme is another one, or there is no bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    scheme, prefix = scheme.lower(), prefix.strip("/")
    if scheme not in ("s3", "gs"):
        raise UsageError(
            f"{uri} has the unknown scheme {scheme!r}",
            hint="Have: a path, file:///path, s3://bucket/prefix, gs://bucket/prefix.",
        )
    if "@" in bucket:
        raise UsageError(
            f"no bucket of an {scheme}:// URI has an @ in its name",
            hint="Credentials do not belong there; see docs/reference/storage.md.",
        )
    if not bucket:
        raise UsageError(f"{uri} names no bucket", hint=f"Write {scheme}://bucket/prefix.")
    return scheme, bucket, f"{prefix}/" if prefix else ""


def join_uri(uri: str, name: str) -> str:
    """Return the URI of something in the directory that a URI names."""
    return f"{uri.rstrip('/')}/{name}"


def open_store(uri: str) -> Store:
    """Return the store of a URI; nothing is asked of it yet.

    Raises:
        UsageError: the URI is not one.
        FairwayError: the extra for its kind of store is not installed, or a credential is unusable.
    """
    path = local_path(uri)
    if path is not None:
        from fairway.storage.stores.local import LocalStore

        return LocalStore(uri, path)
    scheme, bucket, prefix = split_uri(uri)
    if scheme == "s3":
        from fairway.storage.stores.s3 import S3Store

        return S3Store(uri.rstrip("/"), bucket, prefix)
    from fairway.storage.stores.gcs import GcsStore

    return GcsStore(uri.rstrip("/"), bucket, prefix)
