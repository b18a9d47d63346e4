"""Where a prediction comes from: Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), laid over the image.

The evidence for a class is its logit's gradient by the backbone's last feature maps, averaged over each map, times
the maps, summed, and without what is negative. With one of two classes, evidence against the other is evidence for it.
"""

import hashlib
import io
import os
import re
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.errors import escaped
from common.files import write_atomically
from common.images.pixels import Pixels, decode
from common.images.resizing import resize
from train.inference.files import Found
from train.inference.predict import Draw
from train.inference.predictor import Trained

_LARGEST = 900  # pixels of the longer side of each picture
_STEPS = np.linspace(0, 1, 256)
# From nothing over dark blue to yellow, ever brighter: read alike with every kind of colour vision.
_COLOURS = ListedColormap(np.column_stack([colormaps["viridis"](_STEPS)[:, :3], 0.6 * _STEPS]))
_NAME = 60  # characters of the file's name, at most 4 bytes each: with the rest of it no more than file systems take


class GradCam:
    """Maps images to where in them the evidence for a class is."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        model = trained.model
        # The backbone as the model calls it, after the preprocessing.
        self._features = keras.Model(model.input, model.layers[-2].input)

    def heat(self, images: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """The evidence for a class in each image, relative to its strongest.

        Args:
            images: (images, height, width, 3), 0..255.
            classes: (images,) the class's index for each.

        Returns:
            float32 (images, rows, columns) of the backbone's last feature maps, 0..1; 0 everywhere if nothing in an
            image speaks for the class.
        """
        features = self._features(images, training=False)
        with tf.GradientTape() as tape:
            tape.watch(features)
            score = tf.reduce_sum(self._logits(features, classes))
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)).numpy()
        strongest = heat.max(axis=(1, 2), keepdims=True)
        return np.divide(heat, strongest, out=np.zeros_like(heat), where=strongest > 0)

    def _logits(self, features: tf.Tensor, classes: NDArray[np.int64]) -> tf.Tensor:
        """The logit of a class for each image: probabilities near 0 and 1 have no gradient left."""
        head = self.trained.head
        logits = tf.matmul(tf.reduce_mean(features, axis=(1, 2)), head.kernel) + head.bias
        if logits.shape[1] == 1:  # the second class's, against the first
            logits = tf.concat([-logits, logits], axis=1)
        return tf.gather(logits, classes, batch_dims=1)


def figure(
    data: bytes, heat: NDArray[np.float32], title: str, label: str, size: tuple[int, int], fit: str = "stretch"
) -> bytes:
    """A PNG of an image beside itself under its heat: of its own aspect, or padded or cropped as the network takes it.

    Args:
        data: the image's file.
        heat: float32 (rows, columns), 0..1.
        title: what stands above.
        label: whose evidence it is.
        size: (width, height) that the network takes.
        fit: as `resize` has it.
    """
    image = _shown(decode(data, (_LARGEST, _LARGEST)))
    if fit != "stretch":  # else the heat, stretched to the image, would lie elsewhere
        scale = _LARGEST / max(size)
        image = resize(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), fit)
    height, width = image.shape[:2]
    drawn = Figure(figsize=(2 * 4.2 * max(0.5, min(2.5, width / height)) + 1.2, 4.2 + 0.7), layout="constrained")
    drawn.suptitle(title, parse_math=False)
    plain, hot = drawn.subplots(1, 2)
    for axis in (plain, hot):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    spread = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    shade = hot.imshow(spread, cmap=_COLOURS, vmin=0, vmax=1)
    bar = drawn.colorbar(shade, ax=hot, fraction=0.05, ticks=[0, 1])
    bar.ax.set_yticklabels(["none", "most"])
    bar.set_label(f"evidence for {label}", parse_math=False)
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def drawer(trained: Trained, folder: Path) -> Draw:
    """A function that draws the evidence for a prediction into `folder`, and gives the file's name there."""
    cam = GradCam(trained)

    def draw(entry: Found, data: bytes, image: NDArray[np.float32], index: int, probability: float) -> str:
        label = trained.classes[index]
        heat = cam.heat(image[None], np.array([index]))[0]
        title = f"{escaped(entry.name)}: {label}, probability {probability:.3f}"
        name = file_name(str(entry.path), entry.name)
        write_atomically(folder / name, figure(data, heat, title, label, trained.size, trained.fit))
        return name

    return draw


def file_name(path: str, name: str) -> str:
    """A PNG's name made of the image's, and unique: letters, digits and ._- only, and a hash of the path.

    Args:
        path: the image's path, which no other has.
        name: what is shown of it.
    """
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._")[-_NAME:]
    return f"{plain or 'image'}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:10]}.png"


def _shown(image: Pixels) -> Pixels:
    """An image no larger than need be."""
    height, width = image.shape[:2]
    scale = _LARGEST / max(height, width)
    return resize(image, (max(1, round(width * scale)), max(1, round(height * scale)))) if scale < 1 else image
