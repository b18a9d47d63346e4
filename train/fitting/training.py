"""Train on kept activations, once or by folds, measure, and write the tables of the run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from train import tables
from train.data_checks import augmentation
from train.dataset import Dataset
from train.evaluation.evaluate import Judged, judge
from train.evaluation.metrics import Floats
from train.evaluation.spread import spread
from train.evaluation.thresholds import OUT_OF_FOLD, with_temperature
from train.features.activations import Activations, Share, probabilities
from train.features.backbone import Cut, apply_temperature
from train.fitting import folds, run_folder
from train.fitting.cross_validation import CrossValidated, fit_folds, of_share
from train.fitting.fit import CHECKPOINTS, Fitted, fit
from train.fitting.folds import Fold
from train.settings import Settings


def fit_and_measure(
    dataset: Dataset,
    divided: list[Fold],
    part: Cut,
    activations: Activations,
    settings: Settings,
    folder: Path,
    show: Callable[[dict[str, Any]], None],
    progress: Callable[[int, int], None],
    *,
    precision: str = "float32",
) -> Fitted:
    """Train, choose threshold and temperature, measure, and write history.csv, metrics.json and predictions.csv.

    A cross-validation trains a member for each fold, chooses and measures on the predictions out of fold, which it writes
    too, and measures the ensemble on test.

    Args:
        dataset: the set, val pooled with train for a cross-validation.
        divided: its folds, none if it is trained on once.
        part: the backbone, cut.
        activations: of the set's images.
        settings: as given.
        folder: the run's, unfinished.
        show: called with each epoch's row of the history.
        progress: called with (batches done, batches there are at most).
        precision: in which the last layers' convolutions compute while they are trained.

    Returns:
        The network that is to be saved, its probabilities scaled by the temperature.
    """
    scored, validated = dataset, None
    if divided:
        scored = folds.scored(dataset)
        validated = fit_folds(
            dataset, divided, part, activations, settings, folder, show, progress, precision=precision
        )
        fitted = validated.fitted
    else:
        checkpoints, logs = folder / CHECKPOINTS, folder / "tensorboard"
        fitted = fit(dataset, part, activations, settings, checkpoints, logs, show, progress, precision=precision)
    judged = {
        phase: _out_of_fold(scored, validated, phase, settings, activations.train.features.engine.precision)
        if validated
        else judge(dataset, of_phase, calibrate=settings.calibrate, sensitivity=settings.sensitivity)
        for phase, of_phase in fitted.probabilities.items()
    }
    phase, last = list(judged.items())[-1]
    apply_temperature(fitted.head, last.temperature)

    def predict(share: Share) -> Floats:
        if validated:
            found = of_share(validated.out_of_fold, phase, activations.train, share)
            return with_temperature(found, last.temperature)
        return probabilities(share, phase, fitted.part.tail, fitted.head)

    compared = augmentation.measure(dataset, activations, predict, _threshold(last))
    if compared and validated:
        compared = replace(compared, split="out-of-fold")
    judged[phase] = last._replace(metrics=replace(last.metrics, augmentation=compared))
    run_folder.write(folder, fitted.history, judged, scored)
    if validated:
        tables.write(folder / "out_of_fold.csv", _table(dataset, validated, judged))
    return fitted


def _out_of_fold(scored: Dataset, validated: CrossValidated, phase: str, settings: Settings, precision: str) -> Judged:
    """A phase's threshold, temperature and figures, with their spread over the folds."""
    fitted, out_of_fold = validated
    split = scored.rows["split"].to_numpy()
    found = np.empty((len(split), len(scored.classes)))
    found[split != "test"], found[split == "test"] = out_of_fold.mean(phase), fitted.probabilities[phase]
    judged = judge(
        scored,
        found[scored.is_held_out],
        calibrate=settings.calibrate,
        sensitivity=settings.sensitivity,
        chosen_on=OUT_OF_FOLD,
    )
    originals = split[split != "test"] == "val"
    labels = scored.labels(scored.of("val"))
    of_originals = [with_temperature(each[originals], judged.temperature) for each in out_of_fold.probabilities[phase]]
    varied = spread(labels, np.stack(of_originals), out_of_fold.folds[:, originals], _threshold(judged), precision)
    return judged._replace(metrics=replace(judged.metrics, cross_validation=varied))


def _threshold(judged: Judged) -> float | None:
    return judged.threshold.value if judged.threshold else None


def _table(dataset: Dataset, validated: CrossValidated, judged: dict[str, Judged]) -> pd.DataFrame:
    """Every unaugmented image of train and val in each repeat and phase, predicted by the member that didn't see its patient."""
    rows = dataset.of("train").reset_index(drop=True)
    originals = np.flatnonzero(rows["variant"] == 0)
    parts = []
    for phase, of_phase in judged.items():
        for repeat, found in enumerate(validated.out_of_fold.probabilities[phase], 1):
            part = rows.loc[originals, ["path", "source_sha256", "label", "group"]].assign(phase=phase, repeat=repeat)
            part["fold"] = validated.out_of_fold.folds[repeat - 1, originals]
            scaled = with_temperature(found[originals], of_phase.temperature)
            parts.append(
                part.assign(**{tables.probability(name): scaled[:, at] for at, name in enumerate(dataset.classes)})
            )
    return pd.concat(parts, ignore_index=True)
