"""Figures of labels and probabilities, held against scikit-learn's, and their intervals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from train import measure

TWO = ("NORMAL", "PNEUMONIA")


def two(positive: list[float]) -> np.ndarray:
    """Probabilities of both classes."""
    return np.stack([1 - np.array(positive), np.array(positive)], axis=1)


def alone(count: int) -> np.ndarray:
    """As many patients."""
    return np.array([f"p{number}" for number in range(count)])


def test_two_classes_by_hand() -> None:
    """Accuracy, sensitivity and specificity of a small example at both thresholds; the second class is positive."""
    labels = np.array([0, 0, 0, 1, 1])
    told = measure.metrics(labels, two([0.1, 0.6, 0.2, 0.9, 0.4]), alone(5), TWO, 0.4)
    half, chosen = told["decisions"]["0.5"], told["decisions"]["chosen"]
    assert half["accuracy"]["value"] == pytest.approx(3 / 5)
    assert half["sensitivity"]["value"] == pytest.approx(1 / 2)
    assert half["specificity"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert half["confusion"] == [[2, 1], [1, 1]]
    assert chosen["sensitivity"]["value"] == 1.0, "0.4 is positive from 0.4 on"
    assert told["auroc"]["value"] == pytest.approx(5 / 6, abs=1e-6), "5 of 6 pairs are ranked right"
    assert told["brier"]["value"] == pytest.approx((0.01 + 0.36 + 0.04 + 0.01 + 0.36) / 5)
    assert (told["images"], told["patients"]) == (5, 5)


def test_three_classes_by_hand() -> None:
    """With more classes the most probable counts, and each class has figures of its own."""
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    told = measure.metrics(labels, probabilities, alone(4), ("a", "b", "c"), None)
    decided = told["decisions"]["most probable"]
    assert decided["accuracy"]["value"] == pytest.approx(3 / 4)
    assert decided["sensitivity"]["value"] == pytest.approx((1 + 1 + 1 / 2) / 3, abs=1e-6)
    of_class = {name: each["specificity"]["value"] for name, each in told["per_class"].items()}
    assert of_class == {"a": pytest.approx(2 / 3, abs=1e-6), "b": 1.0, "c": 1.0}
    areas = [each["auroc"]["value"] for each in told["per_class"].values()]
    assert told["auroc"]["value"] == pytest.approx(np.mean(areas), abs=1e-5)


def test_what_the_images_do_not_define_is_none() -> None:
    """One class only has no AUROC and no specificity; nothing is invented for them."""
    told = measure.metrics(np.array([1, 1]), two([0.6, 0.1]), alone(2), ("a", "b"), None)
    assert told["auroc"] == {"value": None, "low": None, "high": None}
    assert told["decisions"]["0.5"]["specificity"]["value"] is None
    assert told["decisions"]["0.5"]["sensitivity"]["value"] == pytest.approx(1 / 2)


CASES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=60).filter(
    lambda cases: {label for label, _, count in cases if count} == {0, 1}
)


@given(CASES)
@settings(deadline=None)
def test_figures_are_scikit_learns(cases: list[tuple[int, int, int]]) -> None:
    """Ties and repeated images included, every figure is the one that scikit-learn gives for these weights."""
    labels, scores, weights = (np.array(column) for column in zip(*cases, strict=True))
    positive = scores / 20
    probabilities = two(list(positive))
    decided = {"0.5": (positive >= 0.5).astype(int)}
    rankings = measure.ranked(labels, probabilities)
    told = measure._figures(labels, probabilities, rankings, decided, weights.astype(float))
    given_weights: dict[str, Any] = {"sample_weight": weights}
    assert told["auroc"] == pytest.approx(roc_auc_score(labels, positive, **given_weights))
    assert told["auprc"] == pytest.approx(average_precision_score(labels, positive, **given_weights))
    assert told["brier"] == pytest.approx(brier_score_loss(labels, positive, **given_weights))
    predicted = positive >= 0.5
    assert told["balanced_accuracy 0.5"] == pytest.approx(balanced_accuracy_score(labels, predicted, **given_weights))
    assert told["sensitivity 0.5"] == pytest.approx(recall_score(labels, predicted, **given_weights))
    assert told["f1 0.5"] == pytest.approx(f1_score(labels, predicted, **given_weights))


def test_calibration_error_is_the_gap_between_promise_and_outcome() -> None:
    """A promise of 0.9 that comes true for half is 0.4 off; one that is kept is not off at all."""
    labels = np.array([0, 1] * 50)
    assert measure.metrics(labels, two([0.9] * 100), alone(100), TWO, None)["ece"]["value"] == pytest.approx(0.4)
    assert measure.metrics(labels, two([0.5] * 100), alone(100), TWO, None)["ece"]["value"] == pytest.approx(0.0)


def test_an_interval_is_wider_when_the_images_are_of_few_patients() -> None:
    """Patients are drawn, not images: ten images of one are no ten patients."""
    rng = np.random.default_rng(0)
    difficulty = np.repeat(rng.normal(0.5, 0.25, 40).clip(0, 1), 10)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    wide = measure.metrics(labels, two(list(difficulty)), np.repeat(alone(40), 10), TWO, None)["auroc"]
    narrow = measure.metrics(labels, two(list(difficulty)), alone(400), TWO, None)["auroc"]
    assert wide["value"] == narrow["value"]
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])


def test_an_interval_covers_what_the_binomial_does() -> None:
    """For an accuracy over single images, the bootstrap gives about the normal interval of a share; twice the same."""
    labels = np.array([1] * 400)
    probabilities = two([0.9] * 320 + [0.1] * 80)
    first = measure.metrics(labels, probabilities, alone(400), TWO, None)["decisions"]["0.5"]["accuracy"]
    assert first == measure.metrics(labels, probabilities, alone(400), TWO, None)["decisions"]["0.5"]["accuracy"]
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert first["low"] == pytest.approx(0.8 - half, abs=0.006)
    assert first["high"] == pytest.approx(0.8 + half, abs=0.006)
