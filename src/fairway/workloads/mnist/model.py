"""The models for MNIST, how each is trained, augmented and called. Imports TensorFlow."""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from keras import layers

from fairway.workloads.base import Endpoint

SIDE = 28
CLASSES = 10
# How far `augment` goes: radians, share of the width per height, log of the factor, pixels.
MAX_TURN, MAX_SHEAR, MAX_SCALE, MAX_SHIFT = math.radians(10), 0.1, 0.1, 1.0


def build_cnn() -> keras.Model:
    """Return a small convolutional network: float32 [N, 28, 28] in 0..1 -> logits float32 [N, 10].

    It costs a tenth of the usual network on 28x28 at the same accuracy: blocks of 2x2 pixels become
    channels first, pooling comes before normalisation, which then works on a quarter of the values, and the
    last, widest convolution leaves out the border.
    """
    image = keras.Input((SIDE, SIDE), name="x")
    x = layers.Reshape((SIDE // 2, 2, SIDE // 2, 2))(image)
    x = layers.Permute((1, 3, 2, 4))(x)
    x = layers.Reshape((SIDE // 2, SIDE // 2, 4))(x)
    x = _convolve(x, 32, pool=2)  # 7 x 7
    x = _convolve(x, 64)
    x = _convolve(x, 128, pool=3, padding="valid")  # 2 x 2
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(CLASSES, dtype="float32", name="logits")(x), name="cnn")


def build_linear() -> keras.Model:
    """Return softmax regression: float32 [N, 28, 28] in 0..1 -> logits float32 [N, 10]."""
    image = keras.Input((SIDE, SIDE), name="x")
    x = layers.Flatten()(image)
    return keras.Model(image, layers.Dense(CLASSES, dtype="float32", name="logits")(x), name="linear")


def _convolve(
    x: keras.KerasTensor, filters: int, *, pool: int | None = None, padding: str = "same"
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 3, padding=padding, use_bias=False)(x)
    if pool:
        x = layers.MaxPooling2D(pool, strides=2)(x)
    # Keras's momentum of 0.99 would still remember the first steps after one epoch.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x)


BUILDERS = {"cnn": build_cnn, "linear": build_linear}


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shift, turn, scale and shear each image a little.

    Args:
        images: float32 [N, 28, 28].
        seed: int32 [2]; the same seed gives the same variation.

    Returns:
        float32 [N, 28, 28], the same digits as somebody else might have written them.
    """
    draws = tf.random.stateless_uniform([tf.shape(images)[0], 6], seed, -1.0, 1.0)
    turn, wide, high, lean, right, down = tf.unstack(draws, axis=1)
    angle, shear = turn * MAX_TURN, lean * MAX_SHEAR
    width, height = tf.exp(wide * MAX_SCALE), tf.exp(high * MAX_SCALE)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Each output pixel (x, y) is read at (a x + b y + c, d x + e y + f), about the centre of the image.
    a, b = cos * width, (cos * shear - sin) * height
    d, e = sin * width, (sin * shear + cos) * height
    centre = (SIDE - 1) / 2
    c = centre * (1 - a - b) + right * MAX_SHIFT
    f = centre * (1 - d - e) + down * MAX_SHIFT
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images[..., None],
        transforms=tf.stack([a, b, c, d, e, f, zero, zero], axis=1),
        output_shape=[SIDE, SIDE],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[..., 0]


def endpoints(model: keras.Model) -> dict[str, Endpoint]:
    """Return `serving_default` (pixels) and `classify_png` (image files) for an exported model."""

    def classify(x: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(model(x, training=False))
        return {"classes": tf.argmax(probabilities, axis=-1), "predictions": probabilities}

    def decode(image_bytes: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(image_bytes, channels=1, expand_animations=False)
        pixels.set_shape([None, None, 1])
        return tf.image.resize(pixels, [SIDE, SIDE], antialias=True)[..., 0] / 255

    def classify_png(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32))

    return {
        "serving_default": Endpoint(classify, (tf.TensorSpec([None, SIDE, SIDE], tf.float32, "x"),)),
        "classify_png": Endpoint(classify_png, (tf.TensorSpec([None], tf.string, "image_bytes"),)),
    }
