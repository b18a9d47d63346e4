"""A phase's probabilities -> its curves, each with a band of 95 % intervals by resampling the patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from train.evaluation.intervals import bootstrap, interval
from train.evaluation.metrics import BINS, Floats, Labels, Ranked
from train.evaluation.results import Finished, ResultsError

RATES = np.linspace(0, 1, 51)  # of false positives, of positives found (from the second on), and thresholds
SWEPT = ("sensitivity", "specificity", "balanced accuracy")


class Scored(NamedTuple):
    """The predictions of one phase of a run for test, or for val if there is no test.

    `rows` are those of predictions.csv; `labels` and `predicted` (at the chosen threshold, if there is one) are indices
    into `classes`, `probabilities` of shape (images, classes), `patients` each image's patient as a number.
    """

    split: str
    rows: pd.DataFrame
    classes: tuple[str, ...]
    labels: Labels
    predicted: Labels
    probabilities: Floats
    patients: NDArray[np.intp]


class Band(NamedTuple):
    """A curve with the 95 % interval of each point: four arrays of one length, nan where not defined."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


class Ranking(NamedTuple):
    """How well one class's probabilities rank it before the others.

    `roc` is the sensitivity at no more than a rate of false positives, `precision_recall` the precision where at least
    a share of the positives is found.
    """

    roc: Band
    precision_recall: Band


class Reliability(NamedTuple):
    """The observed frequency against the mean predicted probability, by bin; `counts` are the images of each bin."""

    observed: Band
    counts: NDArray[np.int64]


class Curves(NamedTuple):
    """All curves of a phase: `ranking` of each class (with two, of the second only), `sweep` only with two classes."""

    ranking: dict[str, Ranking]
    reliability: Reliability
    sweep: dict[str, Band]


def scored(run: Finished, phase: str) -> Scored:
    """The phase's labels and probabilities.

    Raises:
        ResultsError: predictions.csv is not as `fit` writes it.
    """
    split = run.metrics[phase].split
    classes = tuple(run.settings["classes"])
    try:
        chosen = (run.predictions["phase"] == phase) & (run.predictions["split"] == split)
        rows = run.predictions[chosen].reset_index(drop=True)
        probabilities = rows[[f"p({label})" for label in classes]].to_numpy(float)
        point = next(name for name in ("chosen", "most probable", "0.5") if f"predicted ({name})" in rows)
        numbers = {label: index for index, label in enumerate(classes)}
        labels, predicted = (
            rows[name].astype(str).map(numbers).to_numpy(float) for name in ("label", f"predicted ({point})")
        )
        patients = np.unique(rows["group"].astype(str), return_inverse=True)[1]
        rows = rows.assign(path=rows["path"].astype(str))
    except (KeyError, ValueError, TypeError, StopIteration) as error:
        raise ResultsError(f"{run.name}: predictions.csv is damaged ({error}); train the run again") from None
    unknown = np.isnan(labels) | np.isnan(predicted)
    if not len(rows) or unknown.any() or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ResultsError(
            f"{run.name}: predictions.csv is damaged: expected a row for each {split} image in phase {phase}, labels "
            f"of {', '.join(classes)} and probabilities from 0 to 1; train the run again"
        )
    return Scored(split, rows, classes, labels.astype(np.int64), predicted.astype(np.int64), probabilities, patients)


def curves(of: Scored) -> Curves:
    """All curves of a phase, with bands."""
    two = len(of.classes) == 2
    positive = {label: index for index, label in enumerate(of.classes) if not two or index == 1}
    sorters = {label: _Sorted(of.labels == index, of.probabilities[:, index]) for label, index in positive.items()}
    if two:
        predicted, observed = of.probabilities[:, 1], of.labels == 1
    else:
        predicted, observed = of.probabilities.max(axis=1), of.probabilities.argmax(axis=1) == of.labels
    which = np.minimum((predicted * BINS).astype(int), BINS - 1)

    def points(weights: Floats) -> dict[str, Floats]:
        found = {"observed": _rate(np.bincount(which, weights * observed, BINS).astype(float), which, weights)}
        for label, sorter in sorters.items():
            found |= {f"{name} of {label}": values for name, values in sorter.rates(weights, sweep=two).items()}
        return found

    def drawn(weights: Floats) -> dict[str, Floats]:
        parts = [points(each) for each in weights]
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}

    values, draws = points(np.ones(len(of.labels))), bootstrap(drawn, of.patients)

    def band(name: str, x: Floats, patients: Sequence[int], given: float | None = None) -> Band:
        """The band of a curve; `given` is where the curve's value is so by definition."""
        y = values[name]
        bounds = [(value, value) if place == given else (0.0, 1.0) for place, value in zip(x, y, strict=True)]
        ends = [interval(value, draws[name][:, place], patients[place], bounds[place]) for place, value in enumerate(y)]
        low, high = np.array(ends).T
        return Band(x, y, low, high)

    ranking = {}
    for label, index in positive.items():
        count = [_patients(of, of.labels == index)] * len(RATES)
        both = [min(*count, _patients(of, of.labels != index))] * len(RATES)
        ranking[label] = Ranking(
            band(f"roc of {label}", RATES, both, given=1), band(f"precision of {label}", RATES[1:], count)
        )
    reliability = Reliability(
        band(
            "observed",
            _rate(np.bincount(which, predicted, BINS).astype(float), which, np.ones(len(predicted))),
            [_patients(of, which == place) for place in range(BINS)],
        ),
        np.bincount(which, minlength=BINS),
    )
    sweep = {}
    if two:
        of_class = [_patients(of, of.labels == index) for index in range(2)]
        counts = (of_class[1], of_class[0], min(of_class))
        sweep = {
            name: band(f"{name} of {of.classes[1]}", RATES, [count] * len(RATES), given=0)
            for name, count in zip(SWEPT, counts, strict=True)
        }
    return Curves(ranking, reliability, sweep)


def _patients(of: Scored, chosen: NDArray[np.bool_]) -> int:
    return len(np.unique(of.patients[chosen]))


class _Sorted(Ranked):
    """A class's images by falling probability, and the curves of a resampling."""

    def rates(self, weights: Floats, *, sweep: bool) -> dict[str, Floats]:
        true, false = self.above(weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            sensitivity, fallout = true / true[-1], false / false[-1]
            precision = true / (true + false)
            at_most = np.searchsorted(fallout[self.ends], RATES + 1e-9, side="right") - 1
            at_least = np.searchsorted(sensitivity[self.ends], RATES[1:] - 1e-9)
            at_least = np.minimum(at_least, len(self.ends) - 1)
            found = {
                "roc": sensitivity[self.ends][at_most] + 0 * fallout[-1],
                "precision": precision[self.ends][at_least] + 0 * sensitivity[-1],
            }
            if sweep:
                reached = np.searchsorted(-self.scores, -RATES, side="right")  # images at or above each threshold
                found["sensitivity"], found["specificity"] = sensitivity[reached], 1 - fallout[reached]
                found["balanced accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
        return found


def _rate(sums: Floats, which: NDArray[np.int64], weights: Floats) -> Floats:
    counts = np.bincount(which, weights, BINS)
    return np.divide(sums, counts, out=np.full(BINS, np.nan), where=counts > 0)
