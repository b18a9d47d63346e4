"""Probabilities of each phase -> what is decided on validation, the numbers of a run, and its table of predictions."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss, roc_curve

from train import tables
from train.dataset import Dataset
from train.measure import Floats, Labels, decisions, metrics


class Threshold(NamedTuple):
    """From which probability on an image is called positive, and how that was found."""

    value: float
    chosen_by: str


class Judged(NamedTuple):
    """What a phase came to: `probabilities` of the held-out images, shape (images, classes), after temperature scaling."""

    probabilities: Floats
    temperature: float  # 1 without scaling
    threshold: Threshold | None  # None with more than two classes
    metrics: dict[str, Any]


def judge(dataset: Dataset, probabilities: Floats, *, calibrate: bool, sensitivity: float | None) -> Judged:
    """Choose a phase's temperature and threshold on validation, and measure it on validation and test.

    Args:
        dataset: the set.
        probabilities: (images, classes) of its held-out images.
        calibrate: whether to scale by a temperature.
        sensitivity: that the threshold is to give on validation; None: the best balanced accuracy.
    """
    # What is measured is what is written: float64, whose digits come back from predictions.csv.
    probabilities = probabilities.astype(np.float64)
    rows = dataset.rows[dataset.is_held_out]
    labels, groups = dataset.labels(rows), rows["group"].to_numpy()
    of_split = {split: (rows["split"] == split).to_numpy() for split in ("val", "test")}
    val = of_split["val"]
    told: dict[str, Any] = {}
    scale = 1.0
    if calibrate:
        scale = temperature(labels[val], probabilities[val])
        told["calibration"] = {"temperature": round(scale, 6)}
        for split, chosen in of_split.items():
            if chosen.any():
                before = metrics(labels[chosen], probabilities[chosen], groups[chosen], dataset.classes, None)
                told["calibration"][f"{split}_before"] = {name: before[name] for name in ("brier", "ece")}
        probabilities = with_temperature(probabilities, scale)
    threshold = None
    if len(dataset.classes) == 2:
        threshold = choose_threshold(labels[val], probabilities[val, 1], sensitivity)
        told["threshold"] = threshold._asdict()
    for split, chosen in of_split.items():
        if chosen.any():
            value = threshold.value if threshold else None
            told[split] = metrics(labels[chosen], probabilities[chosen], groups[chosen], dataset.classes, value)
    return Judged(probabilities, scale, threshold, told)


def predictions(dataset: Dataset, judged: dict[str, Judged]) -> pd.DataFrame:
    """Every val and test image in each phase: what it shows, what it was taken for, and each class's probability."""
    rows = dataset.rows[dataset.is_held_out]
    parts = []
    for phase, of_phase in judged.items():
        part = rows[["path", "source_sha256", "split", "label", "group"]].assign(phase=phase)
        probabilities, threshold = of_phase.probabilities, of_phase.threshold
        for way, predicted in decisions(probabilities, threshold.value if threshold else None).items():
            part[f"predicted ({way})"] = [dataset.classes[index] for index in predicted]
        for index, name in enumerate(dataset.classes):
            part[tables.probability(name)] = probabilities[:, index]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def choose_threshold(labels: Labels, positive: Floats, sensitivity: float | None = None) -> Threshold:
    """The threshold with the best balanced accuracy; or the highest one that finds a share of the positives.

    Of several that are as good, the one nearest to 0.5.

    Args:
        labels: (images,) 0 or 1, of validation images, both among them.
        positive: (images,) probabilities of 1.
        sensitivity: the share, 0 to 1.
    """
    false_positives, true_positives, thresholds = roc_curve(labels, positive, drop_intermediate=False)
    if sensitivity is not None:
        found = float(thresholds[np.argmax(true_positives >= sensitivity - 1e-12)])
        return Threshold(found, f"a sensitivity of {sensitivity:g} on validation")
    gain = true_positives - false_positives
    best = thresholds[gain >= gain.max() - 1e-12]
    best = best[np.isfinite(best)] if np.isfinite(best).any() else np.array([0.5])
    return Threshold(float(best[np.abs(best - 0.5).argmin()]), "the best balanced accuracy on validation")


def temperature(labels: Labels, probabilities: Floats) -> float:
    """By what to divide the logits for the smallest log loss: temperature scaling.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, float(np.exp(log_temperature)))
        return float(log_loss(labels, scaled, labels=range(probabilities.shape[1])))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def with_temperature(probabilities: Floats, value: float) -> Floats:
    """Probabilities, shape (images, classes), as they are with their logits divided by `value`."""
    logits = np.log(np.clip(probabilities.astype(np.float64), np.finfo(np.float64).tiny, 1)) / value
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: Floats = powers / powers.sum(axis=1, keepdims=True)
    return scaled
