"""Two phases of training on kept activations: the head alone, then with the backbone's last layers.

The outcome is the one that Keras's `fit` through the whole network gives for the same batches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from train.dataset import Dataset
from train.features import Features
from train.model import Cut, Tail, make_head

PATIENCE = 3  # epochs without a better validation loss before a phase stops

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class FitError(ValueError):
    """Training went wrong; the message names what and the fix."""


@dataclass(frozen=True)
class Settings:
    """What a run is decided by, beside the set and the backbone's weights."""

    backbone: str = "resnet50v2"
    weights: str = "imagenet"
    epochs: int = 10
    fine_tune_epochs: int = 10
    fine_tune_layers: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    fine_tune_learning_rate: float = 1e-5
    seed: int = 0


class Fitted(NamedTuple):
    """What came of training. The backbone of the cut and `head` hold the fine-tuned weights.

    `history` has a row an epoch: phase, epoch, loss, accuracy, val_loss, val_accuracy. `probabilities` has for
    each phase those of every image of the set, shape (images, classes).
    """

    head: keras.Layer
    history: list[dict[str, Any]]
    probabilities: dict[str, Floats]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Batches of some rows of memory-mapped arrays, in an order that depends on seed and epoch only."""

    def __init__(
        self, arrays: list[Floats], labels: Labels, rows: NDArray[np.int64], batch_size: int, seed: int | None
    ) -> None:
        """Serve `rows` of `arrays` and `labels`; in a new order each epoch, or as they stand if `seed` is None."""
        super().__init__()
        self.arrays, self.labels, self.rows, self.batch_size, self.seed = arrays, labels, rows, batch_size, seed
        self.epoch = 0
        self._shuffle()

    def _shuffle(self) -> None:
        order = (
            np.random.default_rng((self.seed, self.epoch)).permutation(len(self.rows))
            if self.seed is not None
            else slice(None)
        )
        self.order = self.rows[order]

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Labels]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        inputs = tuple(array[chosen] for array in self.arrays)
        return inputs if len(inputs) > 1 else inputs[0], self.labels[chosen]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self.epoch += 1
        self._shuffle()


def fit(
    dataset: Dataset,
    part: Cut,
    features: Features,
    settings: Settings,
    logs: Path,
    show: Callable[[dict[str, Any]], None],
) -> Fitted:
    """Train the head, then the head with the last layers of the backbone.

    Args:
        dataset: the set.
        part: the backbone, cut; its tail is trained in place.
        features: the activations of the set's images.
        settings: as given.
        logs: the folder for TensorBoard.
        show: called with each epoch's row of the history.

    Raises:
        FitError: the loss is no number any more.
    """
    head = make_head(len(dataset.classes), settings.seed)
    pooled = keras.Input(features.pooled.shape[1:])
    trainer = _Trainer(dataset, settings, logs, show)
    frozen = keras.Model(pooled, head(pooled))
    trainer.run("frozen", frozen, [features.pooled], settings.epochs, settings.learning_rate)
    probabilities = {"frozen": _probabilities(frozen, [features.pooled], settings)}
    if settings.fine_tune_epochs > 0 and settings.fine_tune_layers > 0:
        part.tail.trainable = True
        tail = Tail(part, head)
        trainer.run("fine-tuned", tail, features.crossing, settings.fine_tune_epochs, settings.fine_tune_learning_rate)
        probabilities["fine-tuned"] = _probabilities(tail, features.crossing, settings)
    return Fitted(head, trainer.history, probabilities)


class _Trainer:
    """Fits one phase after the other, with one history."""

    def __init__(
        self, dataset: Dataset, settings: Settings, logs: Path, show: Callable[[dict[str, Any]], None]
    ) -> None:
        self.labels = dataset.labels(dataset.rows)
        split = dataset.rows["split"].to_numpy()
        self.train, self.val = np.flatnonzero(split == "train"), np.flatnonzero(split == "val")
        self.binary = len(dataset.classes) == 2
        self.settings, self.show = settings, show
        self.board = keras.callbacks.TensorBoard(str(logs), write_graph=False)
        self.history: list[dict[str, Any]] = []

    def run(self, phase: str, model: keras.Model, arrays: list[Floats], epochs: int, rate: float) -> None:
        loss = "binary_crossentropy" if self.binary else "sparse_categorical_crossentropy"
        model.compile(
            keras.optimizers.Adam(rate), loss=loss, metrics=["accuracy"], jit_compile=False
        )  # XLA is slower here: 0.7 x on two cores
        batch_size, seed = self.settings.batch_size, self.settings.seed
        done = len(self.history)

        def note(epoch: int, logs: dict[str, float]) -> None:
            row = {"phase": phase, "epoch": epoch + 1, **{name: float(logs[name]) for name in COLUMNS[2:]}}
            if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
                raise FitError(
                    f"the loss became {row['loss']} in epoch {epoch + 1} ({phase}); lower the learning rate ({rate})"
                )
            self.history.append(row)
            self.show(row)

        model.fit(
            Batches(arrays, self.labels, self.train, batch_size, seed),
            validation_data=Batches(arrays, self.labels, self.val, batch_size, None),
            initial_epoch=done,
            epochs=done + epochs,
            callbacks=[
                keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True),
                keras.callbacks.LambdaCallback(on_epoch_end=note),
                self.board,
            ],
            verbose=0,
        )


COLUMNS = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy")  # of the history


def _probabilities(model: keras.Model, arrays: list[Floats], settings: Settings) -> Floats:
    """The probability of each class for every image, shape (images, classes)."""
    rows = np.arange(len(arrays[0]))
    predicted = model.predict(
        Batches(arrays, np.zeros(len(rows), np.int64), rows, settings.batch_size, None), verbose=0
    )
    return np.hstack([1 - predicted, predicted]) if predicted.shape[1] == 1 else predicted
