"""What is decided on validation: threshold and temperature."""

from typing import Any

import keras
import numpy as np
import pytest

from train import dataset as datasets
from train.evaluation import evaluate, thresholds
from train.features import backbone


@pytest.mark.parametrize("classes", [2, 3])
def test_a_cooled_head_gives_the_scaled_probabilities(classes: int) -> None:
    """What is saved with the model is what was measured."""
    head = backbone.make_head(classes, seed=0)
    inputs = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(0, 1, (6, 8)).astype(np.float32))

    def probabilities() -> np.ndarray:
        given_now = keras.ops.convert_to_numpy(head(inputs))
        return np.hstack([1 - given_now, given_now]) if classes == 2 else given_now

    expected = thresholds.with_temperature(probabilities(), 2.5)
    backbone.apply_temperature(head, 2.5)
    np.testing.assert_allclose(probabilities(), expected, atol=1e-5)


def test_a_phase_is_judged_on_both_splits_with_one_threshold(image_set: Any) -> None:
    """The threshold comes from val alone; calibration tells before and after; predictions have both decisions."""
    manifest = image_set(classes=2, train=2, val=10, test=10)
    dataset = datasets.read(manifest, manifest.parent.parent)
    labels = dataset.labels(dataset.rows[dataset.is_held_out])
    positive = np.where(labels == 1, 0.4, 0.2)
    probabilities = np.stack([1 - positive, positive], axis=1)
    judged = evaluate.judge(dataset, probabilities, calibrate=False, sensitivity=None)
    assert judged.threshold is not None
    assert judged.metrics.threshold is judged.threshold
    assert judged.threshold.value == pytest.approx(0.3)
    assert judged.threshold.interval == (pytest.approx(0.2), pytest.approx(0.4))
    assert judged.threshold.chosen_by == "the best balanced accuracy on validation"
    assert judged.metrics.test is not None
    assert judged.metrics.test.decisions["0.5"].accuracy.value == 0.5
    assert judged.metrics.test.decisions["chosen"].accuracy.value == 1.0
    table = evaluate.predictions(dataset, {"frozen": judged})
    assert set(table["predicted (0.5)"]) == {"class0"}
    assert (table["predicted (chosen)"] == table["label"]).all()
    assert "source" not in table.columns, "no patient's file names beyond the group key"

    sure = np.where((labels == 1) ^ (np.arange(len(labels)) % 3 == 0), 0.99, 0.01)  # and wrong in one of three
    cooled = evaluate.judge(dataset, np.stack([1 - sure, sure], axis=1), calibrate=True, sensitivity=None)
    calibration = cooled.metrics.calibration
    assert calibration is not None
    assert calibration.temperature == pytest.approx(cooled.temperature, abs=1e-6)
    assert cooled.metrics.val.brier.value < calibration.val_before.brier.value


def test_an_undetermined_temperature_is_not_applied(image_set: Any) -> None:
    """Validation separated without a fault would take any temperature down to the search's limit, and ruin test."""
    manifest = image_set(classes=2, train=2, val=10, test=10)
    dataset = datasets.read(manifest, manifest.parent.parent)
    rows = dataset.rows[dataset.is_held_out]
    labels, is_test = dataset.labels(rows), (rows["split"] == "test").to_numpy()
    wrong = is_test & (np.arange(len(labels)) % 5 == 0)
    positive = np.where((labels == 1) ^ wrong, 0.8, 0.2)
    probabilities = np.stack([1 - positive, positive], axis=1)
    judged = evaluate.judge(dataset, probabilities, calibrate=True, sensitivity=None)
    calibration = judged.metrics.calibration
    assert calibration is not None
    assert (judged.temperature, calibration.temperature) == (1.0, 1.0)
    assert calibration.reason == "not scaled: validation determines no temperature"
    np.testing.assert_array_equal(judged.probabilities, probabilities)
    assert judged.metrics.test is not None
    assert calibration.test_before is not None
    assert judged.metrics.test.brier == calibration.test_before.brier
    assert not judged.metrics.is_worse_scaled


def test_a_temperature_that_harms_test_is_known(image_set: Any) -> None:
    """Validation that is right nearly always makes the probabilities surer; test, which is wrong often, contradicts."""
    manifest = image_set(classes=2, train=2, val=10, test=10)
    dataset = datasets.read(manifest, manifest.parent.parent)
    rows = dataset.rows[dataset.is_held_out]
    labels, is_test = dataset.labels(rows), (rows["split"] == "test").to_numpy()
    number = np.r_[np.arange((~is_test).sum()), np.arange(is_test.sum())]
    for often, worse in ((3, True), (10, False)):
        wrong = np.where(is_test, number % often == 0, number == 0)
        positive = np.where((labels == 1) ^ wrong, 0.7, 0.3)
        judged = evaluate.judge(dataset, np.stack([1 - positive, positive], axis=1), calibrate=True, sensitivity=None)
        assert judged.temperature < 0.9
        assert judged.metrics.is_worse_scaled is worse
