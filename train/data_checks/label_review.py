"""What a cross-validated run says of its set's labels: read from the run's folder, and written into it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.errors import UserError
from train import checksums, tables
from train.data_checks import label_errors, leaks, same_pictures
from train.data_checks.label_errors import Twin
from train.evaluation import results
from train.evaluation.metrics import Floats, Labels
from train.evaluation.results import Finished
from train.evaluation.spread import mean_of_repeats

NAME = "label_errors.csv"
_OUT_OF_FOLD = "out_of_fold.csv"


class LabelReviewError(UserError):
    """A run says nothing of labels; the message names it and the fix."""


class LabelReview(NamedTuple):
    """The labels that may be wrong.

    `table` has a row an image and reason, as `label_errors.COLUMNS` has them, `by_class` a row a class. `images` is how
    many labels were looked at; `compared` whether their pictures were compared, of which older runs keep no record.
    """

    images: int
    table: pd.DataFrame
    by_class: pd.DataFrame
    compared: bool

    @property
    def doubtful(self) -> pd.DataFrame:
        """The rows that the predictions speak against."""
        return self.table[self.table["why"] == label_errors.PREDICTION]

    @property
    def twins(self) -> pd.DataFrame:
        """The rows of images that are the same picture as one with another label."""
        return self.table[self.table["why"] != label_errors.PREDICTION]

    def sentence(self, place: Path | None = None) -> str:
        """How many there are, and where they are listed, if a file has them."""
        found = f"{len(self.doubtful):,} of {self.images:,} labels may be wrong, by predictions out of fold"
        if len(self.twins):
            found += f"; {len(self.twins):,} images are the same picture as one with another label"
        return f"{found} (images to look at, not verdicts){f': {place}' if place else ''}"


def read(run: Path) -> LabelReview:
    """Review the labels of a run's set, by the last phase's predictions out of fold.

    Args:
        run: the folder of a finished run.

    Raises:
        ResultsError: it holds no finished run.
        LabelReviewError: the run is not cross-validated.
        TableError, LeakError: a file of it is damaged.
    """
    return of_run(run, results.read(run))


def of_run(run: Path, finished: Finished) -> LabelReview:
    """As `read`, of a run that is read already."""
    if not finished.folds:
        raise LabelReviewError(
            f"{run} is not cross-validated, so it has predicted no label without learning it; train with --folds 5, say"
        )
    classes = tuple(finished.settings["classes"])
    rows, labels, probabilities = _predictions(run, classes, list(finished.metrics)[-1])
    record = leaks.read(run)
    twins = [] if record is None else _twins(record, rows, labels)
    return LabelReview(
        len(rows),
        label_errors.ranked(rows, labels, probabilities, classes, twins),
        label_errors.by_class(labels, probabilities, classes),
        record is not None,
    )


def write(run: Path) -> LabelReview:
    """Review the labels of a run that is about to be finished, and write the table into its folder."""
    found = read(run)
    tables.write(run / NAME, found.table)
    return found


def _predictions(run: Path, classes: tuple[str, ...], phase: str) -> tuple[pd.DataFrame, Labels, Floats]:
    """The images, their labels, and the mean of what was predicted of them over the repeats."""
    path = run / _OUT_OF_FOLD
    if checksums.altered(run, _OUT_OF_FOLD):
        raise tables.TableError(f"{path} is damaged: it is not as `fit` wrote it; train the run again")
    table = tables.read(path, tables.out_of_fold(classes))
    table = table[table["phase"] == phase]
    rows = table[table["repeat"] == table["repeat"].min()].reset_index(drop=True)
    of_repeats = [
        of_repeat.set_index("path").reindex(rows["path"])[[tables.probability(name) for name in classes]].to_numpy()
        for _, of_repeat in table.groupby("repeat")
    ]
    labels = rows["label"].map({name: index for index, name in enumerate(classes)})
    if rows.empty or labels.isna().any() or not all(np.isfinite(each).all() for each in of_repeats):
        raise tables.TableError(
            f"{path} is damaged: not every image has its class and probabilities; train the run again"
        )
    return rows, labels.to_numpy(np.int64), mean_of_repeats(np.stack(of_repeats))


def _twins(record: leaks.Record, rows: pd.DataFrame, labels: Labels) -> list[Twin]:
    """The images that are the same picture as one with another label, where the record has both."""
    drawn = dict(zip(record.rows["source_sha256"].iloc[record.pictured], record.thumbnails, strict=True))
    known = np.flatnonzero(rows["source_sha256"].isin(drawn.keys()))
    if not len(known):
        return []
    thumbnails = np.stack([drawn[sha256] for sha256 in rows["source_sha256"].iloc[known]]).astype(np.uint8)
    found = same_pictures.search(thumbnails, labels[known])
    return [Twin(int(known[row]), int(known[other])) for row, other in sorted(found.items())]
