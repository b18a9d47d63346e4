"""Validation labels and probabilities -> the decision threshold, and the temperature of the probabilities."""

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from train.evaluation.metrics import Floats, Labels
from train.evaluation.phase_metrics import Threshold

# What is said of the images that threshold and temperature are chosen on.
VALIDATION, OUT_OF_FOLD = "validation", "out-of-fold predictions"
_TOLERANCE = 1e-12  # of shares that are equal but for rounding
_MOST_LOG_TEMPERATURE = 3.0


def choose_threshold(
    labels: Labels, positive: Floats, sensitivity: float | None = None, chosen_on: str = VALIDATION
) -> Threshold:
    """The threshold with the best balanced accuracy; or the highest one that finds a share of the positives.

    Thresholds between two neighbouring probabilities decide alike, so validation determines an interval, and not
    a number. In it the value is 0.5 if that is inside, since nothing in the data then speaks for another than the usual
    threshold. Otherwise it is the middle, which is farthest from every validation image: on an end of the interval,
    rounding in another program could turn the decision on the very image that is there. Where several intervals are as
    good, the one nearest to 0.5 is taken, of two as near the lower.

    Args:
        labels: (images,) 0 or 1, of validation images, both among them.
        positive: (images,) probabilities of 1.
        sensitivity: the share, 0 to 1.
        chosen_on: what `chosen_by` calls the images.
    """
    scores, places = np.unique(positive.astype(np.float64), return_inverse=True)
    # Of the intervals (0, first score], (first, second], ..., (last, 1]: the shares that are called positive in each.
    true_positives, false_positives = (
        np.r_[np.cumsum(np.bincount(places[labels == kind], minlength=len(scores))[::-1])[::-1], 0] / (labels == kind).sum()
        for kind in (1, 0)
    )  # fmt: skip
    intervals = np.column_stack([np.r_[0, scores], np.r_[scores, 1]])
    # No threshold up to 1 is above a probability of 1, and none is below one of 0.
    possible = (intervals[:, 0] < intervals[:, 1]) | (np.arange(len(intervals)) == 0)
    if sensitivity is not None:
        best = np.flatnonzero(possible & (true_positives >= sensitivity - _TOLERANCE))[-1:]
        chosen_by = f"a sensitivity of {sensitivity:g} on {chosen_on}"
    else:
        gain = np.where(possible, true_positives - false_positives, -np.inf)
        best = np.flatnonzero(gain >= gain.max() - _TOLERANCE)
        chosen_by = f"the best balanced accuracy on {chosen_on}"
    distance = np.maximum(0, np.maximum(intervals[best, 0] - 0.5, 0.5 - intervals[best, 1]))
    low, high = map(float, intervals[best[distance.argmin()]])
    return Threshold(_within(low, high), (low, high), chosen_by)


def _within(low: float, high: float) -> float:
    """A threshold t with low < t <= high, in float32 as well, in which models give their probabilities."""
    for value in (0.5, (low + high) / 2):
        if low < value <= high and np.float32(low) < np.float32(value) <= np.float32(high):
            return value
    return high


def temperature(labels: Labels, probabilities: Floats) -> float:
    """By what to divide the logits for the smallest log loss: temperature scaling. From 0.05 to 20.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    limit = _MOST_LOG_TEMPERATURE

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, float(np.exp(log_temperature)))
        return float(log_loss(labels, scaled, labels=range(probabilities.shape[1])))

    return float(np.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x))


def is_at_limit(value: float) -> bool:
    """Whether a temperature is as far from 1 as is looked: the loss has no minimum in between.

    So it is where validation is separated without an error, and where its probabilities say nothing of the classes.
    """
    return abs(float(np.log(value))) > _MOST_LOG_TEMPERATURE - 0.01


def with_temperature(probabilities: Floats, value: float) -> Floats:
    """Probabilities, shape (images, classes), as they are with their logits divided by `value`."""
    logits = np.log(np.clip(probabilities.astype(np.float64), np.finfo(np.float64).tiny, 1)) / value
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: Floats = powers / powers.sum(axis=1, keepdims=True)
    return scaled
