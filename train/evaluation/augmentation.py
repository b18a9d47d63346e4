"""Whether a network can distinguish augmented images from originals, and whether a trained model lets that decide.

Where one class is augmented more than another, being augmented hints at the class. Images are compared within their
class only, so that what distinguishes the classes plays no part.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from train.dataset import Dataset
from train.evaluation.intervals import bootstrap, interval
from train.evaluation.metrics import Floats, Ranked, decisions
from train.evaluation.phase_metrics import Augmentation, Estimate, Means, OfAugmentation
from train.features.activations import Activations, Share

MOST = 500  # images of either kind and of a class that are compared: more would hardly narrow the intervals
_LEAST = 20  # images of either kind, without which nothing is said
_FOLDS = 5


def measure(
    dataset: Dataset, activations: Activations, predict: Callable[[Share], Floats], threshold: float | None
) -> Augmentation | None:
    """Compare the augmented images of each class with its originals; None if no class has both kinds.

    Validation images are compared if each class has both kinds there, and else training images, which the model has
    learnt.

    Args:
        dataset: the set.
        activations: of its images.
        predict: gives the probabilities (images, classes) of some of them after the last phase.
        threshold: with two classes, the one that was chosen.

    Returns:
        `precision` is that of the activations: training images have that of training. Of a class, `probe` is the AUROC with
        which logistic regression on the frozen backbone's pooled output distinguishes augmented images from originals of
        other patients; `score` the AUROC of the model's predicted probability (of the positive class; of several classes,
        of the image's own) for distinguishing them, above 0.5 where augmented images get the higher one; `probability` the
        mean predicted probability and `right` the share of right decisions of either kind.
    """
    split, share = _compared(dataset, activations)
    if split is None:
        return None
    rows = dataset.of(split).reset_index(drop=True)
    chosen = _sample(rows)
    rows, share = rows.iloc[chosen], share._replace(rows=share.rows[chosen])
    predicted = predict(share)
    (pooled,) = share.features.pooled.take(share.rows)
    labels = dataset.labels(rows)
    right = next(reversed(decisions(predicted, threshold).values())) == labels
    scores = predicted[:, 1] if len(dataset.classes) == 2 else predicted[np.arange(len(labels)), labels]
    augmented, groups = (rows["variant"] > 0).to_numpy(), rows["group"].to_numpy().astype(str)
    found = {}
    for index, label in enumerate(dataset.classes):
        of = labels == index
        found[label] = _of_class(augmented[of], groups[of], pooled[of], scores[of], right[of], dataset.group_name)
    return Augmentation(split, found, share.features.engine.precision)


def _compared(dataset: Dataset, activations: Activations) -> tuple[str | None, Share]:
    """The split whose images are compared, and these."""
    for split, share in (("val", activations.val), ("train", activations.train)):
        kinds = dataset.of(split).groupby("label")["variant"].agg(lambda variants: (variants > 0).nunique())
        in_all = len(kinds) == len(dataset.classes) and (kinds == 2).all()
        if in_all or (split == "train" and (kinds == 2).any()):
            return split, share
    return None, activations.train


def _sample(rows: pd.DataFrame) -> NDArray[np.int64]:
    """The places of up to MOST originals and augmented images of each class, picked by checksum."""
    picked = rows.assign(augmented=rows["variant"] > 0).sort_values("sha256", kind="stable")
    rank = picked.groupby(["label", "augmented"]).cumcount().sort_index()
    return np.flatnonzero(rank < MOST)


def _of_class(
    augmented: NDArray[np.bool_],
    groups: NDArray[Any],
    pooled: Floats,
    scores: Floats,
    right: NDArray[np.bool_],
    group_name: str,
) -> OfAugmentation:
    """What `measure` says of a class."""
    kinds = {"original": ~augmented, "augmented": augmented}
    counts = {name: int(kind.sum()) for name, kind in kinds.items()}
    images = (counts["original"], counts["augmented"], len(set(groups)))
    of_either = {name: len(set(groups[kind])) for name, kind in kinds.items()}
    if min(counts.values()) < _LEAST or min(of_either.values()) < _FOLDS:
        few = min(counts, key=lambda name: counts[name])
        reason = f"{counts[few]} {few} images of {of_either[few]} {group_name}s are too few"
        undefined = Estimate(None, None, None, reason)
        return OfAugmentation(*images, undefined, undefined)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedGroupKFold(_FOLDS)
    scored = cross_val_predict(probe, pooled, augmented, groups=groups, cv=folds, method="decision_function")
    means = (
        Means(*(round(float(values[kind].mean()), 6) for kind in (~augmented, augmented))) for values in (scores, right)
    )
    return OfAugmentation(*images, _auroc(augmented, scored, groups), _auroc(augmented, scores, groups), *means)


def _auroc(augmented: NDArray[np.bool_], scores: Floats, groups: NDArray[Any]) -> Estimate:
    """With its 95 % interval by resampling the patients."""
    names, patients = np.unique(groups, return_inverse=True)
    ranking = Ranked(augmented, scores)
    value = float(ranking.areas(np.ones(len(scores)))[0])
    drawn = bootstrap(lambda weights: {"auroc": ranking.areas(weights)[0]}, patients)["auroc"]
    low, high = interval(value, drawn, len(names))
    return Estimate.of(value, low, high, "")
