"""Two runs on the same test images: intervals, tests, and the words that they allow."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from train import difference
from train.outcome import Finished, OutcomeError


def finished(name: str, positive: np.ndarray, labels: np.ndarray, images: list[str] | None = None) -> Finished:
    """A run whose two-class model gave these probabilities, the same in both phases."""
    names = np.array(["a", "b"])
    rows = pd.DataFrame(
        {
            "source_sha256": images or [f"{number:064}" for number in range(len(labels))],
            "split": "test",
            "label": names[labels],
            "group": [f"p{number // 2}" for number in range(len(labels))],
            "predicted (0.5)": names[(positive >= 0.5).astype(int)],
            "p(a)": 1 - positive,
            "p(b)": positive,
        }
    )
    told = pd.concat([rows.assign(phase=phase) for phase in ("frozen", "fine-tuned")])
    settings = {"set": name, "classes": ["a", "b"], "images": {}}
    return Finished(name, settings, {"frozen": {}, "fine-tuned": {}}, pd.DataFrame(), told)


LABELS = np.tile([0, 1], 200)
GOOD = np.where(LABELS == 1, 0.9, 0.1) + np.random.default_rng(0).normal(0, 0.02, 400)
POOR = np.where(np.random.default_rng(1).random(400) < 0.3, 1 - GOOD, GOOD)


def nothing(*_: int) -> None:
    """No progress."""


def test_a_clear_difference_is_called_one_with_its_direction() -> None:
    """A model that is wrong on 30 % loses to one that is never wrong, whichever comes first."""
    found = difference.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS)], nothing)
    between = found[(found["first"] == "good frozen") & (found["second"] == "poor frozen")].set_index("figure")
    wrong = np.mean((POOR >= 0.5) != (LABELS == 1))
    row: Any = between.loc["accuracy at 0.5"]
    assert row["difference"] == pytest.approx(-wrong)
    assert row["low"] < -wrong < row["high"] < 0
    assert row["words"] == "the first is better"
    assert between.loc["AUROC", "words"] == "the first is better"


def test_the_same_predictions_are_no_evidence_of_a_difference() -> None:
    """Between two phases that decide alike everything is zero."""
    found = difference.differences([finished("good", GOOD, LABELS)], nothing)
    assert (found["first"] == "good frozen").all()
    assert (found["second"] == "good fine-tuned").all()
    assert (found["difference"] == 0).all()
    assert set(found["words"]) == {"no evidence of a difference"}


def test_two_images_of_624_are_no_evidence_of_a_difference() -> None:
    """The size of the original study's gain by fine-tuning."""
    labels = np.tile([0, 1], 312)
    right = np.where(labels == 1, 0.9, 0.1)
    one, two = right.copy(), right.copy()
    one[:83], two[2:83] = 1 - right[:83], 1 - right[2:83]
    found = difference.differences([finished("one", one, labels), finished("two", two, labels)], nothing)
    row = found[(found["figure"] == "accuracy at 0.5") & (found["second"] == "two frozen")].iloc[0]
    assert row["difference"] == pytest.approx(2 / 624)
    assert row["p"] == pytest.approx(0.5)
    assert row["words"] == "no evidence of a difference"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_binomial_tail_doubled(pairs: list[tuple[bool, bool]]) -> None:
    """The exact p, for any two rows of answers: of what only one got right, how even is the split?"""
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    only = [int((first & ~second).sum()), int((~first & second).sum())]
    expected = min(1.0, 2 * binom.cdf(min(only), sum(only), 0.5)) if sum(only) else 1.0
    assert difference.mcnemar(first, second) == pytest.approx(expected)


def test_runs_on_other_test_images_are_refused_by_name() -> None:
    """Both runs are named, and how many images only one of them has."""
    other = [f"{number:064}" for number in range(10, 410)]
    with pytest.raises(OutcomeError, match=r"good frozen and poor frozen .*10 only in the first, 10 only in the sec"):
        difference.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS, other)], nothing)


def test_the_order_of_the_rows_does_not_matter() -> None:
    """Images are matched by their source's checksum."""
    shuffled = finished("poor", POOR, LABELS)
    shuffled = shuffled._replace(predictions=shuffled.predictions.sample(frac=1, random_state=0))
    straight = difference.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS)], nothing)
    found = difference.differences([finished("good", GOOD, LABELS), shuffled], nothing)
    pd.testing.assert_frame_equal(found, straight)
