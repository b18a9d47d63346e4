"""What the options of training are in Keras: the optimizer, its schedule, the loss, dropout."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from common.errors import UserError
from train.settings import DECAY, MOMENTUM, OPTIMIZERS, PLATEAU_FACTOR, SCHEDULES, Settings

_Loss = str | Callable[[Any, Any], Any]


class OptionError(UserError):
    """An option of training has a value that it can't have; the message names it and the fix."""


def check(settings: Settings) -> None:
    """Refuse what the command line can't give, but Python can, and what would do nothing.

    Raises:
        OptionError: a value is none that there is.
    """
    for name, value, known in (
        ("optimizer", settings.optimizer, OPTIMIZERS),
        ("schedule", settings.schedule, SCHEDULES),
    ):
        if value not in known:
            raise OptionError(f"--{name} {value}: there is no such {name}; give one of {', '.join(known)}")
    for name, share in (("label-smoothing", settings.label_smoothing), ("dropout", settings.dropout)):
        if not 0 <= share < 1:
            raise OptionError(f"--{name} {share}: give a number from 0 to less than 1")
    if settings.patience < 1:
        raise OptionError(f"--patience {settings.patience}: give a number of epochs, 1 or more")
    if settings.schedule == "plateau" and settings.patience < 2:
        raise OptionError(
            f"--patience {settings.patience} --schedule plateau: a phase would stop where the rate is to fall first; "
            "give --patience 2 or more, or another schedule"
        )


def optimizer(settings: Settings, rate: float, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a phase.

    Args:
        settings: of the run.
        rate: the learning rate, with a schedule the first one.
        steps: that the phase has at most, in which a cosine comes down to 0.
    """
    planned = keras.optimizers.schedules.CosineDecay(rate, steps) if settings.schedule == "cosine" else rate
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(planned, momentum=MOMENTUM)
    if settings.optimizer == "adamw":
        return keras.optimizers.AdamW(planned, weight_decay=DECAY)
    return keras.optimizers.Adam(planned)


def plateau(settings: Settings) -> keras.callbacks.ReduceLROnPlateau | None:
    """What halves the learning rate when the validation loss no longer falls; None without such a schedule.

    It counts the same epochs as early stopping does, without a least difference of its own, and half as many, so
    that the lower rate has the other half to show what it does.
    """
    if settings.schedule != "plateau":
        return None
    return keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=PLATEAU_FACTOR, patience=settings.patience // 2, min_delta=0
    )


def loss(settings: Settings, classes: int) -> _Loss:
    """The loss between class indices and the head's probabilities, smoothed or not, for validation as for training."""
    smoothing = settings.label_smoothing
    if classes == 2:
        return keras.losses.BinaryCrossentropy(label_smoothing=smoothing) if smoothing else "binary_crossentropy"
    if not smoothing:
        return "sparse_categorical_crossentropy"

    def smoothed(labels: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        # Keras smooths the labels of its categorical loss only, which takes them one-hot.
        wanted = keras.ops.one_hot(keras.ops.cast(labels, "int32"), classes)
        return keras.losses.categorical_crossentropy(wanted, probabilities, label_smoothing=smoothing)

    return smoothed


def dropout(settings: Settings) -> keras.layers.Dropout | None:
    """The layer before the head while it is trained, which the saved model doesn't have; None without dropout."""
    return keras.layers.Dropout(settings.dropout, seed=settings.seed) if settings.dropout else None


def masks_by_epoch(layer: keras.layers.Dropout, seed: int) -> keras.callbacks.Callback:
    """A callback that makes an epoch's masks go by seed and epoch only.

    A run that goes on draws as one that was never interrupted. The layer counts its steps, and no weights hold the count.
    """

    def start(epoch: int, _: object = None) -> None:
        layer.seed_generator.state.assign(np.random.SeedSequence((seed, epoch)).generate_state(2))

    return keras.callbacks.LambdaCallback(on_epoch_begin=start)
