"""Probabilities -> the numbers of a run and its table of predictions."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, roc_auc_score

from train.dataset import Dataset


def metrics(labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, AUROC, sensitivity, specificity and confusion matrix at the most probable class.

    With two classes the second is the positive one; with more, AUROC is the mean over one-against-the-rest, and
    sensitivity and specificity are given for each class. A figure that the images don't define is None.

    Args:
        labels: (images,) indices into `classes`.
        probabilities: (images, classes).
        classes: their names.
    """
    predicted = predict(probabilities)
    confusion = confusion_matrix(labels, predicted, labels=range(len(classes)))
    right = np.diag(confusion)
    of_class, as_class = confusion.sum(axis=1), confusion.sum(axis=0)
    sensitivity = [_ratio(int(a), int(b)) for a, b in zip(right, of_class, strict=True)]
    negatives = len(labels) - of_class
    specificity = [_ratio(int(n - (a - r)), int(n)) for n, a, r in zip(negatives, as_class, right, strict=True)]
    two = len(classes) == 2
    return {
        "images": len(labels),
        "accuracy": _ratio(int(right.sum()), len(labels)),
        "auroc": _auroc(labels, probabilities),
        "sensitivity": sensitivity[1] if two else dict(zip(classes, sensitivity, strict=True)),
        "specificity": specificity[1] if two else dict(zip(classes, specificity, strict=True)),
        "confusion": {"classes": list(classes), "rows_true_columns_predicted": confusion.tolist()},
    }


def predict(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most probable class of each image; with two classes, the second from 0.5 on."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= 0.5).astype(np.int64)
    return probabilities.argmax(axis=1)


def of_phases(dataset: Dataset, probabilities: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """The metrics of each phase on val and test: {phase: {split: metrics}}; a split without images is left out."""
    labels = dataset.labels(dataset.rows)
    told: dict[str, Any] = {}
    for phase, of_all in probabilities.items():
        told[phase] = {}
        for split in ("val", "test"):
            chosen = (dataset.rows["split"] == split).to_numpy()
            if chosen.any():
                told[phase][split] = metrics(labels[chosen], of_all[chosen], dataset.classes)
    return told


def predictions(dataset: Dataset, probabilities: dict[str, NDArray[np.float32]]) -> pd.DataFrame:
    """Every val and test image in each phase: what it shows, what was predicted, and each class's probability."""
    chosen = dataset.rows["split"].isin(["val", "test"]).to_numpy()
    parts = []
    for phase, of_all in probabilities.items():
        part = dataset.rows.loc[chosen, ["path", "split", "label", "group"]].assign(phase=phase)
        part["predicted"] = [dataset.classes[index] for index in predict(of_all[chosen])]
        for index, name in enumerate(dataset.classes):
            part[f"p({name})"] = of_all[chosen, index].round(6)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _auroc(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float | None:
    if len(np.unique(labels)) < probabilities.shape[1]:
        return None
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    of_class = [roc_auc_score(labels == index, probabilities[:, index]) for index in range(probabilities.shape[1])]
    return math.fsum(of_class) / len(of_class)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
