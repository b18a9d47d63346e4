"""The network's tail as it is trained: in bfloat16 where that is faster, and its end as one function with a gradient of its own.

A step on kept activations is mostly traffic of memory: a ResNetV2's last block, 32 x 7 x 7 x 2048, is read and written some twenty
times by Keras's layers and their gradients, while its products are a third of the time. `pooled_relu` reads it twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from train.features.backbone import Cut
from train.features.engine import has_gpu

_Tensors = Any  # one, or a list of several, as Keras has them


@contextmanager
def training_form(part: Cut, precision: str) -> Iterator[None]:
    """Let the tail's convolutions compute as is fastest while it is trained.

    In bfloat16, if that is the precision; weights, gradients' sums and everything else stay float32. And a convolution
    of 1 x 1 as the matrix product that it is: TensorFlow's gradient of its kernel takes three times as long as a product's.
    """
    convolutions = [layer for layer in part.tail.layers if isinstance(layer, keras.layers.Conv2D)]
    policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    for layer in convolutions:
        layer.dtype_policy = policy
        if _is_pointwise(layer):
            layer.convolution_op = _matrix_product
    try:
        yield
    finally:
        for layer in convolutions:
            layer.dtype_policy = keras.DTypePolicy("float32")
            if _is_pointwise(layer):
                del layer.convolution_op  # the class's own is back


def _is_pointwise(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == layer.strides == (1, 1) and layer.groups == 1


def _matrix_product(inputs: "keras.KerasTensor", kernel: "keras.KerasTensor") -> "keras.KerasTensor":
    return keras.ops.tensordot(inputs, keras.ops.squeeze(kernel, (0, 1)), 1)


class Tail(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """What is fine-tuned: tensors that cross the cut to probabilities, batch norm keeping its statistics.

    A functional model would not do: `fit` hands training=True to every layer inside one, over a training=False
    given when it was called (keras issue 20285), and batch norm would go by each batch's statistics.
    """

    def __init__(self, part: Cut, head: keras.Layer, dropout: keras.Layer | None = None) -> None:
        super().__init__(name="tail")
        self.part, self.pool, self.head = part.tail, keras.layers.GlobalAveragePooling2D(), head
        self.dropout = dropout
        self.end = _end(part)

    def compile(self, optimizer: keras.optimizers.Optimizer, **settings: Any) -> None:
        """As Keras's, but that each update of the weights is one pass, where Keras's Adam makes a dozen."""
        if self.end:
            update = optimizer.update_step
            # A function for each weight: one for all would be traced once for those of a shape, with the first one's momentum.
            optimizer.update_step = lambda *given: tf.function(lambda: update(*given), jit_compile=True)()
        super().compile(optimizer, **settings)

    def call(
        self,
        cut_activations: _Tensors,
        training: bool = False,  # noqa: FBT002  # Keras's own convention
    ) -> "keras.KerasTensor":
        """Probabilities, shape (batch, 1) with a sigmoid or (batch, classes)."""
        if self.end:
            pooled = self.end.pooled(cut_activations)
        else:
            features = self.part(cut_activations, training=False)
            pooled = self.pool(features[0] if isinstance(features, list) else features)
        return self.head(self.dropout(pooled, training=training) if self.dropout else pooled)


class _End(NamedTuple):
    """A tail's last layers: a convolution of 1 x 1, whose output is added to a shortcut, batch norm and relu."""

    before: Callable[[_Tensors], _Tensors]  # from what crosses the cut to the convolution's input and the shortcut
    convolution: keras.layers.Conv2D
    norm: keras.layers.BatchNormalization

    def pooled(self, cut_activations: _Tensors) -> tf.Tensor:
        """The backbone's output averaged over its pixels, (batch, channels)."""
        convolution, norm = self.convolution, self.norm
        given, shortcut = self.before(cut_activations)
        given, kernel = (keras.ops.cast(x, convolution.compute_dtype) for x in (given, convolution.kernel))
        scale = keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
        mean = norm.moving_mean - convolution.bias  # a bias that is added is a mean that isn't taken off
        per_channel = [mean, scale, norm.gamma.value, norm.beta.value]
        return pooled_relu(_matrix_product(given, kernel), shortcut, tf.stack(per_channel))


def _end(part: Cut) -> _End | None:
    """The last layers of a ResNetV2's tail; None if it has fewer, and where XLA, which they need, isn't at its best."""
    if has_gpu() or tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return None
    maker = {id(layer.output): layer for layer in part.tail.layers}
    relu = part.tail.layers[-1]
    norm = maker.get(id(relu.input)) if isinstance(relu, keras.layers.Activation) else None
    add = maker.get(id(norm.input)) if isinstance(norm, keras.layers.BatchNormalization) else None
    summands = add.input if isinstance(add, keras.layers.Add) else []
    convolution = next((maker[id(x)] for x in summands if _is_pointwise(maker.get(id(x)))), None)
    if convolution is None:
        return None
    wanted = [convolution.input, *(x for x in summands if x is not convolution.output)]
    crossing = [part.frozen.get_layer(name).output for name in part.names]
    places = {id(x): place for place, x in enumerate(crossing)}
    if all(id(x) in places for x in wanted):  # a model would make float32 of them
        return _End(lambda tensors: [tensors[places[id(x)]] for x in wanted], convolution, norm)
    return _End(partial(keras.Model(crossing, wanted), training=False), convolution, norm)


@tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow ships no types
def pooled_relu(product: tf.Tensor, shortcut: tf.Tensor, norm: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Batch norm and relu of a sum, averaged over its pixels, in one pass, and its gradient in another.

    Of x = (product + shortcut - mean) * scale this is the mean of relu(gamma * x + beta). Where that is positive it is linear, so
    that the sum of those x and their number give the value and the gradients of all that is per channel.

    Args:
        product: float32 or bfloat16, (batch, height, width, channels).
        shortcut: the same shape.
        norm: mean, scale, gamma and beta, float32, (4, channels).

    Returns:
        float32, (batch, channels), and its gradient: none for the scale, which isn't trained.
    """
    _, scale, gamma, beta = tf.unstack(norm)
    total, count = _positive(product, shortcut, norm)
    pixels = tf.cast(product.shape[1] * product.shape[2], tf.float32)

    def gradient(of_pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        each = of_pooled / pixels
        of_x = each * gamma * scale
        per_channel = [-of_x * count, tf.zeros_like(each), each * total, each * count]
        of_product = _where_positive(product, shortcut, norm, of_x)
        alike = shortcut.dtype == product.dtype
        of_shortcut = of_product if alike else _where_positive(shortcut, product, norm, of_x)
        return of_product, of_shortcut, tf.reduce_sum(tf.stack(per_channel), axis=1)

    return (gamma * total + beta * count) / pixels, gradient


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # as above
def _positive(product: tf.Tensor, shortcut: tf.Tensor, norm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Over the pixels where relu lets it pass, the sum of what is normalised and their number: (batch, channels) each."""
    x, passes = _normalised(product, shortcut, norm)
    return tf.reduce_sum(tf.where(passes, x, 0.0), (1, 2)), tf.reduce_sum(tf.where(passes, 1.0, 0.0), (1, 2))


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # as above
def _where_positive(product: tf.Tensor, shortcut: tf.Tensor, norm: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """A value, (batch, channels), at the pixels where relu lets it pass, and 0 at the others."""
    _, passes = _normalised(product, shortcut, norm)
    return tf.cast(tf.where(passes, value[:, None, None, :], 0.0), product.dtype)


def _normalised(product: tf.Tensor, shortcut: tf.Tensor, norm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean, scale, gamma, beta = tf.unstack(norm)
    x = (tf.cast(product, tf.float32) + tf.cast(shortcut, tf.float32) - mean) * scale
    return x, gamma * x + beta > 0
