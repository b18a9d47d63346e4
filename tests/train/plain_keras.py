"""The reference: two phases of Keras's own `fit` through the whole network, on images."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from train import dataset as datasets
from train.features import backbone as model
from train.settings import Settings


class Whole(keras.Model):
    """The plain way: preprocess, whole backbone with batch norm keeping its statistics, pool, head."""

    def __init__(self, backbone: keras.Model, head: keras.Layer) -> None:
        super().__init__()
        self.scale = keras.layers.Rescaling(1 / 127.5, offset=-1.0)
        self.backbone, self.pool, self.head = backbone, keras.layers.GlobalAveragePooling2D(), head

    def call(self, image: Any) -> Any:
        """Raw images to probabilities."""
        return self.head(self.pool(self.backbone(self.scale(image), training=False)))


class Plain(keras.utils.PyDataset):
    """Batches of images in the order that a run draws: by seed and epoch."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, settings: Settings) -> None:
        super().__init__()
        self.images, self.labels, self.rows, self.settings = images, labels, rows, settings
        self.epoch, self.order = 0, rows

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.settings.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[index * self.settings.batch_size :][: self.settings.batch_size]
        return self.images[chosen], self.labels[chosen]

    def on_epoch_begin(self) -> None:
        """Draw the epoch's order."""
        self.epoch += 1
        self.order = np.random.default_rng((self.settings.seed, self.epoch)).permutation(self.rows)


def plain_keras(
    dataset: datasets.Dataset,
    settings: Settings,
    backbone: keras.Model | None = None,
    *,
    make_optimizer: Callable[[float, int], keras.optimizers.Optimizer] | None = None,
    loss: str | keras.losses.Loss | None = None,
    make_callbacks: Callable[[], list[keras.callbacks.Callback]] = list,
) -> tuple[list[dict[str, list[float]]], list[np.ndarray]]:
    """Two phases of Keras's own `fit` on the images, with early stopping; histories and probabilities of each.

    `make_optimizer` is called with a phase's learning rate and its epochs; other callbacks are made anew for each phase.
    """
    images = np.concatenate([batch.numpy() for batch in datasets.images(dataset.paths(dataset.rows), dataset.size, 8)])
    labels = dataset.labels(dataset.rows)
    loss = loss or ("binary_crossentropy" if len(dataset.classes) == 2 else "sparse_categorical_crossentropy")
    if isinstance(loss, keras.losses.CategoricalCrossentropy):
        labels = np.eye(len(dataset.classes))[labels]
    split = dataset.rows["split"].to_numpy()
    backbone = backbone or model.load_backbone("resnet50v2", "random", dataset.size, settings.seed)
    whole = Whole(backbone, model.make_head(len(dataset.classes), settings.seed))
    histories, probabilities = [], []
    phases = (
        (0, settings.epochs, settings.learning_rate),
        (settings.fine_tune_layers, settings.fine_tune_epochs, settings.fine_tune_learning_rate),
    )
    for layers, epochs, rate in phases:
        backbone.trainable = True
        for index, layer in enumerate(backbone.layers):
            layer.trainable = index >= len(backbone.layers) - layers
        optimizer = make_optimizer(rate, epochs) if make_optimizer else keras.optimizers.Adam(rate)
        whole.compile(optimizer, loss=loss, metrics=["accuracy"])
        history = whole.fit(
            Plain(images, labels, np.flatnonzero(split == "train"), settings),
            validation_data=(images[split == "val"], labels[split == "val"]),
            epochs=epochs,
            shuffle=False,  # Keras would shuffle the batches once more
            callbacks=[
                keras.callbacks.EarlyStopping("val_loss", patience=settings.patience, restore_best_weights=True),
                *make_callbacks(),
            ],
            verbose=0,
        )
        histories.append(history.history)
        probabilities.append(whole.predict(images, batch_size=settings.batch_size, verbose=0))
    return histories, probabilities
