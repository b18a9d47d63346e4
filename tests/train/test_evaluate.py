"""What is decided on validation: threshold and temperature."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score

from train import dataset as datasets
from train import evaluate, model

SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 100)), min_size=2, max_size=50).filter(
    lambda cases: {label for label, _ in cases} == {0, 1}
)


@given(SCORED)
def test_no_other_threshold_has_a_better_balanced_accuracy(cases: list[tuple[int, int]]) -> None:
    """Of all ways to cut the validation images in two, the chosen one is as good as any."""
    labels, scores = (np.array(column) for column in zip(*cases, strict=True))
    positive = scores / 100
    chosen = evaluate.choose_threshold(labels, positive)
    found = balanced_accuracy_score(labels, positive >= chosen.value)
    best = max(balanced_accuracy_score(labels, positive >= cut) for cut in [*np.unique(positive), 2.0])
    assert found == pytest.approx(best) or best == pytest.approx(0.5)
    assert 0 <= chosen.value <= 1


@given(SCORED, st.floats(0.01, 1))
def test_a_sensitivity_that_is_asked_for_is_reached_and_not_overdone(
    cases: list[tuple[int, int]], wanted: float
) -> None:
    """The threshold finds that share of the positives, and the next higher one doesn't."""
    labels, scores = (np.array(column) for column in zip(*cases, strict=True))
    positive = scores / 100
    chosen = evaluate.choose_threshold(labels, positive, wanted)
    assert recall_score(labels, positive >= chosen.value) >= wanted - 1e-9
    assert recall_score(labels, positive > chosen.value, zero_division=0) < wanted


def test_a_temperature_repairs_probabilities_that_are_too_sure() -> None:
    """Logits that were multiplied by three come back: the temperature is about three, and classes stay."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    sure = 1 / (1 + np.exp(-3 * logits))
    found = evaluate.temperature(labels, np.stack([1 - sure, sure], axis=1))
    assert found == pytest.approx(3, rel=0.05)
    cooled = evaluate.with_temperature(np.stack([1 - sure, sure], axis=1), found)
    assert ((cooled[:, 1] >= 0.5) == (sure >= 0.5)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_cooled_head_gives_the_scaled_probabilities(classes: int) -> None:
    """What is saved with the model is what was measured."""
    head = model.make_head(classes, seed=0)
    inputs = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(0, 1, (6, 8)).astype(np.float32))

    def probabilities() -> np.ndarray:
        given_now = keras.ops.convert_to_numpy(head(inputs))
        return np.hstack([1 - given_now, given_now]) if classes == 2 else given_now

    expected = evaluate.with_temperature(probabilities(), 2.5)
    model.cool(head, 2.5)
    np.testing.assert_allclose(probabilities(), expected, atol=1e-5)


def test_a_phase_is_judged_on_both_splits_with_one_threshold(image_set: Any) -> None:
    """The threshold comes from val alone; calibration tells before and after; predictions have both decisions."""
    manifest = image_set(classes=2, train=2, val=10, test=10)
    dataset = datasets.read(manifest, manifest.parent.parent)
    labels = dataset.labels(dataset.rows[dataset.is_held_out])
    positive = np.where(labels == 1, 0.4, 0.2)
    probabilities = np.stack([1 - positive, positive], axis=1)
    judged = evaluate.judge(dataset, probabilities, calibrate=False, sensitivity=None)
    assert judged.threshold == evaluate.Threshold(pytest.approx(0.4), "the best balanced accuracy on validation")
    assert judged.metrics["test"]["decisions"]["0.5"]["accuracy"]["value"] == 0.5
    assert judged.metrics["test"]["decisions"]["chosen"]["accuracy"]["value"] == 1.0
    table = evaluate.predictions(dataset, {"frozen": judged})
    assert set(table["predicted (0.5)"]) == {"class0"}
    assert (table["predicted (chosen)"] == table["label"]).all()
    assert "source" not in table.columns, "no patient's file names beyond the group key"

    sure = np.where((labels == 1) ^ (np.arange(len(labels)) % 3 == 0), 0.99, 0.01)  # and wrong in one of three
    cooled = evaluate.judge(dataset, np.stack([1 - sure, sure], axis=1), calibrate=True, sensitivity=None)
    told = cooled.metrics["calibration"]
    assert told["temperature"] == pytest.approx(cooled.temperature, abs=1e-6)
    assert cooled.metrics["val"]["brier"]["value"] < told["val_before"]["brier"]["value"]
