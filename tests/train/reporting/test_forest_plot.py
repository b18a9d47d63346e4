"""Intervals as places on a scale."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation import compare, results
from train.reporting import forest_plot


@given(st.floats(-1, 1), st.floats(0, 1))
def test_a_scale_holds_its_ends_and_has_round_ticks(low: float, width: float) -> None:
    """Whatever the range: a few ticks within it, in order, none twice, and both ends on it."""
    scale = forest_plot._Scale(low, low + width)
    mark = scale.mark(low, low + width / 2, low + width)
    assert mark is not None
    assert 0 <= mark.low <= mark.at <= mark.high <= 100
    texts, places = zip(*scale.ticks, strict=True)
    assert 2 <= len(places) <= 7
    assert list(places) == sorted(set(places))
    assert len(set(texts)) == len(texts)
    assert all(0 <= place <= 100 for place in places)
    assert all(math.isclose(scale.place(float(text)), place, abs_tol=0.02) for text, place in scale.ticks)


def test_what_is_not_defined_has_no_mark() -> None:
    """No value, no dot; no interval, a dot alone."""
    scale = forest_plot._Scale(0, 1)
    assert scale.mark(None, None, None) is None
    assert scale.mark(math.nan, math.nan, math.nan) is None
    alone = scale.mark(math.nan, 0.5, math.nan)
    assert alone is not None
    assert alone.low == alone.at == alone.high == 50


def test_differences_have_no_difference_in_the_middle() -> None:
    """A plot a figure; the words name the better one as the row does."""
    found = pd.DataFrame(
        {
            "first": ["a frozen", "a frozen"],
            "second": ["b frozen", "b frozen"],
            "figure": ["AUROC", "accuracy at 0.5"],
            "difference": [0.1, -0.02],
            "low": [0.05, -0.05],
            "high": [0.15, 0.01],
            "p": [0.0004, 0.3],
            "p_holm": [0.0008, 0.3],
            "p_mcnemar": [math.nan, 0.27],
            "words": ["the second is better", "no evidence of a difference"],
        }
    )
    auroc, accuracy = forest_plot.differences(found, compare.as_text(found))
    assert (auroc.title, accuracy.title) == ("Difference in AUROC", "Difference in accuracy at 0.5")
    assert auroc.zero == accuracy.zero == 50
    assert auroc.head == ["comparison", "difference", "p", "p (Holm)", "what may be said"]
    assert auroc.rows[0].cells == [
        "b frozen less a frozen", "+0.100 [+0.050, +0.150]", "< 0.001", "< 0.001", "b frozen is better",
    ]  # fmt: skip
    assert accuracy.head[2:5] == ["p", "p (Holm)", "McNemar p"]
    assert accuracy.rows[0].cells[2:5] == ["0.300", "0.300", "0.270"]
    mark = accuracy.rows[0].mark
    assert mark is not None
    assert mark.low < mark.at < 50 < mark.high


def test_the_better_run_is_named_whatever_runs_are_called() -> None:
    """A folder's name may hold the words that names are put for."""
    found = pd.DataFrame(
        {
            "first": ["the second frozen"],
            "second": ["b frozen"],
            "figure": ["AUROC"],
            "difference": [-0.1],
            "low": [-0.15],
            "high": [-0.05],
            "p": [0.01],
            "p_holm": [0.01],
            "p_mcnemar": [math.nan],
            "words": ["the first is better"],
        }
    )
    (auroc,) = forest_plot.differences(found, compare.as_text(found))
    assert auroc.rows[0].cells[-1] == "the second frozen is better"


def test_the_studys_number_stands_beside_its_set(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """A run on one of the study's sets has its mark, of its phase; another run has none."""
    own = results.read(drawn_run(tmp_path))
    its = {"set": "augment1", "classes": ["NORMAL", "PNEUMONIA"], "images": {"train": 8_000, "val": 2_000, "test": 624}}
    runs = [own._replace(settings=own.settings | its), own]
    shown = forest_plot.accuracies(runs)
    assert [row.cells[3] for row in shown.rows] == ["0.8638", "0.8670", "-", "-"]
    marks = [row.mark.study if row.mark else None for row in shown.rows]
    assert None not in marks[:2]
    assert marks[2:] == [None, None]
