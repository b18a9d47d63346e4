"""A finished run, ready for use: its model with classes, size and threshold."""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from manifests import contract
from train.evaluation.results import are_classes
from train.features.engine import Engine, Forward, compiled

_LAYERS = ("image", "preprocess", None, "pool", "head")  # of model.keras; the backbone has its own name


class PredictorError(UserError):
    """A folder is no finished run; the message names it and what it lacks."""


class Trained(NamedTuple):
    """A run's model, and what its outputs mean.

    `size` is (width, height) of the images that it takes. `threshold` is the least probability of the second of two
    classes that makes it the predicted one; with more than two it is None, and the most probable is predicted.
    """

    run: Path
    settings: dict[str, Any]  # settings.json
    model: keras.Model
    classes: tuple[str, ...]
    size: tuple[int, int]
    threshold: float | None
    forward: Forward

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The samples of deep images that the set's recipe took for black and white; None: as each file declares."""
        return contract.value_range(self.settings)

    @property
    def group_name(self) -> str:
        """What the set's recipe called a group: patient, say."""
        return contract.group_name(self.settings)

    @property
    def fit(self) -> str:
        """How the set's recipe brought images to their size: stretch, pad or crop."""
        found = self.settings.get("fit")
        return found if found in ("pad", "crop") else "stretch"

    @property
    def backbone(self) -> keras.Model:
        """The part between preprocessing and pooling."""
        return self.model.layers[2]

    @property
    def head(self) -> keras.layers.Dense:
        """The dense head."""
        return self.model.layers[-1]

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each class, shape (images, classes), of images of shape (images, height, width, 3), 0..255."""
        return of_each_class(self.forward(images)[0])

    def predicted(self, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
        """The index of each image's predicted class."""
        if self.threshold is None:
            return probabilities.argmax(axis=1)
        return (probabilities[:, 1].astype(np.float64) >= self.threshold).astype(np.int64)


def of_each_class(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """A model's output as the probability of each class: one sigmoid stands for two classes."""
    return np.hstack([1 - output, output]) if output.shape[1] == 1 else output


def load(run: Path) -> Trained:
    """Read a finished run.

    Raises:
        PredictorError: the folder holds none, or its model is not one that `python -m train fit` wrote.
    """
    settings, metrics = _read(run, "settings.json"), _read(run, "metrics.json")
    classes = settings.get("classes")
    if not are_classes(classes):
        raise PredictorError(
            f"{run / 'settings.json'}: got the classes {classes!r:.80}, expected at least two names, all different"
        )
    model = _model(run / "model.keras", 1 if len(classes) == 2 else len(classes))
    height, width = model.input_shape[1:3]
    forward = compiled(model, Engine("tensorflow", "float32"))  # batches of any size, traced twice at most
    threshold = _threshold(metrics, run / "metrics.json") if len(classes) == 2 else None
    return Trained(run, settings, model, tuple(classes), (width, height), threshold, forward)


def _read(run: Path, name: str) -> dict[str, Any]:
    try:
        read = json.loads((run / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PredictorError(f"{run} holds no finished run ({error}); give a folder that `train fit` wrote") from None
    if not isinstance(read, dict):
        raise PredictorError(f"{run / name}: got a JSON {type(read).__name__}, expected an object")
    return read


def _threshold(metrics: dict[str, Any], path: Path) -> float:
    """Of the last phase, whose weights the model has; 0.5 where none was chosen."""
    phase = list(metrics.values())[-1] if metrics else None
    chosen = phase.get("threshold") if isinstance(phase, dict) else None
    value = 0.5 if chosen is None else chosen.get("value") if isinstance(chosen, dict) else chosen
    if not isinstance(value, (int, float)) or not value >= 0:  # above 1: nothing is of the second class
        raise PredictorError(f"{path}: got the threshold {value!r:.80}, expected a probability")
    return float(value)


def _model(path: Path, outputs: int) -> keras.Model:
    if not path.is_file():
        raise PredictorError(f"{path}: no such file; train the run again, or give another")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an optimizer that isn't there
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a broken archive, layers nobody knows, code in place of layers: all sorts
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PredictorError(f"{path}: no model that can be loaded ({lines[0]:.200}); train the run again") from None
    names = [layer.name for layer in getattr(model, "layers", [])]
    known = len(names) == len(_LAYERS) and all(want in (None, got) for want, got in zip(_LAYERS, names, strict=True))
    if not known or model.output_shape != (None, outputs) or len(model.layers[2].output.shape) != 4:
        raise PredictorError(
            f"{path}: a model of {names!r:.120} with output {getattr(model, 'output_shape', None)}, expected one that "
            f"`python -m train fit` wrote, with output (None, {outputs})"
        )
    return model
