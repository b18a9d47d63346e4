"""Measures how often the 95 % intervals hold the true figure, and how often the tests find a difference that isn't there.

Patients of one to four images are drawn, whose labels and probabilities are alike within a patient. Two models judge
them: one is calibrated, the other too sure and shifted. What is true of them is known from 400,000 patients. For
the tests the two models are equally good, and each errs by patients. Prints tables for a README.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, softmax

sys.path.insert(0, str(Path(__file__).parents[1]))

from train.evaluation import compare as difference
from train.evaluation import metrics
from train.evaluation.phase_metrics import Estimate

LIKENESS = 0.6  # of the images of a patient: the share of the variance that they have in common
THRESHOLD = 0.4
TRUE = 400_000  # patients

Floats = NDArray[np.floating[Any]]


class Sample(NamedTuple):
    """Images of some patients: labels, patients, and the probabilities of two models, (images, classes) each."""

    labels: NDArray[np.int64]
    patients: NDArray[np.intp]
    first: Floats
    second: Floats


def draw(patients: int, classes: int, rng: np.random.Generator, *, equal: bool = False) -> Sample:
    """Images of so many patients; with `equal` both models are as good as each other."""
    code = np.repeat(np.arange(patients), rng.integers(1, 5, patients))

    def alike(columns: int) -> Floats:
        of_patient, of_image = rng.normal(size=(patients, columns))[code], rng.normal(size=(len(code), columns))
        return np.sqrt(LIKENESS) * of_patient + np.sqrt(1 - LIKENESS) * of_image

    logits = 1.6 * alike(classes) - 0.2 * np.arange(classes)
    true = softmax(logits, axis=1)
    labels = (np.cumsum(true, axis=1)[:, :-1] < ndtr(alike(1))).sum(axis=1)
    if equal:
        return Sample(labels, code, *(softmax(logits + 0.7 * alike(classes), axis=1) for _ in range(2)))
    worse = softmax(2 * (logits + 0.5 * alike(classes)) + 0.3 * np.arange(classes), axis=1)
    return Sample(labels, code, true, worse)


def truth(sample: Sample) -> dict[str, float]:
    """The figures of the second model, the calibration error of the first, and the differences, of a large sample."""
    found = []
    for probabilities in (sample.first, sample.second):
        rankings, decided = metrics.ranked(sample.labels, probabilities), metrics.decisions(probabilities, THRESHOLD)
        weights = np.ones((1, len(sample.labels)))
        values = metrics.figures_of(sample.labels, probabilities, rankings, decided, weights)
        found.append({name: float(np.abs(value[0]).sum()) for name, value in values.items()})
    first, second = found
    of_models = {name.replace("gaps", "ece"): value for name, value in second.items()}
    return of_models | {
        "ece, calibrated": first["gaps"],
        "difference of AUROC": second["auroc"] - first["auroc"],
        "difference of accuracy": second[_accuracy(second)] - first[_accuracy(first)],
    }


def intervals(sample: Sample, classes: int) -> dict[str, Estimate]:
    """What the program gives for the same figures."""
    names, groups = tuple(f"{index}" for index in range(classes)), sample.patients.astype(str)
    threshold = THRESHOLD if classes == 2 else None
    first, second = (
        metrics.metrics(sample.labels, probabilities, groups, names, threshold)
        for probabilities in (sample.first, sample.second)
    )
    found = {name: getattr(second, name) for name in metrics.RANKED} | {"ece, calibrated": first.ece}
    for point, decided in second.decisions.items():
        found |= {f"{name} {point}": getattr(decided, name) for name in metrics.DECIDED}
    for label, of_class in second.per_class.items():
        found |= {f"{name} of {label}": getattr(of_class, name) for name in metrics.OF_CLASS}
    for row in compare(sample, names):
        if row["figure"] in ("AUROC", "accuracy at 0.5", "accuracy, most probable"):
            name = f"difference of {row['figure'].split(',')[0].split(' ')[0]}"
            found[name] = Estimate(row["difference"], row["low"], row["high"])
    return found


def compare(sample: Sample, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The two models, compared as `compare` compares runs."""
    images = pd.DataFrame({"label": np.array(names)[sample.labels], "group": sample.patients.astype(str)})
    models = []
    for probabilities in (sample.first, sample.second):
        decided = metrics.decisions(probabilities, None)
        right = {point: predicted == sample.labels for point, predicted in decided.items()}
        models.append(difference.Judgement("model", images, names, probabilities, right))
    return difference.compared(*models)


def coverage(patients: int, classes: int, repeats: int, true: dict[str, float]) -> dict[str, float]:
    """The share of samples whose interval holds what is true, by figure."""
    held: dict[str, list[bool]] = defaultdict(list)
    for repeat in range(repeats):
        sample = draw(patients, classes, np.random.default_rng((patients, classes, repeat)))
        for name, figure in intervals(sample, classes).items():
            if figure.low is not None and figure.high is not None and np.isfinite(figure.low):
                held[name].append(figure.low - 1e-6 <= true[name] <= figure.high + 1e-6)
    return {name: float(np.mean(each)) for name, each in held.items()}


def false_alarms(patients: int, classes: int, repeats: int) -> dict[str, float]:
    """The share of samples in which a test finds a difference at p < 0.05 between models that are equally good."""
    found: dict[str, list[bool]] = defaultdict(list)
    for repeat in range(repeats):
        sample = draw(patients, classes, np.random.default_rng((patients, classes, repeat)), equal=True)
        auroc, accuracy = compare(sample, tuple(f"{index}" for index in range(classes)))
        found["AUROC: Obuchowski"].append(auroc["p"] < difference.LEVEL)
        found["accuracy: permutation of patients"].append(accuracy["p"] < difference.LEVEL)
        found["accuracy: McNemar"].append(accuracy["p_mcnemar"] < difference.LEVEL)
    return {name: float(np.mean(each)) for name, each in found.items()}


def _accuracy(values: dict[str, float]) -> str:
    return next(name for name in values if name.startswith("accuracy"))


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 25, 75, 250], help="sizes of a sample")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3], help="numbers of classes")
    parser.add_argument("--repeats", type=int, default=400, help="samples of each size")
    given = parser.parse_args()
    for classes in given.classes:
        true = truth(draw(TRUE, classes, np.random.default_rng(classes)))
        columns = {f"{count} patients": coverage(count, classes, given.repeats, true) for count in given.patients}
        table = pd.DataFrame(columns)
        table.insert(0, "true", pd.Series(true))
        print(f"\nCoverage of the 95 % intervals, {classes} classes, {given.repeats} samples\n")
        _print(table)
    alarms = {f"{count} patients": false_alarms(count, 2, given.repeats) for count in given.patients}
    print(f"\nDifferences found at p < {difference.LEVEL} between equal models, {given.repeats} samples\n")
    _print(pd.DataFrame(alarms))


def _print(table: pd.DataFrame) -> None:
    print(f"| figure | {' | '.join(table.columns)} |\n| --- |{' --: |' * len(table.columns)}")
    for name, row in table.iterrows():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} |", flush=True)


if __name__ == "__main__":
    main()
