"""gcp-storage-emulator: Google Cloud Storage in memory; ignores preconditions and credentials."""

from __future__ import annotations

from http.server import HTTPServer
from uuid import uuid4

import httpx

from tests.servers.process import ServerProcess, inherited_socket


class GcsEmulator(ServerProcess):
    """A gcp-storage-emulator."""

    name = "gcp-storage-emulator"
    scheme = "gs"

    def __init__(self) -> None:
        super().__init__("tests.servers.gcs")
        self.environment = {
            "STORAGE_EMULATOR_HOST": f"http://{self.endpoint}",
            "NO_GCE_CHECK": "true",  # do not look for Google's metadata server
            "CLOUDSDK_CONFIG": "/dev/null",  # nor for credentials of gcloud
        }

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URI."""
        name = f"fairway-{uuid4().hex[:12]}"
        httpx.post(f"http://{self.endpoint}/storage/v1/b", json={"name": name}).raise_for_status()
        return f"gs://{name}"


def serve() -> None:
    """Serve on the inherited socket until a signal comes; one request at a time, as the emulator does."""
    from functools import partial

    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    listener = inherited_socket()
    handler = partial(RequestHandler, Storage(use_memory_fs=True))
    server = HTTPServer(listener.getsockname(), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever()


if __name__ == "__main__":
    serve()
