"""Two phases of training on kept activations: the head alone, then with the backbone's last layers.

The outcome is the one that Keras's `fit` through the whole network gives for the same batches.
"""

import errno
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from common.errors import UserError
from train.dataset import Dataset, DatasetError, untuned
from train.features.activations import Activations, Floats, Labels, probabilities
from train.features.backbone import Cut, make_head
from train.features.extract import Computed, Kept
from train.features.tail import Tail, training_form
from train.fitting import options
from train.fitting.checkpoint import Checkpoint
from train.settings import Settings

CHECKPOINTS = "checkpoints"  # where they are in a run's folder until it is finished
_LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy")  # of an epoch


class FitError(UserError):
    """Training went wrong; the message names what and the fix."""


class Fitted(NamedTuple):
    """The results of training. The tail of `part` and `head` hold the weights of the last phase.

    `heads` has the head's weights by phase.
    `history` has a row an epoch: phase, epoch, loss, accuracy, val_loss, val_accuracy, in the precision of training.
    `probabilities` has for each phase those of the held-out images, shape (images, classes), in the saved model's.
    """

    part: Cut
    head: keras.Layer
    heads: dict[str, list[NDArray[Any]]]
    history: list[dict[str, Any]]
    probabilities: dict[str, Floats]


@contextmanager
def batches(
    inputs: Kept | Computed, labels: Labels, order: Callable[[], NDArray[np.int64]], batch_size: int
) -> Iterator[tf.data.Dataset]:
    """Batches of some images' activations and labels, for Keras.

    `order` is asked at the start of each epoch for the images, by their places in the set. Keras's own PyDataset does
    the same through queues and threads, and an epoch of the frozen phase takes more than twice as long.

    TensorFlow keeps each function of a `numpy_function` as long as the process lives, with all that it refers to: the
    trainer, the model, the optimizer. So the function refers to them through `sources`, which is empty at the end.
    """
    sources = [(inputs, order)]
    places = order()
    first, count = (*inputs.take(places[:1]), labels[places[:1]]), math.ceil(len(places) / batch_size)
    dtypes, shapes = [values.dtype for values in first], [(None, *values.shape[1:]) for values in first]

    def take(number: np.int64) -> tuple[NDArray[Any], ...]:
        nonlocal places
        (source, order_of_epoch), *_ = sources
        if number == 0:
            places = order_of_epoch()
        chosen = places[number * batch_size : (number + 1) * batch_size]
        return (*source.take(chosen), labels[chosen])

    def batch(number: tf.Tensor) -> tuple[Any, tf.Tensor]:
        taken = tf.numpy_function(take, [number], dtypes)
        *cut_activations, target = map(tf.ensure_shape, taken, shapes)
        return tuple(cut_activations) if len(cut_activations) > 1 else cut_activations[0], target

    try:
        yield tf.data.Dataset.range(count).map(batch).prefetch(2).with_options(untuned())
    finally:
        sources.clear()


@contextmanager
def python_errors() -> Iterator[None]:
    """Give what TensorFlow makes an error of its own from its kind again: an image's, or a full disk's."""
    try:
        yield
    except tf.errors.OpError as error:
        if os.strerror(errno.ENOSPC) in error.message:  # TensorBoard's files are written by TensorFlow
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        found = re.search(rf"{DatasetError.__name__}: (.*)", error.message)
        if found is None:
            raise
        raise DatasetError(found[1]) from None


@python_errors()
def fit(
    dataset: Dataset,
    part: Cut,
    activations: Activations,
    settings: Settings,
    checkpoints: Path,
    logs: Path,
    show: Callable[[dict[str, Any]], None],
    progress: Callable[[int, int], None],
    *,
    precision: str = "float32",
) -> Fitted:
    """Train the head, then the head with the last layers of the backbone; or go on where `checkpoints` say it was.

    Args:
        dataset: the set.
        part: the backbone, cut; its tail is trained in place.
        activations: of the set's images.
        settings: as given.
        checkpoints: the folder for them.
        logs: the folder for TensorBoard's.
        show: called with each epoch's row of the history.
        progress: called with (batches done, batches that both phases have at most).
        precision: in which the last layers' convolutions compute while they are trained: float32 or bfloat16.

    Raises:
        FitError: the loss is no number any more.
        DatasetError: an image that is read again is not the one in the manifest any more.
    """
    head = make_head(len(dataset.classes), settings.seed)
    dropout = options.dropout(settings)
    pooled = keras.Input(activations.train.features.pooled.arrays[0].shape[1:])
    alone = keras.Model(pooled, head(dropout(pooled) if dropout else pooled))
    trainer = _Trainer(dataset, activations, settings, dropout, checkpoints, logs, show, progress)
    trainer.run("frozen", alone, settings.epochs, settings.learning_rate)
    found = {"frozen": probabilities(activations.held_out, "frozen", part.tail, head)}
    heads = {"frozen": head.get_weights()}
    if activations.train.features.cut_activations is not None:
        part.tail.trainable = True
        with training_form(part, precision):
            tail = Tail(part, head, dropout)
            trainer.run("fine-tuned", tail, settings.fine_tune_epochs, settings.fine_tune_learning_rate)
        found["fine-tuned"] = probabilities(activations.held_out, "fine-tuned", part.tail, head)
        heads["fine-tuned"] = head.get_weights()
    return Fitted(part, head, heads, trainer.history, found)


class _Trainer:
    """Fits one phase after the other, with one history."""

    def __init__(
        self,
        dataset: Dataset,
        activations: Activations,
        settings: Settings,
        dropout: keras.layers.Dropout | None,
        checkpoints: Path,
        logs: Path,
        show: Callable[[dict[str, Any]], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self.train, self.val = activations.train, activations.val
        self.classes, self.dropout = len(dataset.classes), dropout
        self.of_epoch = math.ceil(len(self.train.rows) / settings.batch_size)  # batches
        self.settings, self.checkpoints, self.show, self.progress = settings, checkpoints, show, progress
        self.board = keras.callbacks.TensorBoard(str(logs), write_graph=False)
        self.history: list[dict[str, Any]] = []

    def run(self, phase: str, model: keras.Model, epochs: int, rate: float) -> None:
        """Train a model through a phase, or through what is left of it; it has the weights of the best epoch then."""
        history = list[dict[str, Any]]()
        self._compile(model, epochs, rate)
        stopping = keras.callbacks.EarlyStopping("val_loss", patience=self.settings.patience, restore_best_weights=True)
        plateau = options.plateau(self.settings)
        checkpoint = Checkpoint(self.checkpoints / f"{phase}.npz", stopping, plateau, history, epochs)
        for row in history:
            self.show(row)
        if checkpoint.is_over:
            checkpoint.put_best(model)
        else:
            masks = options.masks_by_epoch(self.dropout, self.settings.seed) if self.dropout else None
            watch = self._watch(phase, rate, history)
            listed = [stopping, plateau, masks, watch, self.board, checkpoint]
            self._fit(phase, model, epochs, history, [each for each in listed if each])
        self.history += history

    def _compile(self, model: keras.Model, epochs: int, rate: float) -> None:
        # Between executions Python has its say, and with one step in each it takes a tenth of the time. Over several
        # devices Keras fails if the last execution has fewer steps than the others.
        steps = 10 if tf.distribute.get_strategy().num_replicas_in_sync == 1 else 1
        model.compile(
            options.optimizer(self.settings, rate, self.of_epoch * epochs),
            loss=options.loss(self.settings, self.classes),
            metrics=["accuracy"],
            jit_compile=False,  # XLA is slower here: 0.7 x on two cores
            steps_per_execution=steps,
        )

    def _watch(self, phase: str, rate: float, history: list[dict[str, Any]]) -> keras.callbacks.Callback:
        """What adds each epoch to the history, shows it, ends what is no number any more, and counts batches."""
        of_all = self.of_epoch * (self.settings.epochs + self.settings.fine_tune_epochs)
        earlier = self.of_epoch * (self.settings.epochs if phase == "fine-tuned" else 0)

        def note(epoch: int, logs: dict[str, float]) -> None:
            row = {"phase": phase, "epoch": epoch + 1, **{name: float(logs[name]) for name in _LOGGED}}
            if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
                raise FitError(
                    f"the loss became {row['loss']} in epoch {epoch + 1} ({phase}); lower the learning rate ({rate})"
                )
            history.append(row)
            self.show(row)

        def count(batch: int, **_: object) -> None:
            self.progress(earlier + self.of_epoch * len(history) + min(batch + 1, self.of_epoch), of_all)

        return keras.callbacks.LambdaCallback(on_epoch_end=note, on_train_batch_end=count)

    def _fit(
        self,
        phase: str,
        model: keras.Model,
        epochs: int,
        history: list[dict[str, Any]],
        callbacks: list[keras.callbacks.Callback],
    ) -> None:
        train, val, batch_size = self.train, self.val, self.settings.batch_size
        before = len(self.history)

        def shuffled() -> NDArray[np.int64]:
            # By seed and epoch only, so that a run that goes on draws as one that was never interrupted.
            return np.random.default_rng((self.settings.seed, len(history) + 1)).permutation(train.rows)

        with (
            batches(train.inputs(phase), train.labels, shuffled, batch_size) as to_train_on,
            batches(val.inputs(phase), val.labels, lambda: val.rows, batch_size) as to_validate_on,
        ):
            model.fit(
                to_train_on,
                validation_data=to_validate_on,
                class_weight=self._class_weight(),
                initial_epoch=before + len(history),
                epochs=before + epochs,
                shuffle=False,  # `order` does; Keras can't, and would say so
                callbacks=callbacks,
                verbose=0,
            )

    def _class_weight(self) -> dict[int, float] | None:
        """By class, so that each weighs the same in all; None if each image is to."""
        if self.settings.class_weight == "none":
            return None
        labels = self.train.labels[self.train.rows]
        present = np.unique(labels)
        return dict(zip(present.tolist(), compute_class_weight("balanced", classes=present, y=labels), strict=True))
