"""Whether the intervals hold what is true, and the tests their level, by simulation; benchmarks/coverage.py has more."""

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import coverage

REPEATS = 120


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "patients"), [(2, 30), (2, 120), (3, 40)])
def test_every_interval_holds_what_is_true(classes: int, patients: int) -> None:
    """Patients of one to four images that are alike; both models, and the difference between them.

    An interval that holds the truth in 90 % of samples falls below the bound in fewer than one of 100,000 runs; the
    percentile bootstrap held the calibrated model's error in 0 %.
    """
    true = coverage.truth(coverage.draw(100_000, classes, np.random.default_rng(0)))
    measured = coverage.coverage(patients, classes, REPEATS, true)
    least = binom.ppf(1e-5, REPEATS, 0.9) / REPEATS
    assert {"auroc", "auprc", "brier", "ece", "ece, calibrated", "difference of AUROC", "difference of accuracy"} <= (
        set(measured)
    )
    assert {name: share for name, share in measured.items() if share < least} == {}


@pytest.mark.slow
def test_tests_over_patients_keep_their_level() -> None:
    """Between models that are equally good they find a difference in 5 % of samples, not in much more."""
    alarms = coverage.false_alarms(60, 2, 300)
    most = binom.ppf(1 - 1e-5, 300, 0.06) / 300
    assert alarms["accuracy: permutation of patients"] <= most
    assert alarms["AUROC: Obuchowski"] <= most
