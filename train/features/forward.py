"""Images through the frozen layers: the network that computes all that is kept of them, and its outputs batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from train.dataset import expect_image, images
from train.features.backbone import Cut, preprocess
from train.features.engine import Engine, Forward, compiled, exported

BATCH = 32  # images a pass, always: another number could change the last bits


@dataclass(frozen=True)
class NetworkCache:
    """A network whose activations are kept: the backbone, cut, with the digest of its weights, and the folder they are kept in.

    It is for the time before training, which changes the weights of the tail.
    """

    part: Cut
    weights: str
    folder: Path

    @cached_property
    def network(self) -> keras.Model:
        """From raw images to the tensors that cross the cut, and then the pooled output."""
        pixels = keras.Input(self.part.frozen.input.shape[1:])
        frozen = self.part.frozen(preprocess(pixels), training=False)
        cut_activations = list(frozen) if isinstance(frozen, (list, tuple)) else [frozen]
        pooled = keras.layers.GlobalAveragePooling2D()(self.part.tail(cut_activations, training=False))
        return keras.Model(pixels, [*cut_activations, pooled])

    def compiled(self, engine: Engine, calibrated_on: Sequence[NDArray[np.uint8]] = ()) -> Forward:
        """The network for batches of BATCH images; `calibrated_on` as `engine.compiled` has it."""
        graph = self._graph if engine.name == "openvino" else None
        return compiled(self.network, engine, BATCH, graph=graph, calibrated_on=calibrated_on)

    @cached_property
    def _graph(self) -> Any:
        """For every precision that is timed or computed in: an export takes seconds."""
        return exported(self.network)


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
