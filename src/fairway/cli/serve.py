"""`fairway serve`."""

from __future__ import annotations

from fairway.config import ServeSettings


def serve(settings: ServeSettings = ServeSettings()) -> None:  # noqa: B008 - frozen
    """Serve models over TensorFlow Serving's REST and gRPC APIs.

    New versions are picked up while it runs; an empty directory is waited for. Of s3://… and gs://…
    what serves is kept on this machine, and serves on while the store is away. The flags are those of
    tensorflow_model_server. SIGTERM and Ctrl-C end it after the requests in flight.

    For example:

        fairway serve
        fairway serve --model_base_path linear/export --rest_api_port 0 --port 0
        fairway serve --model_base_path s3://models/mnist --file_system_poll_wait_seconds 30
        fairway serve --workers 4
        fairway serve --model_config_file models.config --model_config_file_poll_wait_seconds 30
        curl http://localhost:8500/v1/models/mnist

    Several models, with versions and labels of their own, in models.config:

        model_config_list {
          config { name: "mnist" base_path: "/models/mnist"
                   model_version_policy { specific { versions: 1 versions: 2 } }
                   version_labels { key: "stable" value: 1 } }
          config { name: "linear" base_path: "s3://models/linear" }
        }

    See also: fairway predict, fairway models, fairway sync, fairway train, fairway up
    """
    from fairway.serve.server import run

    run(settings)
