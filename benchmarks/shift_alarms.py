"""Measures how often a set whose test images are of train's kind is said to differ, and a set that does differ is not.

A set has two classes; images are noise, as many numbers as a network gives and eight statistics, a few images a patient that
are alike. With `--shift` test images of both classes have so much more of some numbers. Printed is the share of sets of
which anything is said, and the share in which an interval of an AUROC out of fold lies above 0.5, which is no test.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from train.data_checks import shift, shift_summary
from train.data_checks.image_statistics import STATISTICS
from train.dataset import Dataset

CLASSES = ("NORMAL", "PNEUMONIA")


def measured(given: argparse.Namespace, rng: np.random.Generator) -> shift.Shift:
    """The shift of a set of noise: so many images of each class in train and in test."""
    label, is_test = (each.ravel() for each in np.meshgrid([0, 1], np.arange(2 * given.images) >= given.images))
    patient = np.unique(
        np.c_[label, is_test, np.arange(len(label)) // 2 // given.of_patient], axis=0, return_inverse=True
    )[1].ravel()

    def alike(columns: int) -> np.ndarray:
        return rng.normal(size=(patient.max() + 1, columns))[patient] + rng.normal(size=(len(patient), columns))

    pooled = alike(given.features) * np.linspace(3, 0.1, given.features)
    pooled[is_test, : given.features // 10] += given.shift
    statistics = pd.DataFrame(alike(len(STATISTICS)), columns=list(STATISTICS))
    names = [f"{number:05}" for number in range(len(label))]
    rows = pd.DataFrame(
        {
            "path": names,
            "label": np.array(CLASSES)[label],
            "is_test": is_test,
            "sha256": names,
            "group": patient.astype(str),
        }
    )
    dataset = Dataset(rows, {}, CLASSES, (8, 8), Path(), "")
    return shift.Shift(
        "source",
        "",
        shift.of_classes(dataset, shift.Images(rows, pooled, statistics, statistics), "source"),
        {},
        {},
        {},
    )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="how many")
    parser.add_argument("--images", type=int, default=150, help="of a class in train, and in test")
    parser.add_argument("--of-patient", type=int, default=1, help="images of a patient")
    parser.add_argument("--features", type=int, default=256, help="numbers that the network gives")
    parser.add_argument("--shift", type=float, default=0.0, help="of a tenth of the numbers, in test")
    given = parser.parse_args()
    said, above = [], []
    for number in range(given.sets):
        found = measured(given, np.random.default_rng(number))
        said.append("more than chance" in " ".join(shift_summary.summary(found, {})[0].findings))
        ends = [each.low or 0 for of in found.classes.values() for each in (of.network, of.statistics)]
        above.append(max(ends) > 0.5)
    print(f"{given.sets} sets: {np.mean(said):.3f} said to differ; an interval above 0.5 in {np.mean(above):.3f}")


if __name__ == "__main__":
    main()
