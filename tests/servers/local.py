"""The local disk, in the shape of a server."""

from __future__ import annotations

import tempfile
from typing import Self


class LocalDisk:
    """Directories of this machine as buckets; they are removed at the end."""

    name = "local disk"
    scheme = ""
    address = None

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._home = tempfile.TemporaryDirectory(prefix="fairway-local-")

    def new_bucket(self) -> str:
        """Make an empty directory and return its path."""
        return tempfile.mkdtemp(dir=self._home.name)

    def close(self) -> None:
        """Remove all."""
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
