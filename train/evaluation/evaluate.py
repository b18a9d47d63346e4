"""Probabilities of each phase -> threshold and temperature by validation, a run's metrics, and its predictions."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from train import tables
from train.dataset import Dataset
from train.evaluation.metrics import Floats, decisions, metrics
from train.evaluation.phase_metrics import Calibration, Metrics, PhaseMetrics, Scores, Threshold
from train.evaluation.thresholds import VALIDATION, choose_threshold, is_at_limit, temperature, with_temperature


class Judged(NamedTuple):
    """The results of a phase: `probabilities` of the held-out images, shape (images, classes), after temperature scaling."""

    probabilities: Floats
    temperature: float  # 1 without scaling
    metrics: PhaseMetrics

    @property
    def threshold(self) -> Threshold | None:
        """The one that was chosen; None with more than two classes."""
        return self.metrics.threshold


def judge(
    dataset: Dataset,
    probabilities: Floats,
    *,
    calibrate: bool,
    sensitivity: float | None,
    chosen_on: str = VALIDATION,
) -> Judged:
    """Choose a phase's temperature and threshold on validation, and measure it on validation and test.

    Args:
        dataset: the set.
        probabilities: (images, classes) of its held-out images.
        calibrate: whether to scale by a temperature.
        sensitivity: that the threshold is to give on validation; None: the best balanced accuracy.
        chosen_on: what is said of the images that the threshold and the temperature are chosen on.
    """
    # What is measured is what is written: float64, whose digits come back from predictions.csv.
    probabilities = probabilities.astype(np.float64)
    rows = dataset.rows[dataset.is_held_out]
    labels, groups = dataset.labels(rows), rows["group"].to_numpy()
    of_split = {split: (rows["split"] == split).to_numpy() for split in ("val", "test")}
    val = of_split["val"]

    def measured(probabilities: Floats, threshold: Threshold | None) -> dict[str, Metrics]:
        value = threshold.value if threshold else None
        return {
            split: metrics(
                labels[chosen], probabilities[chosen], groups[chosen], dataset.classes, value, split, dataset.group_name
            )
            for split, chosen in of_split.items()
            if chosen.any()
        }

    scale, calibration = 1.0, None
    if calibrate:
        scale, reason = temperature(labels[val], probabilities[val]), ""
        if is_at_limit(scale):  # which is no optimum, but as sure or unsure as the search went
            scale, reason = 1.0, f"not scaled: {chosen_on} determines no temperature"
        before = {split: Scores(each.brier, each.ece) for split, each in measured(probabilities, None).items()}
        calibration = Calibration(
            temperature=round(scale, 6), reason=reason, val_before=before["val"], test_before=before.get("test")
        )
        probabilities = with_temperature(probabilities, scale)
    threshold = None
    if len(dataset.classes) == 2:
        threshold = choose_threshold(labels[val], probabilities[val, 1], sensitivity, chosen_on)
    after = measured(probabilities, threshold)
    found = PhaseMetrics(calibration=calibration, threshold=threshold, val=after["val"], test=after.get("test"))
    return Judged(probabilities, scale, found)


def predictions(dataset: Dataset, judged: dict[str, Judged]) -> pd.DataFrame:
    """Every val and test image in each phase: what it shows, what it was taken for, and each class's probability."""
    rows = dataset.rows[dataset.is_held_out]
    parts = []
    for phase, of_phase in judged.items():
        part = rows[["path", "source_sha256", "split", "label", "group"]].assign(phase=phase)
        probabilities, threshold = of_phase.probabilities, of_phase.threshold
        for way, predicted in decisions(probabilities, threshold.value if threshold else None).items():
            part[f"predicted ({way})"] = [dataset.classes[index] for index in predicted]
        for index, name in enumerate(dataset.classes):
            part[tables.probability(name)] = probabilities[:, index]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
