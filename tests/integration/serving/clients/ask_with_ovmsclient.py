"""Ask a model server with `ovmsclient`: `python ask_with_ovmsclient.py REST GRPC` prints the replies as JSON.

Addresses are HOST:PORT. Models: `half_plus_two` with version 123, `digits` with version 1. A version is
always given: where none is, this client asks for version 0, which only its own server takes for the newest.
"""

# It runs where only the client is, which has no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003

import json
import sys

import numpy as np
import ovmsclient


def ask(client) -> dict:
    """Return what a client of either kind is told."""
    return {
        "status": client.get_model_status(model_name="half_plus_two", model_version=123),
        "metadata": client.get_model_metadata(model_name="half_plus_two", model_version=123),
        "predict": client.predict(
            inputs={"x": np.array([[1.0], [2.0], [5.0]], np.float32)},
            model_name="half_plus_two",
            model_version=123,
        ).tolist(),
        "several outputs": {
            name: value.tolist()
            for name, value in client.predict(
                inputs={"x": np.full((2, 28, 28), 0.5, np.float32)}, model_name="digits", model_version=1
            ).items()
        },
        "errors": {
            "unknown model": reason(client.predict, inputs={"x": [1.0]}, model_name="no", model_version=1),
            "unknown version": reason(client.get_model_status, model_name="half_plus_two", model_version=7),
            "wrong input": reason(
                client.predict, inputs={"z": [1.0]}, model_name="half_plus_two", model_version=123
            ),
        },
    }


def reason(method, **arguments) -> list[str]:
    """Return the client's error for a request that is refused."""
    try:
        method(**arguments)
    except ovmsclient.ModelServerError as err:
        return [type(err).__name__, str(err)]
    return []


if __name__ == "__main__":
    rest, grpc = sys.argv[1:]
    told = {"rest": ask(ovmsclient.make_http_client(rest)), "grpc": ask(ovmsclient.make_grpc_client(grpc))}
    print(json.dumps(told))  # noqa: T201
