"""Whether augmented images differ from originals to a network, and to a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from train.data_checks import augmentation, probe
from train.dataset import Dataset
from train.evaluation import metrics, results
from train.evaluation.phase_metrics import Estimate, PhaseMetrics
from train.features.activations import Activations, Share, of_logits
from train.features.engine import PLAIN
from train.features.extract import Features, Kept

CLASSES = ("01", "TRUE")
CLASS, MARK = 0, 1  # what the first two features hold; the others are noise


def images(count: int = 60, split: str = "train", classes: tuple[str, ...] = CLASSES) -> pd.DataFrame:
    """Of each class `count` sources of a third as many patients, each as it is and augmented twice."""
    rows = [
        (f"{label}-{source}-{variant}", split, label, f"{label}{source // 3:03}", variant)
        for label in classes
        for source in range(count)
        for variant in range(3)
    ]
    return pd.DataFrame(rows, columns=["sha256", "split", "label", "group", "variant"])


def measured(
    rows: pd.DataFrame, pooled: NDArray[np.float32], weights: list[float], classes: tuple[str, ...] = CLASSES
) -> dict[str, Any] | None:
    """What comes of pooled activations and a head with these weights."""
    dataset = Dataset(rows, {}, classes, (8, 8), Path(), "")
    places = np.arange(len(rows))
    features = Features(Kept([pooled], places), None, PLAIN, 0, len(rows))
    split = rows["split"].to_numpy()
    shares = [Share(features, dataset.labels(rows), places[chosen]) for chosen in (split == "train", split == "val")]
    kernel = np.zeros((pooled.shape[1], 1 if len(classes) == 2 else len(classes)))
    kernel[: len(weights)] = np.reshape(weights, (-1, 1))

    def predict(share: Share) -> NDArray[np.float64]:
        return of_logits(pooled[share.rows].astype(np.float64) @ kernel)

    return augmentation.measure(dataset, Activations(*shares, shares[1]), predict, 0.5)


def pooled_of(rows: pd.DataFrame, mark: float) -> NDArray[np.float32]:
    """The class in the first feature, whether an image is augmented in the second, noise everywhere."""
    pooled = np.random.default_rng(1).normal(size=(len(rows), 6))
    pooled[:, CLASS] += 2.0 * (rows["label"] == "TRUE") - 1
    pooled[:, MARK] += mark * (rows["variant"] > 0)
    return pooled.astype(np.float32)


def test_a_mark_that_the_model_ignores_is_seen_and_does_no_harm() -> None:
    """The probe finds it in either class; the model's score doesn't differ, its interval holds 0.5."""
    rows = images()
    found = measured(rows, pooled_of(rows, mark=3.0), [2.0, 0.0])
    assert found is not None
    assert found.split == "train"
    for label in CLASSES:
        of_class = found.classes[label]
        assert (of_class.originals, of_class.augmented, of_class.patients) == (60, 120, 20)
        assert of_class.probe.value > of_class.probe.low > 0.9
        assert of_class.score.low < 0.5 < of_class.score.high
        assert of_class.right.original == pytest.approx(of_class.right.augmented, abs=0.15)


def test_a_mark_that_the_model_uses_is_found_by_class() -> None:
    """A head that takes augmentation for the first class: augmented images of both get lower probabilities of TRUE."""
    rows = images()
    found = measured(rows, pooled_of(rows, mark=3.0), [2.0, -1.0])
    assert found is not None
    for label in CLASSES:
        of_class = found.classes[label]
        assert of_class.score.high < 0.4
        assert of_class.probability.augmented < of_class.probability.original
    right = {label: found.classes[label].right for label in CLASSES}
    assert right["TRUE"].augmented < right["TRUE"].original
    assert right["01"].augmented > right["01"].original


def test_the_probe_is_tried_on_other_patients() -> None:
    """Features that tell patients apart, but not augmentation: a probe that had seen the patients would score."""
    rows = images(60)
    rows = rows[(rows["group"].str[-1].astype(int) % 2 == 0) == (rows["variant"] > 0)].reset_index(drop=True)
    patients = rows["group"].factorize()[0]
    pooled = np.random.default_rng(2).normal(size=(patients.max() + 1, 200))[patients].astype(np.float32)
    found = measured(rows, pooled, [1.0])
    assert found is not None
    for label in CLASSES:
        assert found.classes[label].probe.low < 0.5


def test_validation_is_compared_where_it_holds_both_kinds() -> None:
    """Images that the model hasn't learnt are better; where only one class has both kinds there, it is train again."""
    rows = pd.concat([images(), images(40, "val").assign(group=lambda each: "v" + each["group"])], ignore_index=True)
    found = measured(rows, pooled_of(rows, 1.0), [1.0])
    assert found is not None
    assert found.split == "val"
    assert found.classes["01"].originals == 40
    lacking = rows[~((rows["split"] == "val") & (rows["label"] == "01") & (rows["variant"] > 0))].reset_index(drop=True)
    found = measured(lacking, pooled_of(lacking, 1.0), [1.0])
    assert found is not None
    assert found.split == "train"


def test_a_class_without_both_kinds_says_why() -> None:
    """One class is augmented, the other isn't: it is named with its count; a set without variants gives nothing."""
    rows = images()
    rows = rows[(rows["label"] == "01") | (rows["variant"] == 0)].reset_index(drop=True)
    found = measured(rows, pooled_of(rows, 1.0), [1.0])
    assert found is not None
    assert found.classes["01"].probe.value is not None
    too_few = Estimate(None, None, None, "0 augmented images of 0 groups are too few")
    assert found.classes["TRUE"].score == too_few
    none = rows[rows["variant"] == 0].reset_index(drop=True)
    assert measured(none, pooled_of(none, 0.0), [1.0]) is None


def test_many_images_are_sampled_by_checksum() -> None:
    """At most 500 of either kind and class, whatever their order."""
    rows = images(600)
    found = measured(rows, pooled_of(rows, 1.0), [1.0])
    assert found is not None
    assert {of_class.originals for of_class in found.classes.values()} == {probe.MOST}
    order = np.random.default_rng(3).permutation(len(rows))
    shuffled = measured(rows.iloc[order].reset_index(drop=True), pooled_of(rows, 1.0)[order], [1.0])
    assert shuffled is not None
    assert shuffled.classes["01"].probability == found.classes["01"].probability


def test_of_several_classes_the_images_own_probability_counts() -> None:
    """Three classes, a head without weights: each probability is a third, and nothing differs."""
    classes = ("0", "1", "10")
    rows = images(30, classes=classes)
    found = measured(rows, pooled_of(rows, 1.0), [0.0], classes)
    assert found is not None
    for label in classes:
        assert found.classes[label].score.value == 0.5
        assert found.classes[label].probability.original == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(-1.0, "augmented images get a lower one for 01 and a lower one for TRUE"), (0.0, "no sign")],
)
def test_it_is_said_in_words(weight: float, expected: str) -> None:
    """A sentence that a student understands, with the fix where the model lets augmentation count."""
    rows = images()
    found = measured(rows, pooled_of(rows, 3.0), [2.0, weight])
    val = metrics.metrics(np.array([0, 1]), np.full((2, 2), 0.5), np.array(["a", "b"]), CLASSES, None, "val")
    phase = PhaseMetrics(val=val, augmentation=found)
    run = results.Finished("run", {"positive": "TRUE"}, {"frozen": phase}, pd.DataFrame(), pd.DataFrame())
    said, table = results.augmentation(run)
    assert expected in " ".join(said)
    assert ("augmented_share: even" in " ".join(said)) == (weight < 0)
    assert table.iloc[:, 0].tolist() == list(CLASSES)
    assert "nan" not in table.to_string()
    assert "bfloat16" not in " ".join(said)
    assert found is not None
    trained = {"frozen": PhaseMetrics(val=val, augmentation=replace(found, precision="bfloat16"))}
    assert "activations of training, in bfloat16" in " ".join(results.augmentation(run._replace(metrics=trained))[0])
    assert results.augmentation(run._replace(metrics={"frozen": PhaseMetrics(val=val)}))[0] == []
