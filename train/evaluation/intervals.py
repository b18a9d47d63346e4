"""Figures of resampled patients -> 95 % intervals, checked by simulation in benchmarks/coverage.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

RESAMPLES = 1000  # of the patients
TAIL = 0.025  # that each end leaves out
_DEFINED = 0.2  # of the resamplings, in which a figure must be defined: the others are no sample of what patients give
_FEW = 5  # patients; the least and the largest of fewer hold less than 95 % of what other patients would give
_CELLS = 1_000_000  # weights that are held at once
_SAME = 1e-12  # figures that differ by less are equal but for rounding

Floats = NDArray[np.floating[Any]]


def resamples(tail: float) -> int:
    """How many resamplings an interval needs whose ends leave out so much: as many beyond an end as others have."""
    return max(RESAMPLES, round(RESAMPLES * TAIL / tail))


def bootstrap(
    figures: Callable[[Floats], dict[str, Floats]], patients: NDArray[np.intp], times: int = RESAMPLES
) -> dict[str, Floats]:
    """Figures by name, of patients drawn with replacement: arrays of shape (times, ...).

    All images of a patient come or stay away together.
    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, sections 2.4 and 3.8.

    Args:
        figures: gives arrays of shape (resamples, ...), from how often each image counts, (resamples, images).
        patients: (images,) the patient's number, 0 to patients - 1.
        times: how often.
    """
    count = int(patients.max()) + 1
    rng = np.random.default_rng(0)
    step = max(1, _CELLS // len(patients))
    parts = []
    for at in range(0, times, step):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(step, times - at))
        parts.append(figures(drawn[:, patients].astype(float)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(
    value: float, drawn: Floats, patients: int, bounds: tuple[float, float] = (0.0, 1.0), tail: float = TAIL
) -> tuple[float, float]:
    """The 95 % interval of a figure by the bias-corrected and expanded percentile bootstrap; nan without two patients.

    It is nan, too, where few resamplings define the figure, as where many classes have two patients each.
    The percentiles are moved by what resampling shifts the figure's median, and widened by what Student's t is wider
    than the normal distribution, since resampling few patients varies too little. Where no resampling changes the figure
    (no patient was misjudged, say), the interval is the exact binomial one: a share of all patients of up to
    1 - 0.025 ** (1 / patients) may be of a kind that is not among those seen.

    Source: Efron (1987), Better Bootstrap Confidence Intervals, section 2 (BC); Hesterberg (2015), What Teachers Should
    Know About the Bootstrap, section 4.3 (expanded); Hanley and Lippman-Hand (1983), If Nothing Goes Wrong, Is Everything
    All Right? (the exact bound).

    Args:
        value: the figure.
        drawn: (resamples,) the figure in each resampling, nan where it isn't defined.
        patients: that the figure depends on; of a sensitivity, those with positive images.
        bounds: the least and the largest value that the figure can have.
        tail: what each end leaves out; less of it makes several intervals hold together.
    """
    times = len(drawn)
    drawn = drawn[np.isfinite(drawn)]
    if patients < 2 or len(drawn) < _DEFINED * times or not np.isfinite(value):
        return np.nan, np.nan
    if np.ptp(drawn) < _SAME:
        unseen = 1 - tail ** (1 / patients)
        low, high = ((1 - unseen) * value + unseen * bound for bound in bounds)
        return low, high
    below = np.mean(drawn < value - _SAME) + np.mean(np.abs(drawn - value) <= _SAME) / 2
    shift = ndtri(np.clip(below, 1 / times, 1 - 1 / times))
    width = _width(patients, tail)
    low, high = np.quantile(drawn, ndtr(2 * shift + np.array([-width, width])))
    if patients < _FEW:
        low, high = min(low, value - width * drawn.std()), max(high, value + width * drawn.std())
    return max(bounds[0], min(low, value)), min(bounds[1], max(high, value))


def calibration_error_interval(gaps: Floats, drawn: Floats, patients: int) -> tuple[float, float]:
    """The 95 % interval of a calibration error by test inversion; nan without two patients.

    The sum of absolute gaps grows with every chance deviation, in the images and once more in each resampling, so that
    percentiles of resamplings lie above it. Instead, for every factor the observed gaps times that factor are taken for
    the true ones, and the resamplings' deviations are added. The interval holds the errors with which the observed
    one is neither among the lowest nor among the highest 2.5 % that come of it. It always holds the observed one.

    Source: Carpenter (1999), Test Inversion Bootstrap Confidence Intervals. On the bias: Kumar, Liang and Ma (2019),
    Verified Uncertainty Calibration; Roelofs et al. (2022), Mitigating Bias in Calibration Error Estimation.

    Args:
        gaps: (bins,) of each bin the mean of predicted less observed, times the bin's share of the images.
        drawn: (RESAMPLES, bins) the same in each resampling.
        patients: all.
    """
    observed = float(np.abs(gaps).sum())
    if patients < 2:
        return np.nan, np.nan
    noise = (drawn - gaps) * _width(patients) / ndtri(1 - TAIL)
    if np.ptp(drawn, axis=0).max() < _SAME:
        return interval(observed, np.full(RESAMPLES, observed), patients)
    if observed < _SAME:
        return 0.0, min(1.0, float(np.quantile(np.abs(noise).sum(axis=1), 1 - TAIL)))
    most = 1 + 1.01 * np.abs(noise).sum(axis=1).max() / observed  # with it, each gives more than was observed
    factors = np.linspace(0, most, 101)
    reached = np.array([np.mean(np.abs(factor * gaps + noise).sum(axis=1) <= observed) for factor in factors])
    low = factors[reached >= 1 - TAIL].max(initial=0) * observed
    high = factors[np.flatnonzero(reached >= TAIL).max(initial=0) + 1] * observed
    return min(low, observed), min(1.0, max(high, observed))


def _width(patients: int, tail: float = TAIL) -> float:
    """By how many standard deviations an interval reaches to either side, given how many patients are resampled."""
    return float(np.sqrt(patients / (patients - 1)) * stdtrit(patients - 1, 1 - tail))
