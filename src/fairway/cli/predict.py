"""`fairway predict`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fairway.cli.output import table
from fairway.config import PredictSettings
from fairway.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fairway.client.answers import Client, Prediction

STDIN = "-"
# A digit that the model gives less than this is more likely another one.
_UNSURE = 0.5
_YELLOW = 33


def predict(
    *images: Annotated[
        str,
        Parameter(
            help="Pictures of one digit each: PNG, JPEG or whatever else Pillow reads; - is stdin.",
            required=True,
            allow_leading_hyphen=True,
        ),
    ],
    settings: PredictSettings = PredictSettings(),  # noqa: B008 - frozen
) -> None:
    """Ask a model server which digits pictures show.

    A picture may be a photo or a drawing of any size, dark on light or light on dark: it is cropped,
    centred and scaled to MNIST's 28 by 28 pixels as the web UI does it. All files are read before the
    first is sent. Each is a request of its own, one after the other over one connection: the latency is
    that of one prediction as a client sees it, without the time to connect and to prepare the picture.
    If the server fails at one of them, the command fails.

    For example:

        fairway predict seven.png
        fairway predict *.jpg --server mnist-service:8500 -o json
        fairway predict seven.png --grpc --server mnist-service:9000

    See also: fairway serve, fairway web
    """
    import asyncio

    for image in images:
        if image.startswith("-") and image != STDIN:
            raise UsageError(
                f"unknown option {image}",
                hint=f"See: fairway predict --help. A file of that name is ./{image}",
            )
    prepared = [_prepare(image) for image in images]
    answers = asyncio.run(_ask(settings, prepared))
    if settings.output == "json":
        records = [_record(image, answer) for image, answer in zip(images, answers, strict=True)]
        print(json.dumps(records, indent=2))
    else:
        print(_table(images, answers))


def _prepare(image: str) -> NDArray[np.float32]:
    """Return a picture as the model's input.

    Raises:
        DataError: it cannot be read, or is none of a digit; the message names it.
    """
    from fairway.client.pictures import scaled, see

    try:
        data = sys.stdin.buffer.read() if image == STDIN else Path(image).read_bytes()
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise DataError(f"{image} cannot be read: {reason}", hint="Name a picture of a digit.") from err
    try:
        return scaled(see(data, any_format=True))
    except DataError as err:
        raise DataError(f"{image}: {err.message}", hint=err.hint) from err


async def _ask(settings: PredictSettings, images: Sequence[NDArray[np.float32]]) -> list[Prediction]:
    client = _connect(settings)
    try:
        return [await client.predict(image) for image in images]
    finally:
        await client.close()


def _connect(settings: PredictSettings) -> Client:
    selection: dict[str, Any] = {"version": settings.model_version, "label": settings.version_label or ""}
    if settings.grpc:
        from fairway.net.grpc_log import silence

        silence()
        from fairway.client import grpc

        return grpc.GrpcClient(settings.server or f"127.0.0.1:{grpc.PORT}", settings.model_name, **selection)
    from fairway.client import rest

    return rest.RestClient(settings.server or f"127.0.0.1:{rest.PORT}", settings.model_name, **selection)


def _record(image: str, answer: Prediction) -> dict[str, Any]:
    return {
        "file": image,
        "digit": answer.digit,
        "probabilities": answer.probabilities,
        "version": answer.version,
        "latency_ms": round(1000 * answer.seconds, 3),
    }


def _table(images: Sequence[str], answers: Sequence[Prediction]) -> str:
    """Return a line per picture, numbers under each other; on a terminal what is unsure is yellow."""
    cells = [["FILE", "DIGIT", "PROBABILITY", "VERSION", "LATENCY"]]
    latencies = [f"{1000 * answer.seconds:.1f} ms" for answer in answers]
    width = max(map(len, latencies))
    for image, answer, latency in zip(images, answers, latencies, strict=True):
        probability = f"{answer.probabilities[answer.digit]:7.2%}"
        cells.append(
            [_printable(image), str(answer.digit), probability, str(answer.version), latency.rjust(width)]
        )
    header, *lines = table(cells).splitlines()
    return "\n".join([header, *map(_painted, lines, answers)])


def _printable(name: str) -> str:
    return name if name.isprintable() else json.dumps(name)


def _painted(line: str, answer: Prediction) -> str:
    is_plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    is_sure = answer.probabilities[answer.digit] >= _UNSURE
    return line if is_plain or is_sure else f"\x1b[{_YELLOW}m{line}\x1b[0m"
