"""What goes on, in words: the model server, the training, the record of the served version."""

from __future__ import annotations

from typing import Any

from fairway.client.answers import ServerStatus
from fairway.client.rest import RestClient
from fairway.config import WebSettings
from fairway.errors import FairwayError, ServerError
from fairway.web.files import Files
from fairway.web.records import Training, directory_name, read_record, read_training


async def describe_server(server: RestClient) -> dict[str, Any]:
    """Return the state of the model server: `state`, `version`, and words in `message` and `hint`."""
    try:
        status = await server.status()
    except ServerError as err:
        return {"state": "down", "version": None, "message": err.message, "hint": err.hint}
    message, hint = _words(status, server.target.model_name)
    return {"state": status.state, "version": status.version, "message": message, "hint": hint}


def describe_files(
    settings: WebSettings, model_dir: Files, export_dir: Files, version: int | None
) -> dict[str, Any]:
    """Return `training` and `record` as far as their directories are at hand; reads them.

    Args:
        settings: What the directories are called.
        model_dir: That of the training.
        export_dir: That of the record.
        version: The served one; `None` if there is none.
    """
    record = read_record(export_dir, version) if version is not None else None
    training = read_training(model_dir)
    if record and training and training.state == "finished" and record["run"] == training.run:
        training = None  # it is the record's
    return {
        "training": training and _describe_training(training),
        "record": record,
        "record_note": _no_record(settings, version) if version is not None and record is None else "",
    }


def with_training(server: dict[str, Any], training: dict[str, Any] | None) -> dict[str, Any]:
    """Let the words about a server that has no model yet say what the training does."""
    if server["state"] != "empty":
        return server
    message, hint = server["message"], "Train one with: fairway train"
    if training:
        message = f"{message}: {training['message']}"
        hint = training["hint"]
    return server | {"message": message, "hint": hint}


def for_visitors(error: FairwayError) -> dict[str, str]:
    """Return `error` and `hint` for the page: visitors need not know the store and its server."""
    if _names_a_store(f"{error.message} {error.hint}"):
        return {"error": "the images cannot be read", "hint": "The log of the page says why."}
    return {"error": error.message, "hint": error.hint}


def _names_a_store(text: str) -> bool:
    return "://" in text


def _words(status: ServerStatus, model: str) -> tuple[str, str]:
    match status.state:
        case "serving":
            return f"serving {model} version {status.version}", ""
        case "loading":
            return f"loading {model} version {status.version}", "It answers as soon as it is loaded."
        case "failed":
            is_shown = status.detail and not _names_a_store(status.detail)
            reason = f": {status.detail}" if is_shown else ""
            return (
                f"version {status.version} of {model} could not be loaded{reason}",
                "Export another version with: fairway train",
            )
        case "empty":
            return "no model yet", ""


def _describe_training(training: Training) -> dict[str, Any]:
    of_total = f" of {training.total:,}" if training.total else ""
    done = f"step {training.step:,}{of_total}"
    accuracy = f", {100 * training.accuracy:.1f} %" if training.accuracy is not None else ""
    after = "It answers as soon as the training has exported a model."
    message, hint = {
        "starting": ("a training is starting", after),
        "running": (f"training, {done}{accuracy}", after),
        "stopped": (f"a training stopped at {done}{accuracy}", "Go on with: fairway train"),
        "finished": (f"a training finished at {done}", "Its model is not served here yet."),
    }[training.state]
    return {
        "state": training.state,
        "message": message,
        "hint": hint,
        "step": training.step,
        "total": training.total,
        "model_type": training.model_type,
        "curve": training.curve.as_json() if training.curve else None,
    }


def _no_record(settings: WebSettings, version: int | None) -> str:
    # Visitors need not know the bucket.
    is_uri = _names_a_store(settings.export_dir)
    where = directory_name(settings.export_dir) if is_uri else settings.export_dir
    return (
        f"No training record at hand: version {version} is not in {f'export directory {where}'.rstrip()}. "
        "Predictions work all the same; name the export directory with --export-dir."
    )
