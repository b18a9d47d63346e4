"""The ranking of labels that may be wrong."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data_checks import label_errors

CLASSES = ("0", "01", "TRUE")


def rows(labels: list[int], classes: tuple[str, ...] = CLASSES) -> pd.DataFrame:
    """Images of patients 000, 001, ..."""
    table = pd.DataFrame({"path": [f"{number:03}.jpg" for number in range(len(labels))]})
    table["source_sha256"] = [f"{number:064}" for number in range(len(labels))]
    return table.assign(label=[classes[label] for label in labels], group=[path[:3] for path in table["path"]])


def test_two_classes_as_computed_by_hand() -> None:
    """Thresholds 0.65 of the first class and 0.6 of the second; 0.4 against 0.6 is enough to count, 0.55 is not."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    first = np.array([0.9, 0.85, 0.45, 0.4, 0.1, 0.2, 0.62, 0.68])
    probabilities = np.column_stack([first, 1 - first])
    counted = label_errors.confident(labels, probabilities)
    assert counted.tolist() == [0, 0, -1, 1, 1, 1, -1, 0]
    joint = label_errors.confident_joint(labels, counted, 2)
    assert joint.tolist() == [[2, 1], [1, 2]]
    np.testing.assert_allclose(label_errors.estimated_errors(labels, joint), [4 / 3, 4 / 3])
    np.testing.assert_allclose(label_errors.scores(labels, probabilities)[[3, 7]], [0.4, 0.32])
    table = label_errors.ranked(rows(labels.tolist()), labels, probabilities, ("0", "01"), [])
    assert table[["path", "label", "suggested", "rank", "why"]].to_numpy().tolist() == [
        ["007.jpg", "01", "0", 1, "prediction"],
        ["003.jpg", "0", "01", 1, "prediction"],
    ]
    np.testing.assert_allclose(table[["p(given)", "p(suggested)", "score"]], [[0.32, 0.68, 0.32], [0.4, 0.6, 0.4]])


def test_three_classes_as_computed_by_hand() -> None:
    """Of two classes that reach their thresholds the more probable counts, and a probable one below its own does not.

    The thresholds are 0.5 of `0`, 0.2 of `01` and 0.85 of `TRUE`.
    """
    probabilities = np.array(
        [
            [0.62, 0.30, 0.08],  # as labelled, though `01` reaches its threshold as well
            [0.38, 0.35, 0.27],  # counts as `01`: `0` is more probable, but less than in its images on average
            [0.20, 0.40, 0.40],
            [0.10, 0.10, 0.80],  # reaches none
            [0.05, 0.05, 0.90],
            [0.55, 0.00, 0.45],  # counts as `0`
        ]
    )
    labels = np.array([0, 0, 1, 2, 2, 1])
    counted = label_errors.confident(labels, probabilities)
    assert counted.tolist() == [0, 1, 1, -1, 2, 0]
    joint = label_errors.confident_joint(labels, counted, 3)
    assert joint.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(label_errors.estimated_errors(labels, joint), [1, 1, 0])
    by_class = label_errors.by_class(labels, probabilities, CLASSES)
    assert by_class["label"].tolist() == list(CLASSES)
    assert by_class["candidates"].tolist() == [1, 1, 0]
    table = label_errors.ranked(rows(labels.tolist()), labels, probabilities, CLASSES, [])
    np.testing.assert_allclose(table["score"], [(0.0 - 0.55 + 1) / 2, (0.38 - 0.35 + 1) / 2])
    assert table["suggested"].tolist() == ["0", "01"]


def test_the_same_picture_is_listed_apart_and_may_be_a_candidate_too() -> None:
    """With the other's class as the suggestion, and the other's path."""
    labels = np.array([0, 1, 0, 1])
    first = np.array([0.9, 0.2, 0.1, 0.3])
    twins = [label_errors.Twin(1, 2), label_errors.Twin(2, 1)]
    table = label_errors.ranked(rows(labels.tolist()), labels, np.column_stack([first, 1 - first]), ("0", "01"), twins)
    assert table["path"].tolist() == ["002.jpg", "002.jpg", "001.jpg"]
    assert table["why"].tolist() == ["prediction", "same picture: 001.jpg", "same picture: 002.jpg"]
    assert [label_errors.twin_of(why) for why in table["why"]] == ["", "001.jpg", "002.jpg"]
    assert table["suggested"].tolist() == ["01", "01", "0"]
    assert table["group"].tolist() == ["002", "002", "001"]
    assert table["rank"].tolist() == [1, 1, 1]


def test_nothing_to_list_is_a_table_without_rows() -> None:
    """With all columns."""
    labels = np.array([0, 1])
    table = label_errors.ranked(rows([0, 1]), labels, np.eye(2), ("0", "01"), [])
    assert tuple(table.columns) == label_errors.COLUMNS
    assert table.empty


def test_a_class_without_images_is_suggested_to_none() -> None:
    """It has no threshold to reach."""
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]])
    assert label_errors.confident(labels, probabilities).tolist() == [-1, 0, 1]
    assert label_errors.by_class(labels, probabilities, CLASSES)["estimated wrong"].tolist() == [0, 0, 0]


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of two or three classes, among them ties and certainty."""
    classes = draw(st.integers(2, 3))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=30))
    weights = st.lists(st.sampled_from([0, 1, 1, 2, 5, 100]), min_size=classes, max_size=classes).filter(any)
    drawn = np.array([draw(weights) for _ in labels], float)
    return np.array(labels), drawn / drawn.sum(axis=1, keepdims=True)


@given(predictions(), st.randoms())
def test_the_order_of_the_images_does_not_matter(drawn: tuple[np.ndarray, np.ndarray], random: object) -> None:
    """Nor is anything listed that is counted as its label; every count adds up, every score is within 0 and 1."""
    labels, probabilities = drawn
    classes = CLASSES[: probabilities.shape[1]]
    images = rows(labels.tolist())
    table = label_errors.ranked(images, labels, probabilities, classes, [])
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = label_errors.ranked(images.iloc[order], labels[order], probabilities[order], classes, [])
    pd.testing.assert_frame_equal(table, shuffled)
    assert (table["label"] != table["suggested"]).all()
    assert table["score"].is_monotonic_increasing
    assert table["score"].between(0, 1).all()
    by_class = label_errors.by_class(labels, probabilities, classes)
    assert by_class["candidates"].sum() == len(table)
    assert by_class["images"].sum() == len(labels)
    assert (by_class["estimated wrong"] <= by_class["images"]).all()
    assert (by_class["estimated wrong"] >= by_class["candidates"] - 0.05).all(), "scaled up, and rounded"
    for _, of_label in table.groupby("label"):
        assert sorted(of_label["rank"]) == list(range(1, len(of_label) + 1))


@given(predictions())
def test_images_that_are_predicted_alike_are_no_candidates(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """Where members give every image of a label the same, a mean that is rounded up must not lose them."""
    labels, probabilities = drawn
    same = np.tile(probabilities[:1], (len(labels), 1))
    counted = label_errors.confident(labels, same)
    assert (counted >= 0).all()
    assert len(set(counted.tolist())) == 1


@pytest.mark.parametrize(("share", "classes"), [(0.03, 2), (0.1, 3)])
def test_wrong_labels_of_separable_classes_are_found(share: float, classes: int) -> None:
    """All of them, nothing else, and as many as there are of each class."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, classes, 2000)
    logits = 6 * np.eye(classes)[true] + rng.normal(size=(2000, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = rng.random(2000) < share
    labels = np.where(wrong, (true + 1) % classes, true)
    table = label_errors.ranked(rows(labels.tolist()), labels, probabilities, CLASSES[:classes], [])
    found = table["path"].str[:-4].astype(int)
    assert np.isin(np.flatnonzero(wrong), found).mean() > 0.95
    assert wrong[found].mean() > 0.95
    estimated = label_errors.by_class(labels, probabilities, CLASSES[:classes])["estimated wrong"]
    np.testing.assert_allclose(estimated, np.bincount(labels[wrong], minlength=classes), rtol=0.1, atol=2)
