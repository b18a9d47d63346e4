"""Labels and probabilities -> figures, each with an interval by resampling the patients, or why there is none."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.evaluation.intervals import bootstrap, calibration_error_interval, interval
from train.evaluation.phase_metrics import ClassMetrics, Estimate, Metrics, OperatingPoint

BINS = 15  # of the expected calibration error
RANKED = ("auroc", "auprc", "brier", "ece")  # need no decision
DECIDED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1")
OF_CLASS = ("auroc", "auprc", "sensitivity", "specificity", "f1")

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


class Ranked:
    """A class's images by falling probability, sorted once, so that a resampling costs two sums."""

    def __init__(self, positive: NDArray[np.bool_], scores: Floats) -> None:
        self.order = np.argsort(-scores, kind="stable")
        self.positive = positive[self.order]
        self.scores = scores[self.order]
        # After each run of equal scores, which no threshold separates. 0 stands for no image at all.
        self.ends = np.r_[0, np.flatnonzero(np.diff(self.scores, append=-np.inf) != 0) + 1]

    def above(self, weights: Floats) -> tuple[Floats, Floats]:
        """How many positive and other images are among the first 0, 1, 2, ...

        Args:
            weights: (..., images) how often each counts.

        Returns:
            Two arrays of shape (..., images + 1).
        """
        drawn = weights[..., self.order]
        none = np.zeros((*weights.shape[:-1], 1))
        true, false = (np.cumsum(drawn * kind, axis=-1) for kind in (self.positive, ~self.positive))
        return np.concatenate([none, true], axis=-1), np.concatenate([none, false], axis=-1)

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """AUROC and average precision, as scikit-learn's functions of these names give them; nan without both kinds.

        Args:
            weights: (..., images) how often each counts.
        """
        true, false = (counts[..., self.ends] for counts in self.above(weights))
        with np.errstate(divide="ignore", invalid="ignore"):
            defined = np.where((true[..., -1] > 0) & (false[..., -1] > 0), 1, np.nan)
            precision = np.nan_to_num(true[..., 1:] / (true[..., 1:] + false[..., 1:]))  # the first may weigh nothing
            auroc = np.trapezoid(true, false, axis=-1) / (true[..., -1] * false[..., -1])
            average = (np.diff(true, axis=-1) * precision).sum(axis=-1) / true[..., -1]
        return auroc * defined, average * defined


def ranked(labels: Labels, probabilities: Floats) -> list[Ranked]:
    """Of two classes the second against the first, of more each against the rest."""
    classes = probabilities.shape[1]
    return [Ranked(labels == index, probabilities[:, index]) for index in (range(classes) if classes > 2 else [1])]


def metrics(
    labels: Labels,
    probabilities: Floats,
    groups: NDArray[Any],
    classes: tuple[str, ...],
    threshold: float | None,
    split: str = "test",
    group_name: str = "group",
) -> Metrics:
    """AUROC, AUPRC, Brier score and calibration error; and at each operating point accuracy, sensitivity and the like.

    Intervals take the patients for a sample, as `train.evaluation.intervals` has it. With two classes the second is the
    positive one, and decisions are made at 0.5 and at `threshold`; with more the most probable class is predicted, the
    figures are means over the classes, and `per_class` has each against the rest.

    Args:
        labels: (images,) indices into `classes`.
        probabilities: (images, classes).
        groups: (images,) whom each image shows.
        classes: their names.
        threshold: with two classes, the one that was chosen.
        split: what a reason calls the images.
        group_name: what it calls a group.
    """
    probabilities = probabilities.astype(np.float64)
    decided, rankings = decisions(probabilities, threshold), ranked(labels, probabilities)
    names, patients = np.unique(groups.astype(str), return_inverse=True)

    def figures(weights: Floats) -> dict[str, Floats]:
        return figures_of(labels, probabilities, rankings, decided, weights)

    values = {name: each[0] for name, each in figures(np.ones((1, len(labels)))).items()}
    drawn = bootstrap(figures, patients)
    support = _Support(labels, patients, classes, split, group_name)

    def figure(name: str, kind: str, index: int | None = None) -> Estimate:
        count, lacking = support.of(kind, index)
        if kind == "ece":
            value = np.abs(values["gaps"]).sum()
            low, high = calibration_error_interval(values["gaps"], drawn["gaps"], count)
        else:
            value = values[name]
            low, high = interval(value, drawn[name], count, (0.0, 2.0 if name == "brier" and len(classes) > 2 else 1.0))
        if count >= 2 and np.isnan(low):
            lacking = f"too few resamplings of the {group_name}s hold every class for an interval"
        return Estimate.of(float(value), low, high, lacking)

    return Metrics(
        images=len(labels),
        patients=len(names),
        positive=classes[1] if len(classes) == 2 else None,
        **{name: figure(name, name) for name in RANKED},
        decisions={
            point: OperatingPoint(
                **{name: figure(f"{name} {point}", name) for name in DECIDED},
                confusion=_confusion(labels, predicted, len(classes)),
            )
            for point, predicted in decided.items()
        },
        per_class={
            label: ClassMetrics(**{name: figure(f"{name} of {index}", name, index) for name in OF_CLASS})
            for index, label in enumerate(classes if len(classes) > 2 else ())
        },
    )


def decisions(probabilities: Floats, threshold: float | None) -> dict[str, Labels]:
    """What each image is predicted as, by operating point: `0.5` and `chosen`, or `most probable` of several classes."""
    if probabilities.shape[1] > 2:
        return {"most probable": probabilities.argmax(axis=1)}
    points = {"0.5": 0.5} | ({} if threshold is None else {"chosen": threshold})
    positive = probabilities[:, 1].astype(np.float64)  # else a threshold would be rounded to the array's precision
    return {point: (positive >= value).astype(np.int64) for point, value in points.items()}


class _Support:
    """How many patients a figure rests on, and why it or its interval isn't defined."""

    def __init__(
        self, labels: Labels, patients: NDArray[np.intp], classes: tuple[str, ...], split: str, name: str
    ) -> None:
        self.classes, self.split, self.name, self.all = classes, split, name, len(np.unique(patients))
        self.counts = [len(np.unique(patients[labels == index])) for index in range(len(classes))]
        self.others = [len(np.unique(patients[labels != index])) for index in range(len(classes))]

    def of(self, kind: str, index: int | None) -> tuple[int, str]:
        """The number of patients, and a reason, which counts only where something isn't defined.

        Args:
            kind: the figure.
            index: of the class, for a figure of one of several classes.
        """
        if kind in ("accuracy", "brier", "ece"):
            return self.all, self._reason(self.all, "")
        needed = [index] if index is not None else list(range(len(self.classes)))
        if len(self.classes) == 2:
            needed = {"sensitivity": [1], "f1": [1], "specificity": [0]}.get(kind, [0, 1])
        sides = [(self.counts[each], f"image of {self.classes[each]}") for each in needed]
        if len(self.classes) > 2 and kind in ("auroc", "auprc", "specificity"):
            others = [(self.others[each], f"image of a class other than {self.classes[each]}") for each in needed]
            sides = others if kind == "specificity" else sides + others
        count, what = min(sides, key=lambda side: side[0])
        return count, self._reason(count, what)

    def _reason(self, patients: int, image: str) -> str:
        if patients == 0:
            return f"{self.split} holds no {image}"
        which = f" with an {image}" if image else ""
        return f"an interval needs at least 2 {self.name}s{which}; {self.split} holds {patients}"


def figures_of(
    labels: Labels, probabilities: Floats, rankings: list[Ranked], decided: dict[str, Labels], weights: Floats
) -> dict[str, Floats]:
    """All figures by name, nan where not defined, and the gaps of the calibration error.

    Args:
        labels: (images,).
        probabilities: (images, classes).
        rankings: of the classes.
        decided: (images,) by operating point.
        weights: (resamples, images) how often each image counts.

    Returns:
        Arrays of shape (resamples,); `gaps` of shape (resamples, BINS).
    """
    classes = probabilities.shape[1]
    total = weights.sum(axis=1)
    areas = np.array([ranking.areas(weights) for ranking in rankings])  # (rankings, 2, resamples)
    figures = dict(zip(("auroc", "auprc"), areas.mean(axis=0), strict=True))
    figures["brier"] = weights @ _squared_errors(labels, probabilities) / total
    figures["gaps"] = weights @ _gaps(labels, probabilities) / total[:, None]
    is_class = np.eye(classes)[labels]
    of_class = weights @ is_class
    for point, predicted in decided.items():
        as_class = weights @ np.eye(classes)[predicted]
        right = weights @ (is_class * (predicted == labels)[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            sensitivity = right / of_class
            specificity = (total[:, None] - of_class - as_class + right) / (total[:, None] - of_class)
            f1 = 2 * right / (of_class + as_class)
        of_positive = slice(None) if classes > 2 else slice(1, 2)  # the mean over the classes, or the positive one's
        figures |= {
            f"accuracy {point}": right.sum(axis=1) / total,
            f"balanced_accuracy {point}": sensitivity.mean(axis=1),
            f"sensitivity {point}": sensitivity[:, of_positive].mean(axis=1),
            f"specificity {point}": specificity[:, of_positive].mean(axis=1),
            f"f1 {point}": f1[:, of_positive].mean(axis=1),
        }
        for index in range(classes) if classes > 2 else ():
            of_one = (*areas[index], sensitivity[:, index], specificity[:, index], f1[:, index])
            figures |= {f"{name} of {index}": each for name, each in zip(OF_CLASS, of_one, strict=True)}
    return figures


def _confusion(labels: Labels, predicted: Labels, classes: int) -> list[list[int]]:
    """Rows true, columns predicted."""
    counted: list[list[int]] = (
        np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).tolist()
    )
    return counted


def _squared_errors(labels: Labels, probabilities: Floats) -> Floats:
    """Whose mean is the Brier score: of the positive class's probability; of several classes, summed over them."""
    errors: Floats = (probabilities - np.eye(probabilities.shape[1])[labels]) ** 2
    return errors[:, 1] if probabilities.shape[1] == 2 else errors.sum(axis=1)


def _gaps(labels: Labels, probabilities: Floats) -> Floats:
    """Of each image predicted less observed, in its bin: (images, BINS).

    The absolute means of the columns sum up to the expected calibration error: of the positive class; of several
    classes, of the most probable one.
    Source: Naeini et al. (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning.
    """
    if probabilities.shape[1] == 2:
        predicted, observed = probabilities[:, 1], labels == 1
    else:
        predicted, observed = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    which = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return (predicted - observed)[:, None] * np.eye(BINS)[which]
