"""Predictions out of fold -> the images whose labels may be wrong, the likeliest first, and how many there may be.

Confident learning: an image counts as of another class if that class is the most probable of those that are as probable
in it as they are, on average, in the images that bear their label. So a class that the members are less sure of needs less.

Source: Northcutt, Jiang, Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels, Journal of
Artificial Intelligence Research 70, arXiv 1911.00068.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from train.evaluation.metrics import Floats, Labels

COLUMNS = (
    "path", "source_sha256", "label", "group", "suggested", "p(given)", "p(suggested)", "score", "rank", "why"
)  # fmt: skip
PREDICTION = "prediction"  # why an image is listed; of the other reason see `same_picture`
_SAME_PICTURE = "same picture: "
_TOLERANCE = 1e-12  # of probabilities and their mean that are equal but for rounding


class Twin(NamedTuple):
    """An image that is the same picture as another, whose label is another one: places among the images."""

    row: int
    other: int


def same_picture(path: str) -> str:
    """Why an image is listed that is the same picture as another with another label."""
    return f"{_SAME_PICTURE}{path}"


def twin_of(why: str) -> str:
    """The path of the other image; empty where an image is listed for its prediction."""
    return why.removeprefix(_SAME_PICTURE) if why != PREDICTION else ""


def confident(labels: Labels, probabilities: Floats) -> Labels:
    """As which class each image is counted: the most probable of those at or above their thresholds; -1: none is.

    A class's threshold is its mean probability in the images that are labelled so. A class without images has none.

    Args:
        labels: (images,) indices of the classes, as given.
        probabilities: (images, classes) out of fold.
    """
    classes = probabilities.shape[1]
    thresholds = np.full(classes, np.inf)
    for index in np.unique(labels):
        thresholds[index] = probabilities[labels == index, index].mean()
    reached = np.where(probabilities >= thresholds - _TOLERANCE, probabilities, -np.inf)
    return np.where(np.isfinite(reached).any(axis=1), reached.argmax(axis=1), -1)


def confident_joint(labels: Labels, counted: Labels, classes: int) -> NDArray[np.int64]:
    """How many images of each given label (rows) are counted as each class (columns)."""
    known = counted >= 0
    flat = np.bincount(labels[known] * classes + counted[known], minlength=classes**2)
    return flat.reshape(classes, classes).astype(np.int64)


def estimated_errors(labels: Labels, joint: NDArray[np.int64]) -> Floats:
    """How many labels of each class are wrong: the joint, each row scaled to all images of its label.

    Args:
        labels: (images,).
        joint: (classes, classes), as `confident_joint` gives it.
    """
    images = np.bincount(labels, minlength=len(joint))
    counted = joint.sum(axis=1)
    wrong: Floats = images * (counted - np.diag(joint)) / np.maximum(counted, 1)
    return wrong


def scores(labels: Labels, probabilities: Floats) -> Floats:
    """The normalised margin of each image's own label: 0 if another class is certain, 1 if it is, 0.5 at a tie."""
    places = np.arange(len(labels))
    others = probabilities.copy()
    others[places, labels] = -np.inf
    margins: Floats = (probabilities[places, labels] - others.max(axis=1) + 1) / 2
    return np.clip(margins, 0, 1)


def by_class(labels: Labels, probabilities: Floats, classes: tuple[str, ...]) -> pd.DataFrame:
    """A row a class: how many images bear its label, how many of them are candidates, how many labels may be wrong."""
    counted = confident(labels, probabilities)
    joint = confident_joint(labels, counted, len(classes))
    return pd.DataFrame(
        {
            "label": classes,
            "images": np.bincount(labels, minlength=len(classes)),
            "candidates": joint.sum(axis=1) - np.diag(joint),
            "estimated wrong": estimated_errors(labels, joint).round(1),
        }
    )


def ranked(
    rows: pd.DataFrame, labels: Labels, probabilities: Floats, classes: tuple[str, ...], twins: list[Twin]
) -> pd.DataFrame:
    """The images whose labels may be wrong, as COLUMNS has them.

    First those that the predictions speak against, then those that are the same picture as one with another label; in each
    part by rising score, and `rank` counts within the label. An image may be in both parts.

    Args:
        rows: of the images, with path, source_sha256, label and group.
        labels: (images,) their labels as indices.
        probabilities: (images, classes) out of fold.
        classes: their names.
        twins: the images that are the same picture as another.
    """
    counted = confident(labels, probabilities)
    doubtful = np.flatnonzero((counted >= 0) & (counted != labels))
    paths = rows["path"].to_numpy()
    of_twins = np.array([twin.row for twin in twins], np.int64)
    parts = [
        _part(rows, labels, probabilities, classes, doubtful, counted[doubtful]).assign(why=PREDICTION),
        _part(
            rows, labels, probabilities, classes, of_twins, labels[np.array([twin.other for twin in twins], np.int64)]
        ).assign(why=[same_picture(paths[twin.other]) for twin in twins]),
    ]
    sorted_parts = [part.sort_values(["score", "path"], kind="stable") for part in parts]
    found = pd.concat(
        [part.assign(rank=part.groupby("label").cumcount() + 1) for part in sorted_parts], ignore_index=True
    )
    return found[list(COLUMNS)]


def _part(
    rows: pd.DataFrame,
    labels: Labels,
    probabilities: Floats,
    classes: tuple[str, ...],
    places: NDArray[np.int64],
    suggested: Labels,
) -> pd.DataFrame:
    """Some images, with the class that is suggested for each."""
    found = rows.iloc[places][["path", "source_sha256", "label", "group"]].reset_index(drop=True)
    found["suggested"] = pd.Series([classes[index] for index in suggested], dtype=object)
    found["p(given)"] = probabilities[places, labels[places]]
    found["p(suggested)"] = probabilities[places, suggested]
    found["score"] = scores(labels, probabilities)[places]
    return found
