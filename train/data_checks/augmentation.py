"""Whether a network can distinguish augmented images from originals, and whether a trained model lets that decide.

Where one class is augmented more than another, being augmented hints at the class. Images are compared within their
class only, so that what distinguishes the classes plays no part.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data_checks import probe
from train.dataset import Dataset
from train.evaluation.metrics import Floats, decisions
from train.evaluation.phase_metrics import Augmentation, Means, OfAugmentation
from train.features.activations import Activations, Share


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
    chosen = probe.sample(rows.assign(augmented=rows["variant"] > 0), ["label", "augmented"])
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


def _of_class(
    augmented: NDArray[np.bool_],
    groups: NDArray[Any],
    pooled: Floats,
    scores: Floats,
    right: NDArray[np.bool_],
    group_name: str,
) -> OfAugmentation:
    """What `measure` says of a class."""
    images = (int((~augmented).sum()), int(augmented.sum()), len(set(groups)))
    undefined = probe.too_few(augmented, groups, ("original", "augmented"), group_name)
    if undefined:
        return OfAugmentation(*images, undefined, undefined)
    means = (
        Means(*(round(float(values[kind].mean()), 6) for kind in (~augmented, augmented))) for values in (scores, right)
    )
    seen = probe.scores(pooled, augmented, groups)
    return OfAugmentation(*images, probe.auroc(augmented, seen, groups), probe.auroc(augmented, scores, groups), *means)
