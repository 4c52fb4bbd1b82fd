"""Build the models that the server's tests serve: `python build_models.py DIRECTORY`.

A program of its own, so that TensorFlow and its warnings stay out of the test process. It writes:

    digits/            MNIST-shaped, with model.tflite, warm-up records with answers, and the signatures
                       serving_default and classify_png
    half_plus_two/     y = x / 2 + 2, with model.tflite
    half_plus_three/   y = x / 2 + 3, likewise
    foreign/           y = x / 2 + 2 as a SavedModel alone, as another program would write it
    documented/        the models of TensorFlow Serving's documentation, as it builds them: by TensorFlow 1,
                       with signatures for tf.Example. The base paths half_plus_two and half_plus_three,
                       each with the version 00000123
    expected.npz       images, and what TensorFlow says of them
"""

# TensorFlow has no types.
# mypy: disable-error-code="misc,untyped-decorator,no-any-return"

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from fairway.storage.files import sha256
from fairway.storage.manifest import (
    EXTRA,
    MANIFEST,
    SAVED_MODEL,
    TFLITE,
    WARMUP,
    DatasetRecord,
    Manifest,
    describe_files,
)
from fairway.tfs.signatures import DEFAULT_SIGNATURE, Signature, signatures_to_json
from fairway.train.warmup import write_warmup


class Digits(tf.Module):
    """A convolution, a dense layer, and PNGs as a second way in."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.kernel = tf.Variable(generator.normal(size=(5, 5, 1, 4)).astype(np.float32))
        self.dense = tf.Variable(generator.normal(size=(4 * 6 * 6, 10)).astype(np.float32) / 5)

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.float32, name="x")])
    def classify(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.nn.relu(tf.nn.conv2d(x[..., None], self.kernel, 4, "VALID"))
        predictions = tf.nn.softmax(tf.matmul(tf.reshape(features, [-1, 4 * 6 * 6]), self.dense))
        return {"classes": tf.argmax(predictions, -1), "predictions": predictions}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def classify_png(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def decode(data: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.io.decode_png(data, channels=1)[..., 0], [28, 28])

        pixels = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([28, 28], tf.uint8))
        return self.classify(tf.cast(pixels, tf.float32) / 255)


class HalfPlus(tf.Module):
    """TensorFlow Serving's example: y = x / 2 + b."""

    def __init__(self, b: float) -> None:
        self.a = tf.Variable(0.5)
        self.b = tf.Variable(b)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * self.a + self.b}


def export(
    module: tf.Module, signatures: dict[str, tf.types.experimental.GenericFunction], path: Path
) -> None:
    """Write an export as `fairway train` does: SavedModel, model.tflite and manifest."""
    tf.saved_model.save(module, str(path), signatures=signatures)
    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures[DEFAULT_SIGNATURE]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], loaded)
    (path / TFLITE).write_bytes(converter.convert())
    (path / EXTRA).mkdir()
    write_warmup(path / WARMUP, "m", DEFAULT_SIGNATURE, function, {"x": example(function)})
    definitions = saved_model_pb2.SavedModel.FromString((path / SAVED_MODEL).read_bytes())
    found = definitions.meta_graphs[0].signature_def
    manifest = Manifest(
        workload="test",
        model_type="tiny",
        run=path.name,
        step=1,
        created="2026-01-01T00:00:00+00:00",
        settings={},
        dataset=DatasetRecord(
            name="none", source="", train_images=0, test_images=0, test_name="nothing", sha256={}
        ),
        metrics={"test_accuracy": 0.5},
        software={"tensorflow": tf.__version__},
        signatures=signatures_to_json({name: Signature.from_proto(found[name]) for name in signatures}),
        tflite={
            "signature": "serving_default",
            "saved_model_sha256": sha256(path / SAVED_MODEL),
            "max_abs_difference": 0.0,
        },
        files=describe_files(path),
    )
    (path / MANIFEST).write_bytes(manifest.to_json())


def export_documented(path: Path, b: float, names: dict[str, str]) -> None:
    """Write y = x / 2 + b, y2 = x / 2 + 3 and y3 = x2 / 2 + 3 as TensorFlow Serving's own test models.

    The graph and its names are those of
    https://github.com/tensorflow/serving/blob/master/tensorflow_serving/servables/tensorflow/testdata/saved_model_half_plus_two.py

    Args:
        path: The version's directory.
        b: What is added.
        names: Signatures to write, and which of the model's ways each takes: "x y" from `x` to `y`.
    """
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        a, shift, c = (v1.Variable(value, name=name) for value, name in ((0.5, "a"), (b, "b"), (3.0, "c")))
        tensors = {"example": v1.placeholder(tf.string, name="tf_example")}
        column = tf.io.FixedLenFeature([1], tf.float32)
        optional = tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0])
        features = v1.parse_example(tensors["example"], {"x": column, "x2": optional})
        for name in ("x", "x2"):
            # Fed with a shape of its own all the same: nothing checks what is put in the place of a tensor.
            tensors[name] = tf.identity(tf.ensure_shape(features[name], [None, 1]), name=name)
        for name, value in (
            ("y", a * tensors["x"] + shift),
            ("y2", a * tensors["x"] + c),
            ("y3", a * tensors["x2"] + c),
        ):
            tensors[name] = tf.identity(value, name=name)
        session.run(v1.global_variables_initializer())
        signatures = {name: _documented_signature(tensors, *way.split()) for name, way in names.items()}
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
    builder.save()


def _documented_signature(tensors: dict[str, tf.Tensor], method: str, source: str, target: str) -> Any:
    inputs = source if method == "predict" else "inputs"
    outputs = {"predict": target, "regress": "outputs", "classify": "scores"}[method]
    info = tf.compat.v1.saved_model.build_tensor_info
    return tf.compat.v1.saved_model.build_signature_def(
        {inputs: info(tensors[source])}, {outputs: info(tensors[target])}, f"tensorflow/serving/{method}"
    )


def write_documented(directory: Path) -> None:
    """Write the models of TensorFlow Serving's documentation and tests."""
    export_documented(
        directory / "half_plus_two" / "00000123",
        2.0,
        {
            "serving_default": "predict x y",
            "regress_x_to_y": "regress example y",
            "regress_x_to_y2": "regress example y2",
            "regress_x2_to_y3": "regress x2 y3",
            "classify_x_to_y": "classify example y",
            "classify_x2_to_y3": "classify x2 y3",
        },
    )
    export_documented(
        directory / "half_plus_three" / "00000123",
        3.0,
        {"serving_default": "predict x y", "tensorflow/serving/regress": "regress example y"},
    )


def example(function: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a row of random numbers for a signature's input `x`."""
    shape = function.structured_input_signature[1]["x"].shape
    return np.random.default_rng(2).random((1, *shape[1:]), dtype=np.float32)


def write_expected(module: Digits, path: Path) -> None:
    """Record what TensorFlow says of random images, and of one as a PNG."""
    images = np.random.default_rng(1).integers(0, 256, (64, 28, 28), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "png")
    answer = module.classify(tf.constant(images.astype(np.float32) / 255))
    np.savez(
        path,
        images=images,
        png=np.frombuffer(file.getvalue(), np.uint8),
        classes=answer["classes"].numpy(),
        predictions=answer["predictions"].numpy(),
    )


def main(directory: Path) -> None:
    """Build all models."""
    digits = Digits()
    export(
        digits,
        {"serving_default": digits.classify, "classify_png": digits.classify_png},
        directory / "digits",
    )
    write_expected(digits, directory / "expected.npz")
    for name, b in (("half_plus_two", 2.0), ("half_plus_three", 3.0)):
        half = HalfPlus(b)
        export(half, {"serving_default": half.predict}, directory / name)
    half = HalfPlus(2.0)
    tf.saved_model.save(half, str(directory / "foreign"), signatures={"serving_default": half.predict})
    write_documented(directory / "documented")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
