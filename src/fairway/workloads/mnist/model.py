"""The models for MNIST, how each is trained, augmented and called. Imports TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import layers

from fairway.workloads.base import Endpoint

SIDE = 28
CLASSES = 10


def build_cnn(seed: int) -> keras.Model:
    """Return a small convolutional network: float32 [N, 28, 28] in 0..1 -> logits float32 [N, 10].

    Its first layer turns blocks of 2x2 pixels into channels, so that all convolutions work on 14x14 and
    less: 5 to 10 times less work than the usual network on 28x28, at the same accuracy.
    """
    seeds = keras.random.SeedGenerator(seed)

    def convolve(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        initializer = keras.initializers.HeNormal(seed=seeds)
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=initializer)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU()(x)

    image = keras.Input((SIDE, SIDE), name="x")
    x = layers.Reshape((SIDE // 2, 2, SIDE // 2, 2))(image)
    x = layers.Permute((1, 3, 2, 4))(x)
    x = layers.Reshape((SIDE // 2, SIDE // 2, 4))(x)
    x = convolve(x, 32)
    x = layers.MaxPooling2D(2)(x)
    x = convolve(x, 64)
    x = convolve(x, 64)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    initializer = keras.initializers.GlorotUniform(seed=seeds)
    logits = layers.Dense(CLASSES, dtype="float32", kernel_initializer=initializer, name="logits")(x)
    return keras.Model(image, logits, name="cnn")


def build_linear(seed: int) -> keras.Model:
    """Return softmax regression: float32 [N, 28, 28] in 0..1 -> logits float32 [N, 10]."""
    image = keras.Input((SIDE, SIDE), name="x")
    x = layers.Flatten()(image)
    initializer = keras.initializers.GlorotUniform(seed=seed)
    logits = layers.Dense(CLASSES, dtype="float32", kernel_initializer=initializer, name="logits")(x)
    return keras.Model(image, logits, name="linear")


BUILDERS = {"cnn": build_cnn, "linear": build_linear}


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shift, turn, scale and shear each image a little.

    Args:
        images: float32 [N, 28, 28].
        seed: int32 [2]; the same seed gives the same variation.

    Returns:
        float32 [N, 28, 28], the same digits as somebody else might have written them.
    """
    count = tf.shape(images)[0]

    def draw(index: int, limit: float) -> tf.Tensor:
        return tf.random.stateless_uniform([count], seed + tf.constant((0, index)), -limit, limit)

    angle, shear = draw(0, 10 * 3.14159 / 180), draw(1, 0.1)
    scale_x, scale_y = 1 + draw(2, 0.1), 1 + draw(3, 0.1)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Each output pixel (x, y) is read at (a x + b y + c, d x + e y + f), about the centre of the image.
    a, b = cos * scale_x, (shear - sin) * scale_x
    d, e = sin * scale_y, cos * scale_y
    centre = (SIDE - 1) / 2
    c = centre - (a + b) * centre + draw(4, 2.0)
    f = centre - (d + e) * centre + draw(5, 2.0)
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
