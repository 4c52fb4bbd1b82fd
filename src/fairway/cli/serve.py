"""`fairway serve`."""

from __future__ import annotations

from fairway.config import ServeSettings


def serve(settings: ServeSettings = ServeSettings()) -> None:  # noqa: B008 - frozen
    """Serve the newest version in an export directory over TensorFlow Serving's REST API.

    New versions are picked up while it runs; an empty directory is waited for. Of s3://… and gs://…
    the newest versions are kept on this machine, and serve on while the store is away. The flags
    are those of tensorflow_model_server. SIGTERM and Ctrl-C end it after the requests in flight.

    For example:

        fairway serve
        fairway serve --model_base_path linear/export --rest_api_port 0
        fairway serve --model_base_path s3://models/mnist --file_system_poll_wait_seconds 30
        curl http://localhost:8500/v1/models/mnist

    See also: fairway models, fairway sync, fairway train, fairway up
    """
    from fairway.serve.server import run

    run(settings)
