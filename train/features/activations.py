"""A set's activations in two shares: what is trained on, as fast as may be, and what is held out, in float32.

The model that is saved computes in float32, so whatever is measured has to. What it is trained on need not.
"""

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.special import expit, softmax

from train.dataset import Dataset
from train.features.engine import Engine
from train.features.extract import Computed, Features, Kept, Progress

_BATCH = 32  # images, as `evaluate` and `predict` take them

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
MakeFeatures = Callable[[Dataset, Engine, Progress], Features]


class Share(NamedTuple):
    """Some images of a set.

    `rows` are their places among the `features`, in the order of the manifest, and `labels` the classes of all that
    the features are of, as indices.
    """

    features: Features
    labels: Labels
    rows: NDArray[np.int64]

    def inputs(self, phase: str) -> Kept | Computed:
        """What a phase's model takes: the pooled output, or the tensors that cross the cut."""
        if phase == "frozen":
            return self.features.pooled
        assert self.features.cut_activations is not None
        return self.features.cut_activations


class Activations(NamedTuple):
    """The activations of a set: of the images that are trained on, of val, and of val and test together."""

    train: Share
    val: Share
    held_out: Share

    @property
    def computed(self) -> int:
        """How many images' activations were not in the store."""
        return sum(features.computed for features in self._features)

    @property
    def different(self) -> int:
        """How many images there are; identical files count once."""
        return sum(features.different for features in self._features)

    @property
    def _features(self) -> list[Features]:
        same = self.train.features is self.held_out.features
        return [self.train.features] if same else [self.train.features, self.held_out.features]


def of_shares(dataset: Dataset, engine: Engine, make: MakeFeatures, progress: Progress) -> Activations:
    """Take up or compute the activations of both shares.

    The held-out images go first: with little room, what is measured in float32 is kept before what is trained on.

    Args:
        dataset: the set.
        engine: what runs the frozen part for the images that are trained on.
        make: gives the activations of a set by an engine (`extract.features`).
        progress: called with (images done, images to do).
    """
    precise = engine._replace(precision="float32")
    split = dataset.rows["split"].to_numpy()
    if engine == precise or not dataset.is_held_out.any():  # one pass, and one place to keep it
        features, labels = make(dataset, engine, progress), dataset.labels(dataset.rows)
        places = (np.flatnonzero(split == "train"), np.flatnonzero(split == "val"), np.flatnonzero(split != "train"))
        return Activations(*(Share(features, labels, rows) for rows in places))
    held, train = (dataset._replace(rows=dataset.rows[chosen].reset_index(drop=True)) for chosen in (
        dataset.is_held_out, ~dataset.is_held_out
    ))  # fmt: skip
    measured = make(held, precise, progress)
    done = measured.computed
    trained = make(train, engine, lambda more, count: progress(done + more, done + count))
    labels = dataset.labels(held.rows)
    return Activations(
        Share(trained, dataset.labels(train.rows), np.arange(len(train.rows))),
        Share(measured, labels, np.flatnonzero(held.rows["split"] == "val")),
        Share(measured, labels, np.arange(len(held.rows))),
    )


def probabilities(held_out: Share, phase: str, tail: keras.Model, head: keras.layers.Dense) -> Floats:
    """What the saved model gives for the held-out images: float32 up to the logits.

    Args:
        held_out: the images.
        phase: what was trained: `frozen` (the tail plays no part) or `fine-tuned`.
        tail: the last layers of the backbone, computing in float32.
        head: the dense head.

    Returns:
        float64 (images, classes).
    """
    if not len(held_out.rows):
        return np.empty((0, max(2, head.kernel.shape[1])))
    pool = keras.layers.GlobalAveragePooling2D()
    inputs = held_out.inputs(phase)

    starts = range(0, len(held_out.rows), _BATCH)
    batches = (inputs.take(held_out.rows[start : start + _BATCH]) for start in starts)
    first = next(batches)
    signature = [tf.TensorSpec((None, *values.shape[1:]), tf.float32) for values in first]  # one trace for any batch

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def logits(*taken: tf.Tensor) -> tf.Tensor:
        if phase == "frozen":
            (pooled,) = taken
        else:
            features = tail(list(taken) if len(taken) > 1 else taken[0], training=False)
            pooled = pool(features[0] if isinstance(features, list) else features)
        return tf.matmul(pooled, head.kernel) + head.bias

    parts = [
        logits(*(tf.constant(values, tf.float32) for values in taken)).numpy() for taken in chain([first], batches)
    ]
    return of_logits(np.concatenate(parts).astype(np.float64))


def of_logits(logits: Floats) -> Floats:
    """Probabilities (images, classes) of logits (images, 1), the second class's, or (images, classes).

    Each is computed by itself: 1 - p would lose what a temperature needs of probabilities near 1.
    """
    return np.hstack([expit(-logits), expit(logits)]) if logits.shape[1] == 1 else softmax(logits, axis=1)
