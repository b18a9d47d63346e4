"""Whether two kinds of images can be told apart better than chance tells them: a permutation test over patients.

The interval of an AUROC out of fold takes the fitted regressions as given, though other patients would have given other ones,
and the images held out of a regression decide those of the next: of noise alone it lies above 0.5 too often. A permutation
test is exact, whatever the regressions do: they are fitted anew to kinds that mean nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from sklearn.preprocessing import StandardScaler

from train.data_checks.probe import FOLDS, WIDE
from train.evaluation.metrics import Floats

PERMUTATIONS = 1999  # with which Holm's correction can find something among up to 100 tests
_AT_ONCE = 500  # permutations, whose ranks are held in memory
_SAME = 1e-12  # AUROCs that differ by less are equal but for rounding


def p_of(features: Floats, kind: NDArray[np.bool_], groups: NDArray[Any], penalty: float = WIDE) -> float:
    """The p of telling the kinds apart: how often as well as this, if kinds are exchanged among patients.

    A ridge regression stands for the logistic one, since its predictions out of fold are linear in the kinds: one matrix
    does for all permutations. Patients who have images of both kinds keep them.

    Source: Edgington and Onghena (2007), Randomization Tests; Phipson and Smyth (2010), Permutation P-values Should Never
    Be Zero.

    Args:
        features: (images, features).
        kind: (images,) which of the two kinds each is.
        groups: (images,) whom each shows.
        penalty: scikit-learn's C of the logistic regression that this stands for.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(kind))  # that of equal predictions, too, must not depend on the kinds
    features, kind = features[order].astype(np.float64), kind[order]
    patients = np.unique(groups[order].astype(str), return_inverse=True)[1]
    folds = rng.permutation(int(patients.max()) + 1) % FOLDS  # they must not depend on the kinds
    weights = _weights(features, folds[patients], penalty)
    observed = _aurocs(weights, kind[None])[0]
    reached = 0
    for at in range(0, PERMUTATIONS, _AT_ONCE):
        exchanged = _exchanged(kind, patients, min(_AT_ONCE, PERMUTATIONS - at), rng)
        reached += int((_aurocs(weights, exchanged) >= observed - _SAME).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


def _weights(features: Floats, folds: NDArray[np.integer[Any]], penalty: float) -> Floats:
    """(images, images): times the kinds, what ridge regressions without an image's fold predict of it."""
    scaled = StandardScaler().fit_transform(features)
    products = scaled @ scaled.T
    ridge = 4 / penalty  # near even odds the logistic loss is a quarter as curved as the squared one
    weights = np.zeros_like(products)
    for fold in np.unique(folds):
        held, kept = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        fitted = products[np.ix_(kept, kept)] + ridge * np.eye(len(kept))
        weights[np.ix_(held, kept)] = solve(fitted, products[np.ix_(kept, held)], assume_a="pos").T
    return weights


def _exchanged(
    kind: NDArray[np.bool_], patients: NDArray[np.intp], times: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(times, images): kinds that are exchanged among the patients whose images are all of one."""
    share = np.bincount(patients, kind) / np.bincount(patients)
    pure = np.flatnonzero((share == 0) | (share == 1))
    of_patients = np.zeros((times, len(share)), bool)
    of_patients[:, pure] = rng.permuted(np.tile(share[pure] == 1, (times, 1)), axis=1)
    return np.where(np.isin(patients, pure), of_patients[:, patients], kind)


def _aurocs(weights: Floats, kinds: NDArray[np.bool_]) -> Floats:
    """Of each row of kinds (times, images) the AUROC of what is predicted out of fold; ties are decided by the order."""
    predicted = (kinds - kinds.mean(axis=1, keepdims=True)) @ weights.T
    ordered = np.take_along_axis(kinds, np.argsort(predicted, axis=1), axis=1)
    count = kinds.sum(axis=1)
    found: Floats = (ordered @ np.arange(1, kinds.shape[1] + 1) / count - (count + 1) / 2) / (kinds.shape[1] - count)
    return found
