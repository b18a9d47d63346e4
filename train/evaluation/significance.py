"""Tests for differences between two models on the same images of the same patients."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import binomtest, rankdata

Floats = NDArray[np.floating[Any]]


def permutation(gained: NDArray[np.integer[Any]], patients: NDArray[np.intp]) -> float:
    """The exact two-sided p of a paired permutation test over patients.

    If there is no difference, the two models could as well be exchanged, patient by patient: all images of one
    together, since they are alike. With one image a patient it is McNemar's exact test.

    Source: Edgington and Onghena (2007), Randomization Tests, chapter on paired comparisons; Durkalski et al. (2003),
    Analysis of Clustered Matched-Pair Data, on why images of one patient are not to be counted one by one.

    Args:
        gained: (images,) 1 where only the second model is right, -1 where only the first, else 0.
        patients: (images,) the patient's number.
    """
    sums = np.bincount(patients, gained).round().astype(int)
    steps = np.abs(sums[sums != 0])
    reach = int(steps.sum())
    chances = np.zeros(2 * reach + 1)  # of each sum from -reach to reach, with random signs of the steps
    chances[reach] = 1
    for step in steps:
        chances = (np.roll(chances, step) + np.roll(chances, -step)) / 2
    extreme = np.abs(np.arange(-reach, reach + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(chances[extreme].sum()))


def mcnemar(gained: NDArray[np.integer[Any]]) -> float:
    """The exact two-sided p of McNemar's test, which takes the images for independent.

    Source: Dietterich (1998), Approximate Statistical Tests for Comparing Supervised Classification Learning
    Algorithms; the exact form, by the binomial distribution.

    Args:
        gained: as `permutation` has it.
    """
    only_first, only_second = int((gained < 0).sum()), int((gained > 0).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def auroc_influence(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """By how much each image moves the AUROC: its share of positive and negative pairs that are ranked right.

    Source: DeLong et al. (1988), Comparing the Areas under Two or More Correlated ROC Curves, as midranks.

    Args:
        positive: (images,) which are of the class; some are, and some are not.
        scores: (images,) their probabilities of it.
    """
    ranks = rankdata(scores)
    right = np.empty(len(scores))
    right[positive] = (ranks[positive] - rankdata(scores[positive])) / (~positive).sum()
    right[~positive] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / positive.sum()
    return (right - right[positive].mean()) / np.where(positive, positive.sum(), (~positive).sum())


def clustered(difference: float, influence: Floats, patients: NDArray[np.intp], fewest: int) -> float:
    """The two-sided p of a difference of AUROCs, with the variance between patients; nan for a single one.

    Source: Obuchowski (1997), Nonparametric Analysis of Clustered ROC Curve Data; by Student's t in place of the normal
    distribution, for few patients.

    Args:
        difference: the second AUROC less the first.
        influence: (images,) that of the second less that of the first, as `auroc_influence` gives them.
        patients: (images,) the patient's number.
        fewest: patients with images of the rarer kind.
    """
    sums = np.bincount(patients, influence)
    count = len(sums)
    if fewest < 2:
        return np.nan
    error = np.sqrt(count / (count - 1) * (sums**2).sum())
    if error < 1e-12:  # each pair is ranked alike by the two, or each the other way round
        return 1.0 if abs(difference) < 1e-12 else 2 * 0.5**fewest
    return float(2 * stdtr(fewest - 1, -abs(difference) / error))


def holm(p: Floats) -> Floats:
    """Corrected p of several tests: among those below a level, one is false with at most that probability.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.

    Args:
        p: (tests,), nan for what was not tested.
    """
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # nan is last
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected
