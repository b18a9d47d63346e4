"""Figures of labels and probabilities, held against scikit-learn's, and their intervals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from train.evaluation import intervals, metrics
from train.evaluation.phase_metrics import Estimate

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
    measured = metrics.metrics(labels, two([0.1, 0.6, 0.2, 0.9, 0.4]), alone(5), TWO, 0.4)
    half, chosen = measured.decisions["0.5"], measured.decisions["chosen"]
    assert half.accuracy.value == pytest.approx(3 / 5)
    assert half.sensitivity.value == pytest.approx(1 / 2)
    assert half.specificity.value == pytest.approx(2 / 3, abs=1e-6)
    assert half.confusion == [[2, 1], [1, 1]]
    assert chosen.sensitivity.value == 1.0, "0.4 is positive from 0.4 on"
    assert measured.auroc.value == pytest.approx(5 / 6, abs=1e-6), "5 of 6 pairs are ranked right"
    assert measured.brier.value == pytest.approx((0.01 + 0.36 + 0.04 + 0.01 + 0.36) / 5)
    assert (measured.images, measured.patients) == (5, 5)


def test_three_classes_by_hand() -> None:
    """With more classes the most probable counts, and each class has figures of its own."""
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    measured = metrics.metrics(labels, probabilities, alone(4), ("a", "b", "c"), None)
    decided = measured.decisions["most probable"]
    assert decided.accuracy.value == pytest.approx(3 / 4)
    assert decided.sensitivity.value == pytest.approx((1 + 1 + 1 / 2) / 3, abs=1e-6)
    of_class = {name: each.specificity.value for name, each in measured.per_class.items()}
    assert of_class == {"a": pytest.approx(2 / 3, abs=1e-6), "b": 1.0, "c": 1.0}
    areas = [each.auroc.value for each in measured.per_class.values()]
    assert measured.auroc.value == pytest.approx(np.mean(areas), abs=1e-5)


def test_what_the_images_do_not_define_says_why() -> None:
    """One class only has no AUROC and no specificity; nothing is invented for them, and the class is named."""
    found = metrics.metrics(np.array([1, 1]), two([0.6, 0.1]), alone(2), ("a", "b"), None, "val")
    lacking = Estimate(None, None, None, "val holds no image of a")
    half = found.decisions["0.5"]
    assert found.auroc == found.auprc == half.specificity == half.balanced_accuracy == lacking
    assert half.sensitivity.value == pytest.approx(1 / 2)
    assert half.sensitivity.reason == ""
    others = metrics.metrics(np.array([0, 0]), two([0.6, 0.1]), alone(2), ("a", "b"), None)
    assert others.decisions["0.5"].sensitivity.reason == "test holds no image of b"
    assert others.decisions["0.5"].f1 == Estimate(0.0, None, None, "test holds no image of b")


def test_of_three_classes_the_one_that_lacks_is_named() -> None:
    """A mean over classes needs all of them, and a class's own figures that class, and others beside it."""
    thirds = np.full((4, 3), 1 / 3)
    found = metrics.metrics(np.array([0, 0, 1, 1]), thirds, alone(4), ("0", "01", "TRUE"), None)
    assert found.auroc.reason == "test holds no image of TRUE"
    assert found.per_class["TRUE"].sensitivity.reason == "test holds no image of TRUE"
    assert found.per_class["01"].auroc.value is not None
    only = metrics.metrics(np.array([2, 2]), thirds[:2], alone(2), ("0", "01", "TRUE"), None)
    assert only.per_class["TRUE"].specificity.reason == "test holds no image of a class other than TRUE"


def test_one_patient_has_figures_and_no_intervals() -> None:
    """What other patients would change can't be known from one, however many images it has; nor from one of a class."""
    labels = np.array([0, 1] * 10)
    found = metrics.metrics(labels, two([0.3, 0.9] * 10), np.repeat("002", 20), TWO, None)
    every = [getattr(found, name) for name in metrics.RANKED]
    every += [getattr(found.decisions["0.5"], name) for name in metrics.DECIDED]
    assert all(each.value is not None and each.low is None and each.high is None for each in every)
    assert found.decisions["0.5"].accuracy.reason == "an interval needs at least 2 groups; test holds 1"
    two_patients = np.where(labels == 1, "1e5", np.arange(20).astype(str))
    found = metrics.metrics(labels, two([0.3, 0.9] * 10), two_patients, TWO, None)
    assert found.auroc.reason == ("an interval needs at least 2 groups with an image of PNEUMONIA; test holds 1")
    assert found.decisions["0.5"].accuracy.low is not None


def test_the_positive_class_is_named() -> None:
    """Of two classes; of more none is."""
    assert metrics.metrics(np.array([0, 1]), two([0.3, 0.9]), alone(2), TWO, None).positive == "PNEUMONIA"
    assert metrics.metrics(np.array([0, 1]), np.full((2, 3), 0.3), alone(2), ("a", "b", "c"), None).positive is None


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
    rankings = metrics.ranked(labels, probabilities)
    found = metrics.figures_of(labels, probabilities, rankings, decided, weights[None].astype(float))
    measured = {name: each[0] for name, each in found.items()}
    given_weights: dict[str, Any] = {"sample_weight": weights}
    assert measured["auroc"] == pytest.approx(roc_auc_score(labels, positive, **given_weights))
    assert measured["auprc"] == pytest.approx(average_precision_score(labels, positive, **given_weights))
    assert measured["brier"] == pytest.approx(brier_score_loss(labels, positive, **given_weights))
    predicted = positive >= 0.5
    assert measured["balanced_accuracy 0.5"] == pytest.approx(
        balanced_accuracy_score(labels, predicted, **given_weights)
    )
    assert measured["sensitivity 0.5"] == pytest.approx(recall_score(labels, predicted, **given_weights))
    assert measured["f1 0.5"] == pytest.approx(f1_score(labels, predicted, **given_weights))


def test_calibration_error_is_the_gap_between_promise_and_outcome() -> None:
    """A promise of 0.9 that comes true for half is 0.4 off; one that is kept is not off at all."""
    labels = np.array([0, 1] * 50)
    assert metrics.metrics(labels, two([0.9] * 100), alone(100), TWO, None).ece.value == pytest.approx(0.4)
    assert metrics.metrics(labels, two([0.5] * 100), alone(100), TWO, None).ece.value == pytest.approx(0.0)


def test_an_interval_is_wider_when_the_images_are_of_few_patients() -> None:
    """Patients are drawn, not images: ten images of one are no ten patients."""
    rng = np.random.default_rng(0)
    difficulty = np.repeat(rng.normal(0.5, 0.25, 40).clip(0, 1), 10)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    wide = metrics.metrics(labels, two(list(difficulty)), np.repeat(alone(40), 10), TWO, None).auroc
    narrow = metrics.metrics(labels, two(list(difficulty)), alone(400), TWO, None).auroc
    assert wide.value == narrow.value
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_an_interval_covers_what_the_binomial_does() -> None:
    """For an accuracy over single images, the bootstrap gives about the normal interval of a share; twice the same."""
    labels = np.array([1] * 400)
    probabilities = two([0.9] * 320 + [0.1] * 80)
    first = metrics.metrics(labels, probabilities, alone(400), TWO, None).decisions["0.5"].accuracy
    assert first == metrics.metrics(labels, probabilities, alone(400), TWO, None).decisions["0.5"].accuracy
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert first.low == pytest.approx(0.8 - half, abs=0.006)
    assert first.high == pytest.approx(0.8 + half, abs=0.006)


@pytest.mark.parametrize("patients", [2, 3, 8, 30, 400])
def test_no_mistake_is_not_certainty(patients: int) -> None:
    """All right: the exact binomial bound over patients, whatever number of images they have."""
    labels = np.repeat(np.arange(patients) % 2, 3)
    found = metrics.metrics(labels, two(list(0.1 + 0.8 * labels)), np.repeat(alone(patients), 3), TWO, None)
    low = binomtest(patients, patients).proportion_ci(method="exact").low
    accuracy = found.decisions["0.5"].accuracy
    assert (accuracy.value, accuracy.high) == (1.0, 1.0)
    assert accuracy.low == pytest.approx(low, abs=1e-6)
    if patients > 3:
        for area in (found.auroc, found.auprc):
            assert area.value == area.high == 1.0
            assert area.low < low < 1


@given(CASES, st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_no_interval_excludes_its_own_figure(cases: list[tuple[int, int, int]], patients: int, seed: int) -> None:
    """Whatever the probabilities and patients; and each stays where the figure can be."""
    labels, scores, _ = (np.array(column) for column in zip(*cases, strict=True))
    groups = np.random.default_rng(seed).integers(0, patients, len(labels)).astype(str)
    found = metrics.metrics(labels, two(list(scores / 20)), groups, TWO, 0.3)
    points = found.decisions.values()
    every = [getattr(found, name) for name in metrics.RANKED]
    for each in every + [getattr(point, name) for point in points for name in metrics.DECIDED]:
        if each.low is None:
            assert "at least 2 groups" in each.reason or "no image" in each.reason
        else:
            assert 0 <= each.low <= each.value <= each.high <= 1
            assert each.reason == ""


def test_a_calibrated_model_is_not_excluded_from_its_own_interval() -> None:
    """Predictions that are right by construction have a true calibration error of 0, which each interval but few holds."""
    held = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        positive = rng.random(300)
        labels = (rng.random(300) < positive).astype(np.int64)
        error = metrics.metrics(labels, two(list(positive)), alone(300), TWO, None).ece
        assert error.low <= error.value <= error.high
        held.append(error.low == 0)
    assert sum(held) >= 17, "of 20 with probability 0.95, fewer than 17 come in 1.6 %"


def test_a_class_that_few_resamplings_hold_leaves_no_interval() -> None:
    """Of 30 classes with two patients each: figures of every class have none, for a reason of their own."""
    labels = np.repeat(np.arange(30), 2)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(30), 60)
    names = tuple(f"k{number}" for number in range(30))
    found = metrics.metrics(labels, probabilities, alone(60), names, None, group_name="patient")
    assert found.auroc.low is None
    assert found.auroc.reason == "too few resamplings of the patients hold every class for an interval"
    assert found.decisions["most probable"].balanced_accuracy.reason == found.auroc.reason
    assert found.accuracy.low is not None
    assert found.per_class["k0"].auroc.low is not None


def test_intervals_that_hold_together_reach_far_enough() -> None:
    """Of a mean, as far as the normal distribution has it, where the farthest of 1,000 resamplings falls short."""
    tail = intervals.TAIL / 100
    values = np.random.default_rng(0).normal(0.5, 0.1, 300)
    drawn = intervals.bootstrap(
        lambda weights: {"mean": weights @ values / 300}, np.arange(300), intervals.resamples(tail)
    )
    low, high = intervals.interval(values.mean(), drawn["mean"], 300, tail=tail)
    error = values.std(ddof=1) / 300**0.5
    assert (high - low) / 2 == pytest.approx(norm.isf(tail) * error, rel=0.06)
    assert intervals.resamples(intervals.TAIL) == intervals.RESAMPLES
