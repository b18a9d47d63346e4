"""How well two kinds of images can be told apart: an AUROC with its interval over the patients."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from train.evaluation.intervals import bootstrap, interval
from train.evaluation.metrics import Floats, Ranked
from train.evaluation.phase_metrics import Estimate

MOST = 500  # images of either kind and of a class that are compared: more would hardly narrow the intervals
_LEAST = 20  # images of either kind, without which nothing is said
FOLDS = 5
# Of the inverse penalty: 2,048 outputs of a network need a strong one, a few statistics hardly any.
WIDE, NARROW = 0.01, 1.0


def sample(rows: pd.DataFrame, by: list[str]) -> NDArray[np.int64]:
    """The places of up to MOST rows of each kind, picked by checksum.

    Args:
        rows: with a column `sha256`.
        by: the columns that make a kind.
    """
    picked = rows.reset_index(drop=True).sort_values("sha256", kind="stable")
    rank = picked.groupby(by).cumcount().sort_index()
    return np.flatnonzero(rank < MOST)


def too_few(kind: NDArray[np.bool_], groups: NDArray[Any], names: tuple[str, str], group_name: str) -> Estimate | None:
    """The figure that isn't defined, with the reason, where there are too few images or patients; else None.

    Args:
        kind: (images,) which of the two kinds each is.
        groups: (images,) whom each shows.
        names: of the kinds, that of False first.
        group_name: what a reason calls a group.
    """
    sides = [(int((kind == side).sum()), len(set(groups[kind == side])), name) for side, name in enumerate(names)]
    few = [side for side in sides if side[0] < _LEAST or side[1] < FOLDS]
    if not few:
        return None
    images, patients, name = min(few)
    return Estimate(None, None, None, f"{images} {name} images of {patients} {group_name}s are too few")


def scores(features: Floats, kind: NDArray[np.bool_], groups: NDArray[Any], penalty: float = WIDE) -> Floats:
    """What logistic regression says of images of patients that it wasn't fitted to: (images,) log odds.

    Args:
        features: (images, features).
        kind: (images,) which of the two kinds each is.
        groups: (images,) whom each shows.
        penalty: scikit-learn's C.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
    folds = StratifiedGroupKFold(FOLDS)
    with threadpool_limits(
        1
    ):  # on products this small a second thread costs more than it saves: 0.4 of the time without
        found: Floats = cross_val_predict(model, features, kind, groups=groups, cv=folds, method="decision_function")
    return found


def auroc(kind: NDArray[np.bool_], values: Floats, groups: NDArray[Any]) -> Estimate:
    """Of values for telling the kinds apart, above 0.5 where those of True are higher; the interval resamples patients."""
    patients = np.unique(groups.astype(str), return_inverse=True)[1]
    ranking = Ranked(kind, values)
    value = float(ranking.areas(np.ones(len(values)))[0])
    drawn = bootstrap(lambda weights: {"auroc": ranking.areas(weights)[0]}, patients)["auroc"]
    fewest = min(len(set(patients[kind == side])) for side in (False, True))
    low, high = interval(value, drawn, fewest)
    return Estimate.of(value, low, high, "")
