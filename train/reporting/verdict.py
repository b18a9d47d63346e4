"""Two or three sentences that the figures of some runs allow, for whoever reads no further."""

import pandas as pd

from train.evaluation.compare import FIRST_IS_BETTER, NO_EVIDENCE, SECOND_IS_BETTER, difference_text
from train.evaluation.results import Finished

_BETTER = {SECOND_IS_BETTER: "better", FIRST_IS_BETTER: "worse"}


def verdict(runs: list[Finished], found: pd.DataFrame | None) -> list[str]:
    """The result in sentences: of one run how good it is, of several how each differs from the first.

    Args:
        runs: finished runs.
        found: their differences on the test images, as `compare.differences` has them; None where there are none.
    """
    if len(runs) == 1:
        sentences = [_of_one(runs[0]), *_of_folds(runs[0])]
        phases = list(runs[0].metrics)
        if found is not None and len(phases) == 2:
            first, second = (f"{runs[0].name} {phase}" for phase in phases)
            sentences += _of_pair(found, first, second, "Fine-tuning", "the frozen phase alone")
        return sentences
    if found is None:
        return []
    base, phase = runs[0], list(runs[0].metrics)[-1]
    sentences = []
    for run in runs[1:]:
        if phase in run.metrics:
            sentences += _of_pair(found, f"{base.name} {phase}", f"{run.name} {phase}", run.name, base.name)
    return sentences


def _of_one(run: Finished) -> str:
    phase, of_phase = list(run.metrics.items())[-1]
    measured = of_phase.measured
    point, decided = list(measured.decisions.items())[-1]
    chosen = f"at the threshold chosen on {run.chosen_on}"
    where = {"chosen": chosen, "0.5": "at a threshold of 0.5"}.get(point, "")
    return (
        f"On {measured.images:,} {'test' if of_phase.test else run.val_name} images of {measured.patients:,} {run.group_name}s the "
        f"{phase} model has an AUROC of {measured.auroc} and, {where or 'by the most probable class'}, an accuracy of "
        f"{decided.accuracy}."
    )


def _of_folds(run: Finished) -> list[str]:
    """How a cross-validated model does out of fold, and how much that varies."""
    last = run.last
    if not last.cross_validation:
        return []
    found = last.cross_validation
    divided = f"{found.folds} folds" + (f", {found.repeats} times over" if found.repeats > 1 else "")
    sentence = (
        f"Cross-validated by {run.group_name} ({divided}): each of {last.val.images:,} images predicted by members that were not "
        f"trained on its {run.group_name} gives an AUROC of {last.val.auroc}; single folds vary by a standard deviation of "
        f"{found.figures['auroc'].folds:.3f}."
    )
    return [sentence]


def _of_pair(found: pd.DataFrame, first: str, second: str, name: str, base: str) -> list[str]:
    """How `second` differs from `first`, in ranking and in decisions, and why the two may differ."""
    rows = found[(found["first"] == first) & (found["second"] == second)].set_index("figure")
    if rows.empty:
        return []
    ranking, decisions = rows.loc["AUROC"], rows.drop("AUROC")
    decided = decisions.iloc[-1]  # at the chosen thresholds, where there are some
    parts = [_said(ranking, "ranking (AUROC)"), _said(decided, decisions.index[-1])]
    sentences = [f"{name} against {base}: {' and '.join(parts)}."]
    at_half = decisions.iloc[0]
    # That there is no evidence of another ranking needs an interval, and is no evidence that it is the same.
    if at_half["words"] in _BETTER and ranking["words"] == NO_EVIDENCE and len(decisions) > 1:
        sentences.append(
            f"At a fixed threshold of 0.5 accuracy is {_BETTER[at_half['words']]} ({at_half['difference']:+.3f}): the decision "
            "line may have moved; there is no evidence that the ranking did."
        )
    return sentences


def _said(row: "pd.Series[float]", figure: str) -> str:
    words = str(row["words"])
    if pd.isna(row["difference"]):
        return f"{figure} is {words}"  # "not defined: test holds no ..."
    if pd.isna(row["low"]):
        return f"{figure}: {difference_text(row)} ({words})"  # "no interval: needs ..."
    how = f"{_BETTER[words]} in" if words in _BETTER else "no evidence of a difference in"
    return f"{how} {figure}: {difference_text(row)}"
