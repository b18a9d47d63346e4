"""Cross-validation by patient: which images each fold trains on, and which it predicts."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from train.dataset import Dataset, DatasetError

Places = NDArray[np.int64]


class Fold(NamedTuple):
    """One training of a cross-validation, `repeat` and `number` from 1 on.

    Places among the train rows of the pooled set: `train` of all images of the other folds' patients, `val` of the
    unaugmented images of this fold's, `held_out` of all images of this fold's.
    """

    repeat: int
    number: int
    seed: int
    train: Places
    val: Places
    held_out: Places

    @property
    def name(self) -> str:
        """For files, logs and lines."""
        return f"repeat {self.repeat} fold {self.number}"


def pooled(dataset: Dataset) -> Dataset:
    """The set with val pooled with train."""
    return dataset._replace(rows=dataset.rows.assign(split=dataset.rows["split"].replace("val", "train")))


def scored(dataset: Dataset) -> Dataset:
    """The set as it is scored: `val` are the unaugmented images of train and val, each predicted out of fold."""
    rows = dataset.rows
    split = np.where(rows["split"] == "test", "test", np.where(rows["variant"] == 0, "val", "train"))
    return dataset._replace(rows=rows.assign(split=split))


def assign(dataset: Dataset, folds: int, repeats: int, seed: int) -> list[Fold]:
    """Divide the patients of train and val into folds, stratified by class, anew for each repeat.

    Patients who share an image, byte by byte, stay together: a fold must not train on what it is scored on.
    Stratified, too, by whether a source is there as it is: some sets hold only augmented images of some sources, which
    can't be scored, but are held out with their fold so that every fold trains on the same mixture.
    It depends on the names of patients and sources, the classes and the seed, and not on the order of the rows.

    Args:
        dataset: the pooled set.
        folds: 2 or more.
        repeats: 1 or more.
        seed: of the run.

    Raises:
        DatasetError: a class has unaugmented images of fewer patients than folds.
    """
    rows = dataset.of("train").reset_index(drop=True)
    rows = rows.assign(unit=_units(rows))
    original = rows["variant"] == 0
    _expect_enough(dataset, rows[original], folds)
    by_name = ["unit", "group", "source", "variant"]
    sources = rows.sort_values(by_name, kind="stable").drop_duplicates(["group", "source"])
    strata = pd.factorize(sources["label"] + np.where(sources["variant"] == 0, "/original", "/augmented"), sort=True)[0]
    found = []
    for repeat in range(1, repeats + 1):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=_seed(seed, repeat, 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a stratum with fewer sources than folds
            divided = list(splitter.split(sources, strata, sources["unit"]))
        for number, (_, chosen) in enumerate(divided, 1):
            held_out = rows["unit"].isin(sources["unit"].iloc[chosen].unique())
            parts = (~held_out, held_out & original, held_out)
            fold = Fold(repeat, number, _seed(seed, repeat, number), *(np.flatnonzero(part) for part in parts))
            _expect_classes(dataset, rows, fold, folds)
            found.append(fold)
    return found


def _seed(seed: int, repeat: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, repeat, number)).generate_state(1)[0]) // 2  # below 2 ** 31


def _units(rows: pd.DataFrame) -> "pd.Series[str]":
    """Of each row the group that stands for all groups that share images with its own, however far around."""
    count, offset = len(rows), len(rows)
    ends = []
    for column in ("group", "source_sha256", "sha256"):
        codes, names = pd.factorize(rows[column])
        ends.append(codes + offset)
        offset += len(names)
    starts = np.tile(np.arange(count), len(ends))
    links = coo_array((np.ones(len(starts)), (starts, np.concatenate(ends))), (offset, offset))
    units = connected_components(links, directed=False)[1][:count]
    return rows["group"].groupby(units).transform("min")


def _expect_enough(dataset: Dataset, originals: pd.DataFrame, folds: int) -> None:
    patients = originals.groupby("label")["unit"].nunique().reindex(dataset.classes, fill_value=0)
    fewest = patients.idxmin()
    if patients[fewest] < folds:
        raise DatasetError(
            f"--folds {folds}: train and val hold unaugmented images (variant 0) of class {fewest} of {patients[fewest]} "
            f"{dataset.group_name}s, and each fold is scored on one at least; give fewer folds, or collect more images"
        )


def _expect_classes(dataset: Dataset, rows: pd.DataFrame, fold: Fold, folds: int) -> None:
    """That a fold has every class on both sides, which patients with images of several classes can prevent."""
    for kind, places in (("trains on", fold.train), ("is scored on", fold.val)):
        lacking = set(dataset.classes) - set(rows["label"].iloc[places])
        if lacking:
            raise DatasetError(
                f"--folds {folds}: {fold.name} {kind} no image of {min(lacking)}, since few {dataset.group_name}s hold most "
                "of them; give fewer folds, or another --seed"
            )
