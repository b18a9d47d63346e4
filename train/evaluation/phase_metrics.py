"""What is measured of a phase of training, as metrics.json has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cattrs
import numpy as np

# What has a default is left out of the JSON where it is that; what is wrong in it is a ValueError, TypeError or the like.
_CONVERTER = cattrs.Converter(
    omit_if_default=True, detailed_validation=False, unstruct_collection_overrides={tuple: list}
)


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval over the patients, rounded; where one is not defined, it is None for a `reason`."""

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""

    @classmethod
    def of(cls, value: float, low: float, high: float, lacking: str) -> "Estimate":
        """Of numbers, nan where not defined; `lacking` says why, if one is."""
        first, *bounds = (round(float(number), 6) if np.isfinite(number) else None for number in (value, low, high))
        return cls(first, bounds[0], bounds[1], lacking if None in (first, *bounds) else "")

    def __str__(self) -> str:
        """`0.838 [0.801, 0.871]`, or why the figure or its interval is not defined."""
        if self.value is None:
            return f"not defined: {self.reason}"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} ({self.reason})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class OperatingPoint:
    """The figures of decisions: at a threshold, or for the most probable class; over several classes the mean."""

    accuracy: Estimate
    balanced_accuracy: Estimate
    sensitivity: Estimate
    specificity: Estimate
    f1: Estimate
    confusion: list[list[int]]  # rows true, columns predicted


@dataclass(frozen=True)
class ClassMetrics:
    """The figures of one of several classes against the rest."""

    auroc: Estimate
    auprc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    f1: Estimate


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """All figures on the images of a split. `decisions` are by operating point: `0.5` and `chosen`, or `most probable`."""

    images: int
    patients: int
    positive: str | None = None  # of two classes
    auroc: Estimate
    auprc: Estimate
    brier: Estimate
    ece: Estimate  # expected calibration error
    decisions: dict[str, OperatingPoint]
    per_class: dict[str, ClassMetrics] = field(default_factory=dict)  # of more than two

    @property
    def accuracy(self) -> Estimate:
        """At the first operating point: a threshold of 0.5, or the most probable class."""
        return next(iter(self.decisions.values())).accuracy


@dataclass(frozen=True)
class Threshold:
    """An image is called positive if its probability is at least `value`.

    Every threshold t with low < t <= high, `interval`, decides the validation images alike; where `low` is 0, so does 0.
    """

    value: float
    interval: tuple[float, float]
    chosen_by: str


@dataclass(frozen=True)
class Scores:
    """What a temperature changes."""

    brier: Estimate
    ece: Estimate


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The temperature that the logits were divided by, and the scores without it."""

    temperature: float
    reason: str = ""  # why it is 1 and nothing was scaled, where there is no best one
    val_before: Scores
    test_before: Scores | None = None


@dataclass(frozen=True)
class Means:
    """The mean over originals and over augmented images."""

    original: float
    augmented: float


@dataclass(frozen=True)
class OfAugmentation:
    """How the augmented images of a class differ from its originals; `train.data_checks.augmentation` has the terms."""

    originals: int
    augmented: int
    patients: int
    probe: Estimate
    score: Estimate
    probability: Means | None = None
    right: Means | None = None


@dataclass(frozen=True)
class Augmentation:
    """The same of all classes that have both kinds of images in `split`; in the `precision` of the activations."""

    split: str
    classes: dict[str, OfAugmentation]
    precision: str = "float32"  # older runs don't say it


@dataclass(frozen=True)
class Spread:
    """A figure over the folds: its mean and standard deviations; `repeats` of more than one repeat's means."""

    mean: float
    folds: float
    repeats: float | None = None

    def __str__(self) -> str:
        """`0.991 (folds 0.004, repeats 0.001)`."""
        between = "" if self.repeats is None else f", repeats {self.repeats:.3f}"
        return f"{self.mean:.3f} (folds {self.folds:.3f}{between})"


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """The figures by fold, in the `precision` of the activations that the predictions out of fold come from."""

    folds: int
    repeats: int
    figures: dict[str, Spread]
    precision: str


@dataclass(frozen=True, kw_only=True)
class PhaseMetrics:
    """All that is measured of a phase, `test` if the set has test images.

    Of a cross-validation `val` is of the predictions out of fold, and `test` of the ensemble's.
    """

    calibration: Calibration | None = None
    threshold: Threshold | None = None  # of two classes
    val: Metrics
    test: Metrics | None = None
    augmentation: Augmentation | None = None  # of the last phase
    cross_validation: CrossValidation | None = None

    @property
    def split(self) -> str:
        """The split whose figures count: test, if there is one."""
        return "test" if self.test else "val"

    @property
    def measured(self) -> Metrics:
        """The figures of that split."""
        return self.test or self.val

    @property
    def is_worse_scaled(self) -> bool:
        """Whether the temperature, fitted elsewhere, made the Brier score on test worse.

        It changes no ranking, so that what it changes of the Brier score is how well probabilities are calibrated.
        """
        if not (self.calibration and self.calibration.test_before and self.test):
            return False
        before, after = self.calibration.test_before.brier.value, self.test.brier.value
        return before is not None and after is not None and after > before


def to_json(measured: object) -> Any:
    """Any of these, or a mapping to them, as JSON values."""
    return _CONVERTER.unstructure(measured)


def from_json(read: Mapping[str, Any]) -> dict[str, PhaseMetrics]:
    """The phases of a metrics.json, read.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, ArithmeticError: it isn't one; the kind is that of the first thing amiss.
    """
    return _CONVERTER.structure(read, dict[str, PhaseMetrics])
