"""The tail as it is trained, against Keras's own layers and TensorFlow's own gradients."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from train.demo import network as demo
from train.features import backbone as model
from train.features.tail import Tail, pooled_relu, training_form


def values_and_gradients(part: model.Cut, tail: Callable[[list[tf.Tensor]], tf.Tensor]) -> list[np.ndarray]:
    """What a tail gives for some images, and the gradients of its squares for each weight of the part."""
    images = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    crossing = part.frozen(images, training=False)
    weights = [weight.value for weight in part.tail.trainable_weights]
    with tf.GradientTape() as tape:
        found = tail(crossing)
        loss = tf.reduce_sum(found**2)
    gradients = tape.gradient(loss, weights)
    return [found.numpy(), *(gradient.numpy() for gradient in gradients)]


def kerass(part: model.Cut, head: keras.Layer) -> list[np.ndarray]:
    """The same by Keras's layers as they are."""

    def tail(crossing: list[tf.Tensor]) -> tf.Tensor:
        return head(keras.ops.mean(keras.tree.flatten(part.tail(crossing, training=False))[0], (1, 2)))

    return values_and_gradients(part, tail)


def randomised(part: model.Cut) -> None:
    """Give batch norms and biases, zeros and ones when they are new, numbers that an error would show in."""
    rng = np.random.default_rng(1)
    for layer in part.tail.layers:
        layer.set_weights([w + rng.uniform(0, 0.2, w.shape) if w.ndim == 1 else w for w in layer.get_weights()])


@pytest.mark.parametrize("layers", [2, 5, 15, "all"])
@pytest.mark.parametrize("backbone", ["resnet50v2", demo.NAME])
def test_the_form_for_training_computes_the_same_and_is_left_again(backbone: str, layers: int | str) -> None:
    """Values and gradients are those of Keras's own layers, whether or not the tail has the last block's end."""
    network = model.load_backbone(backbone, "random", (64, 64), seed=1)
    part = model.cut(network, len(network.layers) - 1 if layers == "all" else layers)
    part.tail.trainable = True
    randomised(part)
    head = model.make_head(3, 0)
    plain = kerass(part, head)
    with training_form(part, "float32"):
        tail = Tail(part, head)
        fast = values_and_gradients(part, tail)
    assert (tail.end is None) == (layers == 2)
    for one, other in zip(plain, fast, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max())
    if layers != "all":  # through fifty layers the roundings add up to more than a tenth
        with training_form(part, "bfloat16"):
            near = values_and_gradients(part, Tail(part, head))
        for one, other in zip(plain, near, strict=True):
            assert np.linalg.norm(one - other) <= 0.1 * np.linalg.norm(one)
    assert all((one == other).all() for one, other in zip(plain, kerass(part, head), strict=True))
    assert {layer.compute_dtype for layer in part.tail.layers} == {"float32"}


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_pooled_relu_has_the_gradient_of_what_it_computes(dtype: tf.DType) -> None:
    """Against TensorFlow's, also where a whole channel is cut off or lets all pass, and where gamma is 0 or below."""
    rng = np.random.default_rng(0)
    product, shortcut = (tf.cast(rng.normal(size=(2, 3, 5, 6)), dtype) for _ in range(2))
    norm = tf.constant(
        [
            [0.1, -0.2, 0.3, 0.0, 0.5, 0.0],  # mean
            [1.0, 0.5, 2.0, 1.0, 1.5, 1.0],  # scale
            [1.0, 2.0, -1.0, 0.0, 1.0, 1.0],  # gamma
            [0.0, 0.1, 0.2, 0.5, -50.0, 50.0],  # beta
        ],
        tf.float32,
    )

    def plainly(product: tf.Tensor, shortcut: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
        mean, scale, gamma, beta = tf.unstack(norm)
        x = (tf.cast(product, tf.float32) + tf.cast(shortcut, tf.float32) - mean) * scale
        return tf.reduce_mean(tf.nn.relu(gamma * x + beta), (1, 2))

    found = []
    for function in (plainly, pooled_relu):
        with tf.GradientTape() as tape:
            tape.watch(given := [product, shortcut, norm])
            pooled = function(*given)
            loss = tf.reduce_sum(pooled * tf.range(1.0, 7.0))
        gradients = tape.gradient(loss, given)
        trained = tf.gather(gradients[2], [0, 2, 3])  # the scale isn't
        found.append([pooled, gradients[0], gradients[1], trained])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(tf.cast(one, tf.float32), tf.cast(other, tf.float32), rtol=1e-5, atol=1e-4)
    assert (found[1][0].numpy()[:, 4] == 0).all()
