"""The frozen part's outputs, computed once for both phases and kept on disk.

The images of a set don't change between epochs, so neither does what the frozen layers make of them.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from train.dataset import Dataset, images
from train.model import Cut, preprocess

FORMAT = 1  # raise when what is stored changes
Floats = NDArray[np.float32]


class FeaturesError(ValueError):
    """The activations can't be kept; the message names the place and the fix."""


class Features(NamedTuple):
    """Activations of a set's images, in the order of its manifest, memory-mapped.

    `crossing` holds an array for each tensor that crosses the cut, `pooled` (images, channels) the backbone's
    output averaged over its pixels, as long as nothing is fine-tuned.
    """

    crossing: list[Floats]
    pooled: Floats
    reused: bool


def features(
    dataset: Dataset, part: Cut, weights: str, cache: Path, batch_size: int, progress: Callable[[int, int], None]
) -> Features:
    """Run the frozen part over a set's images, or take up what an earlier run kept.

    Args:
        dataset: the set.
        part: the backbone, cut.
        weights: the digest of its weights.
        cache: the folder that activations are kept in.
        batch_size: images a pass.
        progress: called with (images done, images in all).

    Raises:
        FeaturesError: the disk has no room for them.
    """
    key = [FORMAT, weights, part.names, dataset.size, keras.version(), dataset.rows["sha256"].tolist()]
    folder = cache / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    shapes = [(len(dataset.rows), *x.shape[1:]) for x in (*part.tail.inputs, _pool(part).output)]
    reused = folder.is_dir()
    if not reused:
        _compute(dataset, part, folder, shapes, batch_size, progress)
    arrays = [np.load(folder / f"{index}.npy", mmap_mode="r") for index in range(len(shapes))]
    return Features(arrays[:-1], arrays[-1], reused)


def _pool(part: Cut) -> keras.Model:
    """The tail with its output averaged over the pixels."""
    output = part.tail.outputs[0]
    return keras.Model(part.tail.inputs, keras.layers.GlobalAveragePooling2D()(output))


def _compute(
    dataset: Dataset,
    part: Cut,
    folder: Path,
    shapes: list[tuple[int, ...]],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    needed = sum(4 * int(np.prod(shape)) for shape in shapes)
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise FeaturesError(
            f"{folder.parent}: the activations take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "make room, give --cache on another disk, or fewer --fine-tune-layers"
        )
    pool = _pool(part)
    pixels = keras.Input(part.frozen.input.shape[1:])
    frozen = keras.Model(pixels, part.frozen(preprocess(pixels), training=False))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def forward(batch: tf.Tensor) -> list[tf.Tensor]:
        crossing = frozen(batch, training=False)
        crossing = crossing if isinstance(crossing, (list, tuple)) else [crossing]
        return [*crossing, pool(crossing, training=False)]

    try:
        arrays = [
            np.lib.format.open_memmap(partial / f"{index}.npy", mode="w+", dtype=np.float32, shape=shape)
            for index, shape in enumerate(shapes)
        ]
        done = 0
        for batch in images(dataset.paths(dataset.rows), dataset.size, batch_size):
            for array, values in zip(arrays, forward(batch), strict=True):
                array[done : done + len(batch)] = values.numpy()
            done += len(batch)
            progress(done, len(dataset.rows))
        for array in arrays:
            array.flush()
        del arrays
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
