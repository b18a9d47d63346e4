"""Labels and probabilities -> figures, each with an interval by resampling the patients."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000  # of the patients
BINS = 15  # of the expected calibration error
RANKED = ("auroc", "auprc", "brier", "ece")  # need no decision
DECIDED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1")

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


class Ranked:
    """A class's images by falling probability, sorted once, so that a resampling costs two sums."""

    def __init__(self, positive: NDArray[np.bool_], scores: Floats) -> None:
        self.order = np.argsort(-scores, kind="stable")
        self.positive = positive[self.order]
        self.scores = scores[self.order]
        # After each run of equal scores, which no threshold tells apart. 0 stands for no image at all.
        self.ends = np.r_[0, np.flatnonzero(np.diff(self.scores, append=-np.inf) != 0) + 1]

    def above(self, weights: Floats) -> tuple[Floats, Floats]:
        """How many positive and other images are among the first 0, 1, 2, ...; `weights` is how often each counts."""
        drawn = weights[self.order]
        return np.r_[0, np.cumsum(drawn * self.positive)], np.r_[0, np.cumsum(drawn * ~self.positive)]

    def areas(self, weights: Floats) -> tuple[float, float]:
        """AUROC and average precision, as scikit-learn's functions of these names give them; nan without both kinds."""
        true, false = (counts[self.ends] for counts in self.above(weights))
        if not (true[-1] and false[-1]):
            return np.nan, np.nan
        with np.errstate(invalid="ignore"):  # where the first images weigh nothing
            precision = np.nan_to_num(true[1:] / (true[1:] + false[1:]))
        return float(np.trapezoid(true, false) / (true[-1] * false[-1])), float(np.diff(true) @ precision / true[-1])


def ranked(labels: Labels, probabilities: Floats) -> list[Ranked]:
    """Of two classes the second against the first, of more each against the rest."""
    classes = probabilities.shape[1]
    return [Ranked(labels == index, probabilities[:, index]) for index in (range(classes) if classes > 2 else [1])]


def metrics(
    labels: Labels, probabilities: Floats, groups: NDArray[Any], classes: tuple[str, ...], threshold: float | None
) -> dict[str, Any]:
    """AUROC, AUPRC, Brier score and calibration error; and for each way to decide accuracy, sensitivity and the like.

    Each figure is {value, low, high}: the interval holds the middle 95 % of what resampling the patients gives
    (all images of one come or stay away together). What the images don't define is None. With two classes the
    second is the positive one, and decisions are made at 0.5 and at `threshold`; with more the most probable class
    is taken, the figures are means over the classes, and `per_class` has each against the rest.

    Args:
        labels: (images,) indices into `classes`.
        probabilities: (images, classes).
        groups: (images,) whom each image shows.
        classes: their names.
        threshold: with two classes, the one that was chosen.
    """
    decided, rankings = decisions(probabilities, threshold), ranked(labels, probabilities)

    def told(weights: Floats) -> dict[str, float]:
        return _figures(labels, probabilities, rankings, decided, weights)

    patients, code = np.unique(groups.astype(str), return_inverse=True)
    intervals = bootstrap(told, code)
    numbers = told(np.ones(len(labels)))
    figures = {name: _interval(value, *intervals[name]) for name, value in numbers.items()}
    result: dict[str, Any] = {"images": len(labels), "patients": len(patients)} | {
        name: figures[name] for name in RANKED
    }
    result["decisions"] = {
        way: {name: figures[f"{name} {way}"] for name in DECIDED}
        | {"confusion": _confusion(labels, predicted, len(classes)).astype(int).tolist()}
        for way, predicted in decided.items()
    }
    if len(classes) > 2:
        names = ("auroc", "auprc", "sensitivity", "specificity", "f1")
        result["per_class"] = {
            label: {name: figures[f"{name} of {index}"] for name in names} for index, label in enumerate(classes)
        }
    return result


def decisions(probabilities: Floats, threshold: float | None) -> dict[str, Labels]:
    """What each image is taken for, by way of deciding: `0.5` and `chosen`, or `most probable` of several."""
    if probabilities.shape[1] > 2:
        return {"most probable": probabilities.argmax(axis=1)}
    ways = {"0.5": 0.5} | ({} if threshold is None else {"chosen": threshold})
    return {way: (probabilities[:, 1] >= value).astype(np.int64) for way, value in ways.items()}


def bootstrap(told: Callable[[Floats], dict[str, float]], code: NDArray[np.intp]) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of figures, by drawing patients with replacement; nan where they are seldom defined.

    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.4 and 3.8.

    Args:
        told: figures by name, from how often each image is drawn.
        code: (images,) the patient's number, 0 to patients - 1.
    """
    rng = np.random.default_rng(0)
    patients = int(code.max()) + 1
    drawn: dict[str, list[float]] = {}
    for counts in rng.multinomial(patients, np.full(patients, 1 / patients), size=RESAMPLES):
        for name, value in told(counts[code].astype(float)).items():
            drawn.setdefault(name, []).append(value)
    found = {}
    for name, values in drawn.items():
        defined = np.array(values)[np.isfinite(values)]
        enough = len(defined) > RESAMPLES * 0.95
        low, high = np.percentile(defined, [2.5, 97.5]) if enough else (np.nan, np.nan)
        found[name] = (float(low), float(high))
    return found


def _figures(
    labels: Labels, probabilities: Floats, rankings: list[Ranked], decided: dict[str, Labels], weights: Floats
) -> dict[str, float]:
    """All figures by name, nan where not defined; `weights` is how often each image counts."""
    classes = probabilities.shape[1]
    curves = [ranking.areas(weights) for ranking in rankings]
    areas = np.mean(curves, axis=0)
    told = {"auroc": float(areas[0]), "auprc": float(areas[1])}
    told["brier"] = _brier(labels, probabilities, weights)
    told["ece"] = _calibration_error(labels, probabilities, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        for way, predicted in decided.items():
            confusion = _confusion(labels, predicted, classes, weights)
            right, of_class, as_class = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
            total = confusion.sum()
            sensitivity = right / of_class
            specificity = (total - of_class - as_class + right) / (total - of_class)
            f1 = 2 * right / (of_class + as_class)
            of_positive = slice(None) if classes > 2 else 1  # the mean over the classes, or the positive one's
            told |= {
                f"accuracy {way}": right.sum() / total,
                f"balanced_accuracy {way}": sensitivity.mean(),
                f"sensitivity {way}": np.mean(sensitivity[of_positive]),
                f"specificity {way}": np.mean(specificity[of_positive]),
                f"f1 {way}": np.mean(f1[of_positive]),
            }
            for index, of_one in enumerate(curves if classes > 2 else []):
                told |= {f"auroc of {index}": of_one[0], f"auprc of {index}": of_one[1], f"f1 of {index}": f1[index]}
                told[f"sensitivity of {index}"] = sensitivity[index]
                told[f"specificity of {index}"] = specificity[index]
    return told


def _confusion(labels: Labels, predicted: Labels, classes: int, weights: Floats | None = None) -> Floats:
    """Rows true, columns predicted."""
    counted = np.bincount(labels * classes + predicted, weights, minlength=classes**2)
    return counted.reshape(classes, classes).astype(float)


def _brier(labels: Labels, probabilities: Floats, weights: Floats) -> float:
    """The mean squared error of the positive class's probability; of several classes, summed over them."""
    if probabilities.shape[1] == 2:
        return float(np.average((probabilities[:, 1] - labels) ** 2, weights=weights))
    return float(
        np.average(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1), weights=weights)
    )


def _calibration_error(labels: Labels, probabilities: Floats, weights: Floats) -> float:
    """Expected calibration error in BINS equal bins: of the positive class; of several, of the most probable one.

    Source: Naeini et al. (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning.
    """
    if probabilities.shape[1] == 2:
        told, came = probabilities[:, 1], labels == 1
    else:
        told, came = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    which = np.minimum((told * BINS).astype(int), BINS - 1)
    gaps = np.bincount(which, weights * (told - came), minlength=BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def _interval(value: float, low: float, high: float) -> dict[str, float | None]:
    """JSON has no nan."""
    names = {"value": value, "low": low, "high": high}
    return {name: round(float(number), 6) if np.isfinite(number) else None for name, number in names.items()}
