"""What is decided on validation: threshold and temperature."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score

from train.evaluation.thresholds import choose_threshold, is_at_limit, temperature, with_temperature

SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 100)), min_size=2, max_size=50).filter(
    lambda cases: {label for label, _ in cases} == {0, 1}
)
PROBABILITY = st.floats(0, 1, width=32) | st.floats(0, 1)


def test_between_classes_that_are_apart_the_threshold_is_one_half() -> None:
    """Eight negatives up to 0.30 and eight positives from 0.90: all of (0.30, 0.90] is as good, and 0.5 is inside."""
    labels = np.repeat([0, 1], 8)
    positive = np.r_[np.linspace(0.02, 0.30, 8), np.linspace(0.90, 0.99, 8)]
    for sensitivity in (None, 1.0):
        found = choose_threshold(labels, positive, sensitivity)
        assert found.value == 0.5
        assert found.interval == pytest.approx((0.30, 0.90))


@pytest.mark.parametrize(
    ("negative", "positive", "value", "interval"),
    [
        ([0.05, 0.1], [0.2, 0.4], 0.15, (0.1, 0.2)),  # one half is outside: the middle, far from either image
        ([0.6, 0.7], [0.9, 0.95], 0.8, (0.7, 0.9)),
        ([0.2], [0.2], 0.5, (0.2, 1.0)),  # all alike: no threshold is better, so one half
        ([0.7], [0.7], 0.5, (0.0, 0.7)),
        ([0.5], [0.5], 0.5, (0.0, 0.5)),
        ([0.0], [1.0], 0.5, (0.0, 1.0)),
        ([1.0], [0.0], 0.0, (0.0, 0.0)),  # the wrong way round: nothing is better than to call all positive
        ([0.1, 0.5], [0.3, 0.9], 0.7, (0.5, 0.9)),  # two are as good, (0.1, 0.3] as well: the one nearest to one half
        ([0.2, 0.8], [0.4, 0.6, 0.9], 0.3, (0.2, 0.4)),
    ],
)
def test_thresholds_by_hand(
    negative: list[float], positive: list[float], value: float, interval: tuple[float, float]
) -> None:
    """One half if it is inside, else the middle; of several intervals the nearest to one half."""
    labels = np.repeat([0, 1], [len(negative), len(positive)])
    found = choose_threshold(labels, np.array(negative + positive))
    assert (found.value, found.interval) == (pytest.approx(value), pytest.approx(interval))


@given(SCORED)
def test_no_other_threshold_has_a_better_balanced_accuracy(cases: list[tuple[int, int]]) -> None:
    """Of all ways to cut the validation images in two, the chosen one is as good as any."""
    labels, scores = (np.array(column) for column in zip(*cases, strict=True))
    positive = scores / 100
    chosen = choose_threshold(labels, positive)
    found = balanced_accuracy_score(labels, positive >= chosen.value)
    assert found == pytest.approx(max(balanced_accuracy_score(labels, positive >= cut / 200) for cut in range(203)))
    assert 0 <= chosen.value <= 1


@given(SCORED, st.floats(0.01, 1))
def test_a_sensitivity_that_is_asked_for_is_reached_and_not_overdone(
    cases: list[tuple[int, int]], wanted: float
) -> None:
    """The threshold finds that share of the positives, and one above its interval doesn't."""
    labels, scores = (np.array(column) for column in zip(*cases, strict=True))
    positive = scores / 100
    chosen = choose_threshold(labels, positive, wanted)
    assert recall_score(labels, positive >= chosen.value) >= wanted - 1e-9
    assert recall_score(labels, positive > chosen.interval[1], zero_division=0) < wanted


@given(
    st.lists(st.tuples(st.integers(0, 1), PROBABILITY), min_size=2, max_size=20).filter(
        lambda cases: {label for label, _ in cases} == {0, 1}
    ),
    st.none() | st.floats(0.01, 1),
    st.floats(0, 1),
)
@example([(0, 0.1), (1, float(np.nextafter(0.1, 1)))], None, 0.5)  # nothing lies between
@example([(0, float(np.float32(0.1))), (1, float(np.nextafter(np.float32(0.1), np.float32(1))))], None, 0.5)
@example([(0, 0.0), (1, 5e-324)], None, 1.0)
def test_everywhere_in_the_interval_is_decided_alike(
    cases: list[tuple[int, float]], wanted: float | None, share: float
) -> None:
    """Also in float32, the models' own precision, if the probabilities are of that."""
    labels, positive = (np.array(column) for column in zip(*cases, strict=True))
    chosen = choose_threshold(labels, positive, wanted)
    low, high = chosen.interval
    assert low <= chosen.value <= high
    decided = positive >= chosen.value
    inside = low + share * (high - low)
    for threshold in [high, np.nextafter(low, 1), *([inside] if low < inside <= high else [])]:
        if low < threshold <= high:
            assert ((positive >= threshold) == decided).all()
    if (positive == positive.astype(np.float32)).all():
        assert ((positive.astype(np.float32) >= np.float32(chosen.value)) == decided).all()


def test_a_temperature_repairs_probabilities_that_are_too_sure() -> None:
    """Logits that were multiplied by three come back: the temperature is about three, and classes stay."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    sure = 1 / (1 + np.exp(-3 * logits))
    found = temperature(labels, np.stack([1 - sure, sure], axis=1))
    assert found == pytest.approx(3, rel=0.05)
    cooled = with_temperature(np.stack([1 - sure, sure], axis=1), found)
    assert ((cooled[:, 1] >= 0.5) == (sure >= 0.5)).all()


@pytest.mark.parametrize(("swap", "expected"), [(False, 0.05), (True, 20.0)])
def test_a_temperature_without_a_minimum_is_said_to_be_none(swap: bool, expected: float) -> None:
    """Separated without a fault, or upside down: the loss falls up to the limit of the search, which is no optimum."""
    labels, positive = np.array([0, 0, 1, 1]), np.array([0.4, 0.45, 0.55, 0.6])
    positive = 1 - positive if swap else positive
    found = temperature(labels, np.stack([1 - positive, positive], axis=1))
    assert found == pytest.approx(expected, rel=0.02)
    assert is_at_limit(found)
    assert not is_at_limit(1.5)
