"""Images through the frozen layers: the network that computes all that is kept of them, and its outputs batch by batch."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from train.dataset import expect_image, images
from train.features.backbone import Cut, preprocess
from train.features.engine import Engine, Forward, compiled

BATCH = 32  # images a pass, always: another number could change the last bits


def forward(part: Cut, engine: Engine) -> Forward:
    """The whole network, compiled for batches of BATCH images."""
    return compiled(whole(part), engine, BATCH)


def whole(part: Cut) -> keras.Model:
    """The network from raw images to the tensors that cross the cut, and then the pooled output."""
    pixels = keras.Input(part.frozen.input.shape[1:])
    frozen = part.frozen(preprocess(pixels), training=False)
    cut_activations = list(frozen) if isinstance(frozen, (list, tuple)) else [frozen]
    pooled = keras.layers.GlobalAveragePooling2D()(part.tail(cut_activations, training=False))
    return keras.Model(pixels, [*cut_activations, pooled])


def outputs_of(
    paths: list[Path], checksums: list[str], size: tuple[int, int], forward: Forward
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield what a network makes of some images, a batch at a time; the last is filled up and cut again.

    Raises:
        DatasetError: an image is another than its checksum says.
    """
    read = iter(images(paths, size, BATCH))
    for start in range(0, len(paths), BATCH):
        for path, sha256 in zip(paths[start : start + BATCH], checksums[start : start + BATCH], strict=True):
            expect_image(path, sha256)
        batch = next(read)  # after that: what can't be decoded is reported by its name, not by TensorFlow
        count = len(batch)
        pixels = batch.numpy()
        if count < BATCH:
            pixels = np.concatenate([pixels, np.zeros((BATCH - count, *pixels.shape[1:]), np.float32)])
        yield [values[:count] for values in forward(pixels)]
