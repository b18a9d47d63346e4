"""What a phase of training needs to go on where it was killed, kept after every epoch in one file.

Keras's own BackupAndRestore keeps neither what early stopping has seen nor the best weights, and a run that went on
from it would stop at another epoch than one that was never interrupted.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from common.files import write_atomically


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Saves, after each epoch, weights, optimizer, early stopping and history, and puts them back before the first.

    Of the optimizer: its step, its learning rate and its moments. It stands behind `stopping`, `plateau` and whatever
    adds to `history` in the list of callbacks.
    """

    def __init__(
        self,
        path: Path,
        stopping: keras.callbacks.EarlyStopping,
        plateau: keras.callbacks.ReduceLROnPlateau | None,
        history: list[dict[str, Any]],
        epochs: int,
    ) -> None:
        super().__init__()
        self.path, self.stopping, self.plateau, self.history, self.epochs = path, stopping, plateau, history, epochs
        self._kept = _load(path)
        if self._kept:
            history.extend(json.loads(str(self._kept["history"])))

    @property
    def is_over(self) -> bool:
        """Whether the phase had come to its end."""
        return self._kept is not None and bool(self._kept["over"])

    def put_best(self, model: keras.Model) -> None:
        """Give the model the weights of a phase that is over."""
        assert self._kept
        model.set_weights(_listed(self._kept, "best"))

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put back what was kept."""
        if not self._kept:
            return
        self.model.set_weights(_listed(self._kept, "weight"))
        self.model.optimizer.build(self.model.trainable_variables)
        for variable, value in zip(self.model.optimizer.variables, _listed(self._kept, "optimizer"), strict=True):
            variable.assign(value)
        self.stopping.best, self.stopping.wait = float(self._kept["best"]), int(self._kept["wait"])
        self.stopping.best_epoch = int(self._kept["best_epoch"])
        self.stopping.best_weights = _listed(self._kept, "best")
        if self.plateau:
            self.plateau.best, self.plateau.wait = float(self._kept["plateau_best"]), int(self._kept["plateau_wait"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep what there is."""
        over = self.model.stop_training or len(self.history) == self.epochs
        lists = {
            "weight": self.model.get_weights(),
            "optimizer": [keras.ops.convert_to_numpy(variable) for variable in self.model.optimizer.variables],
            "best": self.stopping.best_weights,
        }
        arrays = {f"{name} {number}": value for name, values in lists.items() for number, value in enumerate(values)}
        arrays |= {"history": json.dumps(self.history), "over": over, "best": self.stopping.best}
        arrays |= {"wait": self.stopping.wait, "best_epoch": self.stopping.best_epoch}
        if self.plateau:
            arrays |= {"plateau_best": self.plateau.best, "plateau_wait": self.plateau.wait}
        packed = io.BytesIO()
        np.savez(packed, **arrays)
        write_atomically(self.path, packed.getvalue())


def _load(path: Path) -> dict[str, NDArray[Any]] | None:
    """What is in a checkpoint; None if there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _listed(kept: dict[str, NDArray[Any]], name: str) -> list[NDArray[Any]]:
    count = sum(key.startswith(f"{name} ") for key in kept)
    return [kept[f"{name} {number}"] for number in range(count)]
