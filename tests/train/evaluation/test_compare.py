"""Two runs on the same test images: intervals, tests, and the words that they allow."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from train.evaluation import compare, significance
from train.evaluation.phase_metrics import CrossValidation
from train.evaluation.results import Finished, ResultsError


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
    of_both = pd.concat([rows.assign(phase=phase) for phase in ("frozen", "fine-tuned")])
    settings = {"set": name, "classes": ["a", "b"], "positive": "b", "images": {}}
    metrics: Any = dict.fromkeys(("frozen", "fine-tuned"), SimpleNamespace(cross_validation=None))
    return Finished(name, settings, metrics, pd.DataFrame(), of_both)


LABELS = np.tile([0, 1], 200)
GOOD = np.where(LABELS == 1, 0.9, 0.1) + np.random.default_rng(0).normal(0, 0.02, 400)
POOR = np.where(np.random.default_rng(1).random(400) < 0.3, 1 - GOOD, GOOD)


def cross_validated(run: Finished) -> Finished:
    """The same predictions, out of fold."""
    figures = CrossValidation(folds=5, repeats=1, figures={}, precision="float32")
    metrics = {phase: SimpleNamespace(cross_validation=figures) for phase in run.metrics}
    return run._replace(metrics=metrics, predictions=run.predictions.assign(split="val"))


def nothing(*_: int) -> None:
    """No progress."""


def test_a_clear_difference_is_called_one_with_its_direction() -> None:
    """A model that is wrong on 30 % loses to one that is never wrong, whichever comes first."""
    found = compare.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS)], nothing)
    between = found[(found["first"] == "good frozen") & (found["second"] == "poor frozen")].set_index("figure")
    wrong = np.mean((POOR >= 0.5) != (LABELS == 1))
    row: Any = between.loc["accuracy at 0.5"]
    assert row["difference"] == pytest.approx(-wrong)
    assert row["low"] < -wrong < row["high"] < 0
    assert row["words"] == "the first is better"
    assert between.loc["AUROC", "words"] == "the first is better"


def test_the_same_predictions_are_no_evidence_of_a_difference() -> None:
    """Between two phases that decide alike everything is zero."""
    found = compare.differences([finished("good", GOOD, LABELS)], nothing)
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
    found = compare.differences([finished("one", one, labels), finished("two", two, labels)], nothing)
    row = found[(found["figure"] == "accuracy at 0.5") & (found["second"] == "two frozen")].iloc[0]
    assert row["difference"] == pytest.approx(2 / 624)
    assert row["p_mcnemar"] == pytest.approx(0.5)
    assert row["p"] == 1.0, "both images are of one patient"
    assert row["words"] == "no evidence of a difference"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_binomial_tail_doubled(pairs: list[tuple[bool, bool]]) -> None:
    """The exact p, for any two rows of answers: of what only one got right, how even is the split?"""
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    only = [int((first & ~second).sum()), int((~first & second).sum())]
    expected = min(1.0, 2 * binom.cdf(min(only), sum(only), 0.5)) if sum(only) else 1.0
    gained = second.astype(int) - first
    assert significance.mcnemar(gained) == pytest.approx(expected)
    assert significance.permutation(gained, np.arange(len(gained))) == pytest.approx(expected), "one image a patient"


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 7)), min_size=1, max_size=30))
def test_the_permutation_of_patients_is_exact(images: list[tuple[int, int]]) -> None:
    """As counted over all ways to exchange the two models patient by patient."""
    gained, patients = (np.array(column) for column in zip(*images, strict=True))
    sums = np.bincount(patients, gained)
    signs = np.array(list(itertools.product((1, -1), repeat=len(sums))))
    expected = np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9)
    assert significance.permutation(gained, patients) == pytest.approx(expected)


def test_ten_images_of_one_patient_are_no_evidence() -> None:
    """McNemar's test takes them for ten cases; exchanged as the one patient that they are, they decide nothing."""
    gained, patients = np.ones(10, dtype=int), np.zeros(10, dtype=int)
    assert significance.mcnemar(gained) < 0.01
    assert significance.permutation(gained, patients) == 1.0


def test_holm_by_hand() -> None:
    """The smallest times the number of tests, and so on, never falling, at most 1; what isn't tested stays so."""
    found = significance.holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005, 0.9]))
    np.testing.assert_allclose(found, [0.04, 0.09, np.nan, 0.09, 0.025, 0.9])


def test_the_aurocs_test_agrees_with_delongs() -> None:
    """With one image a patient, the variance is that of DeLong (1988), here by its definition over all pairs."""
    rng = np.random.default_rng(0)
    positive = rng.random(80) < 0.4
    scores = [np.round(positive + rng.normal(0, spread, 80), 1) for spread in (0.7, 1.3)]
    aurocs, components = [], []
    for each in scores:
        pairs = (each[positive][:, None] > each[~positive]) + 0.5 * (each[positive][:, None] == each[~positive])
        aurocs.append(pairs.mean())
        components.append((pairs.mean(axis=1), pairs.mean(axis=0)))
    over_positive, over_negative = (two - one for one, two in zip(*components, strict=True))
    variance = over_positive.var(ddof=1) / positive.sum() + over_negative.var(ddof=1) / (~positive).sum()
    influence = significance.auroc_influence(positive, scores[1]) - significance.auroc_influence(positive, scores[0])
    p = significance.clustered(aurocs[1] - aurocs[0], influence, np.arange(80), 10**6)
    assert p == pytest.approx(2 * norm.sf(abs(aurocs[1] - aurocs[0]) / variance**0.5), rel=0.15)


def test_what_is_said_goes_by_the_corrected_p() -> None:
    """One of many comparisons that chance alone would make is no evidence; the correction is over all that are shown."""
    rng = np.random.default_rng(4)
    names = [f"run{number}" for number in range(5)]
    runs = [finished(name, np.where(rng.random(400) < 0.05, 1 - GOOD, GOOD), LABELS) for name in names]
    found = compare.differences(runs, nothing)
    assert len(found) == 2 * (5 + 2 * 10)
    assert (found["p_holm"] >= found["p"]).all()
    better = found["words"] != "no evidence of a difference"
    assert (found.loc[better, "p_holm"] < 0.05).all()
    assert not better.any()
    assert (found["p"] < 0.05).any(), "what the correction is for"


def test_runs_that_group_images_differently_are_compared_by_both_groupings() -> None:
    """Of two sets of one source: the intervals don't go by who comes first, and it is said."""
    coarse, fine = finished("coarse", POOR, LABELS), finished("fine", GOOD, LABELS)
    apart = np.tile([f"i{number}" for number in range(400)], 2)
    together = np.tile([f"p{number // 40}" for number in range(400)], 2)
    shifted = np.tile([f"q{(number + 20) // 40}" for number in range(400)], 2)

    def of(run: Finished, groups: np.ndarray) -> Finished:
        return run._replace(predictions=run.predictions.assign(group=groups))

    def between(first: Finished, second: Finished) -> pd.DataFrame:
        found = compare.differences([first, second], nothing)
        return found[found["first"].str.split().str[0] != found["second"].str.split().str[0]].reset_index(drop=True)

    one, two = between(of(coarse, together), of(fine, apart)), between(of(fine, apart), of(coarse, together))
    np.testing.assert_allclose(one[["low", "high"]], -two[["high", "low"]].to_numpy(), atol=1e-9)
    pd.testing.assert_series_equal(one["p"], two["p"])
    assert compare.notes(one) == compare.notes(two) != []
    alike = between(of(coarse, together), of(fine, np.char.add("x", together)))
    assert compare.notes(alike) == []
    np.testing.assert_allclose(one[["low", "high", "p"]], alike[["low", "high", "p"]], atol=0.02)
    chained = between(of(coarse, together), of(fine, shifted))
    assert set(chained["words"]) == {"no interval: needs at least 2 groups, test holds 1 group with an image of a",
                                     "no interval: needs at least 2 groups, test holds 1 group"}  # fmt: skip


def test_many_classes_of_few_patients_have_no_interval() -> None:
    """Where hardly a resampling holds every class, a handful of draws is no interval, and that is the reason given."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 2)
    names = tuple(f"k{number:02}" for number in range(30))
    images = pd.DataFrame({"label": np.array(names)[labels], "group": [f"p{number}" for number in range(60)]})
    one, two = (
        compare.Judgement(name, images, names, rng.dirichlet(np.ones(30), 60), {"most probable": rng.random(60) < 0.5})
        for name in ("one", "two")
    )
    auroc, accuracy = compare.compared(one, two)
    assert np.isnan([auroc["low"], auroc["high"]]).all()
    assert auroc["reason"] == "too few resamplings of the groups hold every class"
    assert accuracy["reason"] == ""


def test_runs_that_take_another_class_for_positive_are_compared() -> None:
    """The probabilities are matched by the classes' names, whatever their order."""
    turned = finished("poor", POOR, LABELS)
    turned = turned._replace(settings=turned.settings | {"classes": ["b", "a"]})
    straight = compare.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS)], nothing)
    pd.testing.assert_frame_equal(compare.differences([finished("good", GOOD, LABELS), turned], nothing), straight)


def test_what_is_not_defined_says_why() -> None:
    """One class only: no AUROC. One patient only: no interval. In the table for people too, without nan or a dash."""
    ones = np.ones(6, dtype=int)
    found = compare.differences([finished("a", np.linspace(0.3, 0.9, 6), ones)], nothing).set_index("figure")
    assert found.loc["AUROC", "words"] == "not defined: test holds no image of a"
    assert found.loc["accuracy at 0.5", "words"] == "no evidence of a difference"
    single = finished("a", np.array([0.2, 0.8]), np.array([0, 1]))
    found = compare.differences([single], nothing)
    assert set(found["words"]) == {
        "no interval: needs at least 2 groups, test holds 1 group with an image of a",
        "no interval: needs at least 2 groups, test holds 1 group",
    }
    texts = compare.as_text(found).to_numpy().ravel()
    assert not [text for text in texts if "nan" in text or text.strip() == "-"]


def test_runs_on_other_test_images_are_refused_by_name() -> None:
    """Both runs are named, and how many images only one of them has."""
    other = [f"{number:064}" for number in range(10, 410)]
    with pytest.raises(ResultsError, match=r"good frozen and poor frozen .*10 only in the first, 10 only in the sec"):
        compare.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS, other)], nothing)


def test_the_order_of_the_rows_does_not_matter() -> None:
    """Images are matched by their source's checksum."""
    shuffled = finished("poor", POOR, LABELS)
    shuffled = shuffled._replace(predictions=shuffled.predictions.sample(frac=1, random_state=0))
    straight = compare.differences([finished("good", GOOD, LABELS), finished("poor", POOR, LABELS)], nothing)
    found = compare.differences([finished("good", GOOD, LABELS), shuffled], nothing)
    pd.testing.assert_frame_equal(found, straight)


def test_out_of_fold_the_images_in_common_are_compared() -> None:
    """Sets of one source may show different ones as they are; a run without folds is named, and so is none in common."""
    images = [f"{number:064}" for number in range(400)]
    other = [f"{number + 100:064}" for number in range(400)]
    good = cross_validated(finished("good", GOOD, LABELS, images))
    poor = cross_validated(finished("poor", POOR, LABELS, other))
    found = compare.differences([good, poor], nothing, out_of_fold=True)
    row: Any = found[(found["first"] == "good frozen") & (found["second"] == "poor frozen")].set_index("figure")
    right = (POOR >= 0.5) == (LABELS == 1)
    assert row.loc["accuracy at 0.5", "difference"] == pytest.approx(right[:300].mean() - 1)
    with pytest.raises(ResultsError, match="plain is not cross-validated; train it with --folds 5"):
        compare.differences([good, finished("plain", GOOD, LABELS)], nothing, out_of_fold=True)
    apart = cross_validated(finished("apart", GOOD, LABELS, [f"{number + 999:064}" for number in range(400)]))
    with pytest.raises(ResultsError, match="no image in common"):
        compare.differences([good, apart], nothing, out_of_fold=True)


def test_against_the_first_intervals_are_wider_the_more_there_are() -> None:
    """Only the last phases are compared, and each with the first only."""
    runs = [
        finished(name, each, LABELS) for name, each in (("whole", GOOD), ("one", POOR), ("two", POOR), ("three", POOR))
    ]
    found = compare.differences(runs, nothing, against_first=True)
    assert found[found["figure"] == "AUROC"][["first", "second"]].to_numpy().tolist() == [
        ["whole fine-tuned", f"{name} fine-tuned"] for name in ("one", "two", "three")
    ]
    alone = compare.differences(runs[:2], nothing, against_first=True)
    first, single = (table[(table["figure"] == "accuracy at 0.5")].iloc[0] for table in (found, alone))
    assert first["low"] < single["low"] < single["high"] < first["high"]
    assert first["difference"] == single["difference"]
