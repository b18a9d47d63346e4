"""Cross-validation on kept activations: a member for each fold, and the ensemble of all of them as one network.

The ensemble's logit is the mean of its members'. That keeps it the network that one member is: the members' last layers
side by side, pooled, and a dense head over all of their features. Where nothing is fine-tuned, the members share the
backbone, and the mean of their heads is one head.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from train.dataset import Dataset
from train.evaluation.spread import mean_of_repeats
from train.features.activations import Activations, Floats, Share, probabilities
from train.features.backbone import Cut, make_head, side_by_side
from train.fitting.fit import CHECKPOINTS, Fitted, fit
from train.fitting.folds import Fold
from train.settings import Settings

_Weights = list[NDArray[Any]]


class OutOfFold(NamedTuple):
    """What members predict of the images that they weren't trained on.

    `probabilities` by phase: float64 (repeats, images, classes) of the train images of the pooled set, augmented ones
    too; `folds` (repeats, images) has the number of the fold that each is in.
    """

    folds: NDArray[np.int64]
    probabilities: dict[str, Floats]

    def mean(self, phase: str) -> Floats:
        """(images, classes): over the repeats, of the logits, as the ensemble has it."""
        return mean_of_repeats(self.probabilities[phase])


class CrossValidated(NamedTuple):
    """The ensemble, whose `fitted.probabilities` are of the test images, and the predictions out of fold."""

    fitted: Fitted
    out_of_fold: OutOfFold


def fit_folds(
    dataset: Dataset,
    folds: list[Fold],
    part: Cut,
    activations: Activations,
    settings: Settings,
    folder: Path,
    show: Callable[[dict[str, Any]], None],
    progress: Callable[[int, int], None],
    *,
    precision: str = "float32",
) -> CrossValidated:
    """Train a member for each fold, each from the same backbone; or go on where `folder` says it was.

    Args:
        dataset: the pooled set.
        folds: of its train images.
        part: the backbone, cut; its tail has its first weights again at the end.
        activations: of the pooled set's images.
        settings: as given.
        folder: for TensorBoard's logs, and for the checkpoints.
        show: called with each epoch's row of the history, which has the fold's `repeat` and `fold` too.
        progress: called with (batches done, batches that all members have at most).
        precision: as for `fit`.

    Raises:
        FitError: the loss is no number any more.
        DatasetError: an image that is read again is not the one in the manifest any more.
    """
    first = part.tail.get_weights()
    batches = [math.ceil(len(fold.train) / settings.batch_size) for fold in folds]
    epochs = settings.epochs + settings.fine_tune_epochs
    heads, tails = dict[str, list[_Weights]](), list[_Weights]()
    history = list[dict[str, Any]]()
    shape = (settings.repeats, len(activations.train.rows))
    numbers, found = np.zeros(shape, np.int64), dict[str, Floats]()
    for place, fold in enumerate(folds):
        part.tail.set_weights(first)
        which = {"repeat": fold.repeat, "fold": fold.number}
        before = sum(batches[:place]) * epochs
        member = fit(
            dataset,
            part,
            _of_fold(activations, fold),
            replace(settings, seed=fold.seed),
            folder / CHECKPOINTS / fold.name,
            folder / "tensorboard" / fold.name,
            lambda row, which=which: show(which | row),  # type: ignore[misc]  # mypy: a lambda's default has no type
            lambda done, _, before=before: progress(before + done, sum(batches) * epochs),  # type: ignore[misc]  # as above
            precision=precision,
        )
        history += [which | row for row in member.history]
        numbers[fold.repeat - 1, fold.held_out] = fold.number
        for phase, of_phase in member.probabilities.items():
            found.setdefault(phase, np.zeros((*shape, len(dataset.classes))))[fold.repeat - 1, fold.held_out] = of_phase
            heads.setdefault(phase, []).append(member.heads[phase])
        tails.append(part.tail.get_weights())
    part.tail.set_weights(first)
    return CrossValidated(_ensemble(dataset, part, heads, tails, activations, history), OutOfFold(numbers, found))


def _of_fold(activations: Activations, fold: Fold) -> Activations:
    """The activations that a member is trained on, is stopped by, and predicts."""
    train = activations.train
    places = (fold.train, fold.val, fold.held_out)
    return Activations(*(train._replace(rows=train.rows[chosen]) for chosen in places))


def _ensemble(
    dataset: Dataset,
    part: Cut,
    heads: dict[str, list[_Weights]],
    tails: list[_Weights],
    activations: Activations,
    history: list[dict[str, Any]],
) -> Fitted:
    """The members as one network, and what it gives for the test images in each phase."""
    networks = {"frozen": (part, _mean_head(dataset, heads["frozen"]))}
    if "fine-tuned" in heads:
        networks["fine-tuned"] = (side_by_side(part, tails), _concatenated_head(dataset, heads["fine-tuned"]))
    found = {
        phase: probabilities(activations.held_out, phase, network.tail, head)
        for phase, (network, head) in networks.items()
    }
    network, head = list(networks.values())[-1]
    weights = {phase: of_phase.get_weights() for phase, (_, of_phase) in networks.items()}
    return Fitted(network, head, weights, history, found)


def _mean_head(dataset: Dataset, heads: list[_Weights]) -> keras.Layer:
    """The head whose logit is the mean of the heads' of the same features."""
    return _head(dataset, [np.mean(weights, axis=0) for weights in zip(*heads, strict=True)])


def _concatenated_head(dataset: Dataset, heads: list[_Weights]) -> keras.Layer:
    """The head whose logit is the mean of the heads' of their own features, side by side."""
    kernels, biases = zip(*heads, strict=True)
    return _head(dataset, [np.concatenate(kernels) / len(heads), np.mean(biases, axis=0)])


def _head(dataset: Dataset, weights: _Weights) -> keras.Layer:
    head = make_head(len(dataset.classes), 0)
    head.build((None, len(weights[0])))
    head.set_weights(weights)
    return head


def of_share(out_of_fold: OutOfFold, phase: str, train: Share, share: Share) -> Floats:
    """The predictions out of fold of some of the train images."""
    places = np.full(int(train.rows.max()) + 1, -1)
    places[train.rows] = np.arange(len(train.rows))
    return out_of_fold.mean(phase)[places[share.rows]]
