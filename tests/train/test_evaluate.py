"""The numbers of a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluate import metrics


def test_two_classes_by_hand() -> None:
    """Accuracy, sensitivity and specificity of a small example; the second class is the positive one."""
    labels = np.array([0, 0, 0, 1, 1])
    positive = np.array([0.1, 0.6, 0.2, 0.9, 0.4], np.float32)
    told = metrics(labels, np.stack([1 - positive, positive], axis=1), ("NORMAL", "PNEUMONIA"))
    assert told["accuracy"] == pytest.approx(3 / 5)
    assert told["sensitivity"] == pytest.approx(1 / 2)
    assert told["specificity"] == pytest.approx(2 / 3)
    assert told["auroc"] == pytest.approx(5 / 6), "5 of 6 pairs are ranked right"
    assert told["confusion"]["rows_true_columns_predicted"] == [[2, 1], [1, 1]]


def test_three_classes_by_hand() -> None:
    """With more classes sensitivity and specificity are given for each."""
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], np.float32)
    told = metrics(labels, probabilities, ("a", "b", "c"))
    assert told["accuracy"] == pytest.approx(3 / 4)
    assert told["sensitivity"] == {"a": 1.0, "b": 1.0, "c": pytest.approx(1 / 2)}
    assert told["specificity"] == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 1.0}


def test_what_the_images_do_not_define_is_none() -> None:
    """One class only has no AUROC and no specificity; nothing is invented for them."""
    told = metrics(np.array([1, 1]), np.array([[0.4, 0.6], [0.9, 0.1]], np.float32), ("a", "b"))
    assert told["auroc"] is None
    assert told["specificity"] is None
    assert told["sensitivity"] == pytest.approx(1 / 2)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1, width=32)), min_size=1, max_size=50))
def test_the_confusion_matrix_counts_every_image_once(cases: list[tuple[int, float]]) -> None:
    """Its sum is the number of images, and its diagonal is the accuracy."""
    labels = np.array([label for label, _ in cases])
    positive = np.array([value for _, value in cases], np.float32)
    told = metrics(labels, np.stack([1 - positive, positive], axis=1), ("a", "b"))
    confusion = np.array(told["confusion"]["rows_true_columns_predicted"])
    assert confusion.sum() == len(cases)
    assert told["accuracy"] == pytest.approx(np.trace(confusion) / len(cases))
