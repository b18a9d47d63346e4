"""The sentences that open a report say what the figures allow, and no more."""

import math
from typing import Any

import pandas as pd
import pytest

from train.evaluation.phase_metrics import Estimate, Metrics, OperatingPoint, PhaseMetrics
from train.evaluation.results import Finished
from train.reporting.verdict import verdict

NONE, SECOND, FIRST = "no evidence of a difference", "the second is better", "the first is better"


def run(name: str, *phases: str) -> Finished:
    """A run with figures of 40 test images."""
    figure = Estimate(0.9, 0.8, 0.95)
    point = OperatingPoint(figure, figure, figure, figure, figure, confusion=[[18, 2], [2, 18]])
    test = Metrics(
        images=40,
        patients=16,
        auroc=figure,
        auprc=figure,
        brier=figure,
        ece=figure,
        decisions={"0.5": point, "chosen": point},
    )
    metrics = {phase: PhaseMetrics(val=test, test=test) for phase in phases}
    return Finished(name, {"group_name": "patient"}, metrics, pd.DataFrame(), pd.DataFrame())


def differences(first: str, second: str, *words: str) -> pd.DataFrame:
    """Of AUROC, accuracy at 0.5 and at the chosen thresholds, with these words."""
    names = ("AUROC", "accuracy at 0.5", "accuracy at the chosen thresholds")
    sign = {NONE: 0.001, SECOND: 0.03, FIRST: -0.03}
    rows: list[dict[str, Any]] = [
        {
            "first": first,
            "second": second,
            "figure": name,
            "difference": sign[said],
            "low": sign[said] - 0.01,
            "high": sign[said] + 0.01,
            "words": said,
        }
        for name, said in zip(names, words, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            (SECOND, SECOND, SECOND),
            ["better in ranking (AUROC): +0.030 [+0.020, +0.040]", "better in accuracy at the chosen"],
        ),
        (
            (NONE, SECOND, NONE),
            [
                "no evidence of a difference in ranking",
                "(+0.030): the decision line may have moved; there is no evidence that the ranking did.",
            ],
        ),
        ((SECOND, NONE, NONE), ["better in ranking", "no evidence of a difference in accuracy"]),
        ((FIRST, FIRST, FIRST), ["worse in ranking (AUROC): -0.030", "worse in accuracy"]),
        ((NONE, NONE, NONE), ["no evidence of a difference in ranking", "no evidence of a difference in accuracy"]),
    ],
)
def test_two_runs(words: tuple[str, ...], expected: list[str]) -> None:
    """The second against the first, in their last phase; why ranking and decisions differ where they do."""
    found = differences("01 fine-tuned", "even fine-tuned", *words)
    sentences = verdict([run("01", "frozen", "fine-tuned"), run("even", "frozen", "fine-tuned")], found)
    text = " ".join(sentences)
    assert sentences[0].startswith("even against 01: ")
    assert all(part in text for part in expected), text
    assert len(sentences) == (2 if words == (NONE, SECOND, NONE) else 1)


def test_one_run() -> None:
    """How good it is, and what fine-tuning did."""
    found = differences("01 frozen", "01 fine-tuned", NONE, NONE, NONE)
    first, second = verdict([run("01", "frozen", "fine-tuned")], found)
    assert first == (
        "On 40 test images of 16 patients the fine-tuned model has an AUROC of 0.900 [0.800, 0.950] and, at the threshold "
        "chosen on validation, an accuracy of 0.900 [0.800, 0.950]."
    )
    assert second.startswith("Fine-tuning against the frozen phase alone: no evidence")


def test_what_is_not_defined_is_said() -> None:
    """No nan reaches the page."""
    found = differences("a frozen", "b frozen", NONE, NONE, NONE)
    found.loc[0, ["difference", "low", "high", "words"]] = [
        math.nan,
        math.nan,
        math.nan,
        "not defined: test holds no B",
    ]
    text = " ".join(verdict([run("a", "frozen"), run("b", "frozen")], found))
    assert "ranking (AUROC) is not defined: test holds no B" in text
    assert "nan" not in text
    assert verdict([run("a", "frozen"), run("b", "frozen")], None) == []


@pytest.mark.parametrize(
    ("difference", "words", "expected"),
    [
        (math.nan, "not defined: test holds no B", "ranking (AUROC) is not defined: test holds no B and"),
        (0.2, "no interval: needs at least 2 patients", "(AUROC): +0.200 (no interval: needs at least 2 patients) and"),
    ],
)
def test_of_a_ranking_that_says_nothing_nothing_is_said(difference: float, words: str, expected: str) -> None:
    """Without a figure or an interval there is no word on whether the ranking changed, and the reason is given."""
    found = differences("a frozen", "b frozen", NONE, SECOND, NONE)
    found.loc[0, ["difference", "low", "high", "words"]] = [difference, math.nan, math.nan, words]
    (sentence,) = verdict([run("a", "frozen"), run("b", "frozen")], found)
    assert expected in sentence
    assert sentence.count("no evidence of a difference") == 1, "of the accuracy alone"
