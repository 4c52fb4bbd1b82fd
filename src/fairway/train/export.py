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

import fairway
from fairway.config import TrainSettings
from fairway.storage.exports import (
    CURVES,
    EXTRA,
    MANIFEST,
    SAVED_MODEL,
    TFLITE,
    WARMUP,
    DatasetRecord,
    Manifest,
    Version,
    describe_files,
    next_version,
    read_version,
)
from fairway.storage.files import publish_directory, scratch_directory, sha256, storage_errors
from fairway.train.checkpoints import write_errors
from fairway.train.evaluate import Evaluation
from fairway.train.precision import use_precision
from fairway.train.records import METRICS
from fairway.train.warmup import write_warmup
from fairway.workloads.base import Dataset, Signature, Workload

log = logging.getLogger(__name__)

DEFAULT_SIGNATURE = "serving_default"
PARITY = 1e-5
"""Largest difference of a probability between `model.tflite` and the SavedModel."""
PARITY_IMAGES = 256


def servable_model(workload: Workload, settings: TrainSettings, trained: keras.Model) -> keras.Model:
    """Return a float32 copy of a model that may have been trained with bfloat16 arithmetic."""
    with use_precision("float32"):
        model = workload.build_model(settings.model_type, settings.seed)
    model.set_weights(trained.get_weights())
    return model


def export_model(
    workload: Workload,
    settings: TrainSettings,
    dataset: Dataset,
    model: keras.Model,
    evaluation: Evaluation,
    *,
    run: str,
    step: int,
    seconds: float,
) -> Version:
    """Publish a version with all that DESIGN's export directory holds, and return it.

    Args:
        workload: Gives the signatures.
        settings: Resolved settings, recorded in the manifest.
        dataset: Recorded in the manifest; its test images are what parity is checked on.
        model: A float32 model.
        evaluation: Its result on the test images.
        run: The run's id.
        step: Steps trained.
        seconds: Time spent training.

    Raises:
        StorageError: the export directory cannot be written to; nothing is left there then.
    """
    export_dir = Path(settings.export_dir)
    signatures = workload.signatures(model)
    examples = dataset.test.images[:PARITY_IMAGES].astype(np.float32) / 255
    with scratch_directory(export_dir, prefix=".new-") as scratch:
        with write_errors(export_dir):
            loaded = _write_saved_model(model, signatures, scratch)
            tflite = _write_tflite(loaded, signatures, examples, scratch)
            (scratch / EXTRA).mkdir(exist_ok=True)
            first_input = signatures[DEFAULT_SIGNATURE].inputs[0].name
            write_warmup(scratch / WARMUP, workload.name, DEFAULT_SIGNATURE, {first_input: examples[:1]})
            shutil.copyfile(Path(settings.model_dir) / METRICS, scratch / CURVES)
        manifest = Manifest(
            workload=workload.name,
            model_type=settings.model_type,
            run=run,
            step=step,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=asdict(settings),
            dataset=record_dataset(dataset),
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
            signatures={name: _describe_signature(loaded.signatures[name]) for name in signatures},
            tflite=tflite,
            files=describe_files(scratch),
        )
        with storage_errors("write", export_dir):
            (scratch / MANIFEST).write_bytes(manifest.to_json())
        target = export_dir / str(next_version(export_dir))
        publish_directory(scratch, target)
    return read_version(target)


def record_dataset(dataset: Dataset) -> DatasetRecord:
    """Return what a manifest and `config.json` say of the data."""
    return DatasetRecord(
        name=dataset.name,
        source=dataset.source,
        train_images=len(dataset.train),
        test_images=len(dataset.test),
        test_name=dataset.test.name,
        sha256=dataset.sha256,
    )


def _write_saved_model(model: keras.Model, signatures: Mapping[str, Signature], directory: Path) -> Any:
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, signature in signatures.items():
        archive.add_endpoint(name, signature.function, input_signature=list(signature.inputs))
    archive.write_out(str(directory), verbose=False)
    return tf.saved_model.load(str(directory))


def _write_tflite(
    loaded: Any, signatures: Mapping[str, Signature], examples: np.ndarray, directory: Path
) -> dict[str, Any]:
    """Write `model.tflite` if it answers as the SavedModel does; return what the manifest says of it."""
    function = loaded.signatures[DEFAULT_SIGNATURE]
    name = signatures[DEFAULT_SIGNATURE].inputs[0].name
    content = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded).convert()
    runner = Interpreter(model_content=content).get_signature_runner(DEFAULT_SIGNATURE)
    expected = function(**{name: tf.constant(examples)})["predictions"].numpy()
    difference = float(np.abs(runner(**{name: examples})["predictions"] - expected).max())
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


def _describe_signature(function: Any) -> dict[str, Any]:
    """Return a loaded signature as JSON: dtype as TensorFlow Serving names it, shape with -1 for any size."""

    def describe(spec: tf.TensorSpec) -> dict[str, Any]:
        shape = [-1 if size is None else size for size in spec.shape]
        return {"dtype": tf.as_dtype(spec.dtype).as_datatype_enum, "shape": shape}

    inputs = function.structured_input_signature[1]
    outputs = function.structured_outputs
    return {
        "inputs": {name: describe(spec) for name, spec in inputs.items()},
        "outputs": {name: describe(spec) for name, spec in outputs.items()},
    }
