"""moto: S3 in memory; quick, takes any credentials."""

from __future__ import annotations

from uuid import uuid4

from tests.servers.process import ServerProcess, inherited_socket
from tests.servers.s3 import make_bucket, s3_environment


class Moto(ServerProcess):
    """A moto server."""

    name = "moto"
    scheme = "s3"

    def __init__(self) -> None:
        super().__init__("tests.servers.moto", "/moto-api/")
        self.environment = s3_environment(self.endpoint, "access", "secret")

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URI."""
        return make_bucket(self.environment, f"fairway-{uuid4().hex[:12]}")


def serve() -> None:
    """Serve on the inherited socket until a signal comes."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    listener = inherited_socket()
    host, port = listener.getsockname()
    make_server(
        host,
        port,
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=MotoRequestHandler,
        fd=listener.fileno(),
    ).serve_forever()


if __name__ == "__main__":
    serve()
