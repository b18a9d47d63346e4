"""Predictions out of fold -> their mean, and how much a figure varies from fold to fold and from repeat to repeat."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from train.evaluation.metrics import DECIDED, Floats, Labels, decisions, figures_of, ranked
from train.evaluation.phase_metrics import CrossValidation, Spread

_RANKED = ("auroc", "auprc", "brier")  # the calibration error of few images is mostly chance


def spread(
    labels: Labels, probabilities: Floats, folds: NDArray[np.int64], threshold: float | None, precision: str
) -> CrossValidation:
    """Measure each fold by itself.

    Args:
        labels: (images,) indices of the classes.
        probabilities: (repeats, images, classes) out of fold.
        folds: (repeats, images) the number of the fold that each image is in.
        threshold: with two classes, the one that was chosen.
        precision: of the activations.

    Returns:
        Of each figure (`auroc`, `accuracy 0.5`, ...) the mean over all folds of all repeats; the standard deviation over the
        folds of a repeat, pooled over the repeats; and that of the repeats' means.
    """
    measured = [
        [
            _figures(labels[of_repeat == number], of_images[of_repeat == number], threshold)
            for number in np.unique(of_repeat)
        ]
        for of_images, of_repeat in zip(probabilities, folds, strict=True)
    ]
    found = {}
    for name in measured[0][0]:
        values = np.array([[of_fold[name] for of_fold in of_repeat] for of_repeat in measured])
        between = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
        within = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
        found[name] = Spread(
            round(float(values.mean()), 6), round(within, 6), None if between is None else round(between, 6)
        )
    return CrossValidation(folds=len(measured[0]), repeats=len(measured), figures=found, precision=precision)


def mean_of_repeats(probabilities: Floats) -> NDArray[np.float64]:
    """Probabilities (images, classes) by the mean logits of (repeats, images, classes), as the ensemble has it."""
    logits = np.log(np.clip(probabilities, np.finfo(np.float64).tiny, 1)).mean(axis=0)
    mean: NDArray[np.float64] = softmax(logits, axis=-1)
    return mean


def _figures(labels: Labels, probabilities: Floats, threshold: float | None) -> dict[str, float]:
    """The figures of the images of a fold, among them all classes."""
    decided = decisions(probabilities, threshold)
    found = figures_of(labels, probabilities, ranked(labels, probabilities), decided, np.ones((1, len(labels))))
    wanted = [*_RANKED, *(f"{name} {point}" for point in decided for name in DECIDED)]
    return {name: float(found[name][0]) for name in wanted}
