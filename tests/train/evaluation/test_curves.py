"""Curves and their bands."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from train.evaluation import curves, results

TWO = ("no", "yes")


def scored(labels: list[int], positive: list[float], patients: list[int]) -> curves.Scored:
    """Two classes, by the second one's probability."""
    scores = np.array(positive)
    probabilities = np.column_stack([1 - scores, scores])
    predicted = (scores >= 0.5).astype(np.int64)
    rows = pd.DataFrame({"path": [f"{number}.jpg" for number in range(len(scores))]})
    return curves.Scored("test", rows, TWO, np.array(labels), predicted, probabilities, np.array(patients))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=40))
def test_without_resampling_the_curves_are_scikit_learns(images: list[tuple[bool, int]]) -> None:
    """ROC and precision-recall, also with many equal probabilities, and the sweep by counting."""
    labels, scores = np.array([label for label, _ in images]), np.array([score / 10 for _, score in images])
    if labels.all() or not labels.any():
        return
    rates = curves._Sorted(labels, scores).rates(np.ones(len(labels)), sweep=True)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(rates["roc"], [true[false <= rate + 1e-9].max() for rate in curves.RATES])
    precision, recall, _ = precision_recall_curve(labels, scores)
    expected = [precision[:-1][recall[:-1] >= rate - 1e-9][-1] for rate in curves.RATES[1:]]
    np.testing.assert_allclose(rates["precision"], expected)
    above = scores[:, None] >= curves.RATES
    np.testing.assert_allclose(rates["sensitivity"], above[labels].mean(axis=0))
    np.testing.assert_allclose(rates["specificity"], 1 - above[~labels].mean(axis=0))


def test_bands_are_of_patients() -> None:
    """Each image twice, of the same patient, tells nothing new: the bands stay. As other patients they get narrower."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.round(np.clip(labels * 0.3 + rng.random(60) * 0.7, 0, 1), 2)
    patients = list(range(60))
    once = curves.curves(scored(labels.tolist(), scores.tolist(), patients))
    twice = curves.curves(scored(labels.tolist() * 2, scores.tolist() * 2, patients * 2))
    apart = curves.curves(scored(labels.tolist() * 2, scores.tolist() * 2, list(range(120))))
    for name in curves.SWEPT:
        np.testing.assert_allclose(np.array(once.sweep[name]), np.array(twice.sweep[name]))
    width = {id(each): np.nansum(each.ranking["yes"].roc.high - each.ranking["yes"].roc.low) for each in (once, apart)}
    assert width[id(apart)] < 0.85 * width[id(once)]
    roc = once.ranking["yes"].roc
    assert ((roc.low <= roc.y) & (roc.y <= roc.high)).all()


def test_reliability_is_what_came_of_each_bin() -> None:
    """Predicted with 0.9 and observed half the time: one bin, at one half; the others are empty."""
    found = curves.curves(scored([0, 1] * 10, [0.9] * 20, list(range(20)))).reliability
    assert found.counts.tolist() == [0] * 13 + [20, 0]
    assert (found.observed.x[13], found.observed.y[13]) == pytest.approx((0.9, 0.5))
    assert found.observed.low[13] < 0.5 < found.observed.high[13]
    assert np.isnan(found.observed.y[:13]).all()


def test_of_one_class_nothing_is_ranked() -> None:
    """Without a positive there is no sensitivity, at whatever threshold; specificity there is."""
    found = curves.curves(scored([0, 0, 0], [0.1, 0.2, 0.7], [0, 1, 2]))
    assert np.isnan(found.ranking["yes"].roc.y).all()
    assert np.isnan(found.sweep["sensitivity"].y).all()
    assert found.sweep["specificity"].y[0] == 0
    assert found.sweep["specificity"].y[-1] == 1


@pytest.mark.slow
def test_each_of_three_classes_is_ranked(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """One against the rest; a threshold makes no sense there."""
    run = results.read(drawn_run(tmp_path, classes=3))
    of = curves.scored(run, "fine-tuned")
    found = curves.curves(of)
    assert list(found.ranking) == ["class0", "class1", "class2"]
    assert found.sweep == {}
    assert found.reliability.counts.sum() == len(of.labels) == 12


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", "other"), ("p(class0)", "x"), ("p(class1)", "1.5"), ("predicted (chosen)", ""), ("split", "none")],
)
def test_damaged_predictions_are_an_error(
    drawn_run: Callable[..., Path], tmp_path: Path, column: str, value: str
) -> None:
    """The message names the run and the fix."""
    folder = drawn_run(tmp_path)
    table = pd.read_csv(folder / "predictions.csv", dtype=str)
    table[column] = value
    table.to_csv(folder / "predictions.csv", index=False)
    (folder / "checksums.json").unlink()  # a run of an older version, without them
    with pytest.raises(results.ResultsError, match=rf"{folder}.*damaged.*train the run again"):
        curves.scored(results.read(folder), "frozen")


def test_predictions_without_patients_are_an_error(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """There is no interval without knowing whose images they are."""
    folder = drawn_run(tmp_path)
    pd.read_csv(folder / "predictions.csv").drop(columns="group").to_csv(folder / "predictions.csv", index=False)
    with pytest.raises(results.ResultsError, match=r"damaged .*no column 'group'"):
        curves.scored(results.read(folder), "frozen")
