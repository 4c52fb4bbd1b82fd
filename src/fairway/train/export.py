"""Write a trained model as one version of an export directory, whole or not at all."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.core.protobuf import saved_model_pb2

import fairway
from fairway.config import TrainSettings
from fairway.quiet import without_notices
from fairway.storage.exports import Version, next_version, read_version
from fairway.storage.files import publish_directory, scratch_directory, sha256, storage_errors
from fairway.storage.manifest import (
    CURVES,
    EXTRA,
    MANIFEST,
    SAVED_MODEL,
    TFLITE,
    WARMUP,
    Manifest,
    describe_files,
)
from fairway.storage.model_dir import METRICS
from fairway.tfs.signatures import DEFAULT_SIGNATURE, Signature, signatures_to_json
from fairway.train.checkpoints import write_errors
from fairway.train.evaluate import Evaluation
from fairway.train.precision import use_precision
from fairway.train.state import State
from fairway.train.warmup import write_warmup
from fairway.train.workspace import Workspace
from fairway.workloads.base import Dataset, Endpoint, Workload

log = logging.getLogger(__name__)

PARITY = 1e-5
"""Largest difference of a probability between `model.tflite` and the SavedModel."""
PARITY_IMAGES = 256


def servable_model(workload: Workload, settings: TrainSettings, state: State) -> keras.Model:
    """Return a float32 model with weights that may have been trained with bfloat16 arithmetic."""
    with use_precision("float32"):
        model = workload.build_model(settings.model_type)
    state.weights.write_to(model)
    return model


def export_model(
    workload: Workload,
    settings: TrainSettings,
    dataset: Dataset,
    model: keras.Model,
    evaluation: Evaluation,
    workspace: Workspace,
    *,
    run: str,
    step: int,
    seconds: float,
) -> Version:
    """Write a version with all that an export directory promises, and return it.

    Args:
        workload: Gives the endpoints.
        settings: Resolved settings, recorded in the manifest.
        dataset: Recorded in the manifest; its test images are what parity is checked on.
        model: A float32 model.
        evaluation: Its result on the test images.
        workspace: Has the curves of the training, and gets the version.
        run: The run's id.
        step: Steps trained.
        seconds: Time spent training.

    Raises:
        StorageError: the export directory cannot be written to; nothing is left there then.
    """
    export_dir = workspace.export_dir
    endpoints = workload.endpoints(model)
    examples = dataset.test.images[:PARITY_IMAGES].astype(np.float32) / 255
    with scratch_directory(export_dir, prefix=".new-") as scratch:
        with write_errors(export_dir):
            loaded = _write_saved_model(model, endpoints, scratch)
            tflite = _write_tflite(loaded, endpoints, examples, scratch)
            (scratch / EXTRA).mkdir(exist_ok=True)
            first_input = endpoints[DEFAULT_SIGNATURE].inputs[0].name
            function = loaded.signatures[DEFAULT_SIGNATURE]
            write_warmup(
                scratch / WARMUP, workload.name, DEFAULT_SIGNATURE, function, {first_input: examples[:1]}
            )
            shutil.copyfile(workspace.model_dir / METRICS, scratch / CURVES)
        manifest = Manifest(
            workload=workload.name,
            model_type=settings.model_type,
            run=run,
            step=step,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=asdict(settings),
            dataset=dataset.record(),
            metrics={
                "test_accuracy": evaluation.accuracy,
                "test_loss": evaluation.loss,
                "train_seconds": round(seconds, 3),
                "parameters": model.count_params(),
            },
            software={
                "fairway": fairway.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            signatures=signatures_to_json(_read_signatures(scratch, endpoints)),
            tflite=tflite,
            files=describe_files(scratch),
        )
        with storage_errors("write", export_dir):
            (scratch / MANIFEST).write_bytes(manifest.to_json())
        target = export_dir / str(next_version(export_dir))
        publish_directory(scratch, target)
    return read_version(target)


def _write_saved_model(model: keras.Model, endpoints: Mapping[str, Endpoint], directory: Path) -> Any:
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, endpoint in endpoints.items():
        archive.add_endpoint(name, endpoint.function, input_signature=list(endpoint.inputs))
    archive.write_out(str(directory), verbose=False)
    return tf.saved_model.load(str(directory))


def _write_tflite(
    loaded: Any, endpoints: Mapping[str, Endpoint], examples: np.ndarray, directory: Path
) -> dict[str, Any]:
    """Write `model.tflite` if it answers as the SavedModel does; return what the manifest says of it."""
    function = loaded.signatures[DEFAULT_SIGNATURE]
    name = endpoints[DEFAULT_SIGNATURE].inputs[0].name
    with without_notices():
        content = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded).convert()
        runner = Interpreter(model_content=content).get_signature_runner(DEFAULT_SIGNATURE)
        answers = runner(**{name: examples})["predictions"]
    expected = function(**{name: tf.constant(examples)})["predictions"].numpy()
    difference = float(np.abs(answers - expected).max())
    if not difference <= PARITY:
        log.warning(
            "no %s: its answers differ from the SavedModel's by %.1e, more than %.0e; TensorFlow will serve",
            TFLITE,
            difference,
            PARITY,
        )
        return {}
    (directory / TFLITE).write_bytes(content)
    return {
        "signature": DEFAULT_SIGNATURE,
        "saved_model_sha256": sha256(directory / SAVED_MODEL),
        "max_abs_difference": difference,
    }


def _read_signatures(directory: Path, endpoints: Mapping[str, Endpoint]) -> dict[str, Signature]:
    """Return the signatures as the SavedModel has them, tensor names included."""
    saved = saved_model_pb2.SavedModel.FromString((directory / SAVED_MODEL).read_bytes())
    definitions = saved.meta_graphs[0].signature_def
    return {name: Signature.from_proto(definitions[name]) for name in endpoints}
