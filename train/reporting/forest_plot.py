"""Intervals as places on a scale, for the pictures that stand in the tables: forest plots."""

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from train.evaluation.results import Finished

if TYPE_CHECKING:
    from train.evaluation.phase_metrics import Estimate


class Mark(NamedTuple):
    """An interval on a scale, in percent of its width; `study` is where the original study's number stands."""

    low: float
    at: float
    high: float
    study: float | None = None


class Row(NamedTuple):
    """A row of a forest plot: the words in its cells, and the mark; None where there is nothing to draw."""

    cells: list[str]
    mark: Mark | None


class Forest(NamedTuple):
    """A table with a picture in each row. `ticks` are texts and places on the scale, `zero` the place of no difference."""

    title: str
    head: list[str]
    rows: list[Row]
    ticks: list[tuple[str, float]]
    zero: float | None


def accuracies(runs: list[Finished]) -> Forest:
    """Accuracy and AUROC of each run and phase, with the study's accuracy beside it."""
    found: list[tuple[list[str], Estimate, float | None]] = []
    alone = len(runs) == 1
    for run in runs:
        for phase, of_phase in run.metrics.items():
            accuracy = of_phase.measured.accuracy
            study = run.study[phase == "fine-tuned"] / 100 if run.study else None
            cells = [
                phase if alone else f"{run.name} {phase}",
                str(accuracy),
                str(of_phase.measured.auroc),
                "-" if study is None else f"{study:.4f}",
            ]
            found.append((cells, accuracy, study))
    ends = [end for _, each, _ in found for end in (each.value, each.low, each.high)]
    numbers = [end for end in ends if end is not None]
    numbers += [study for _, _, study in found if study is not None]
    scale = _Scale(min(numbers, default=0), max(numbers, default=1))
    head = ["run", "accuracy", "AUROC", "the study's accuracy"]
    shown = len(head) if any(run.study for run in runs) else len(head) - 1
    rows = [Row(cells[:shown], scale.mark(each.low, each.value, each.high, study)) for cells, each, study in found]
    return Forest("Accuracy, and AUROC", head[:shown], rows, scale.ticks, None)


def differences(found: pd.DataFrame, texts: pd.DataFrame) -> list[Forest]:
    """A forest plot for each figure that was compared, of the two tables of `compare`."""
    forests = []
    for figure in found["figure"].unique():
        chosen = found["figure"] == figure
        part, words = found[chosen], texts[chosen]
        ends = part[["difference", "low", "high"]].to_numpy(float).ravel()
        widest = max((abs(end) for end in ends if math.isfinite(end)), default=0.0) or 0.01
        scale = _Scale(-widest, widest)
        shown = ["difference", "p", "p (Holm)", *(["McNemar p"] if part["p_mcnemar"].notna().any() else [])]
        rows = [
            Row(
                [f"{row.second} less {row.first}", *text[shown], _named(row.words, row)],
                scale.mark(row.low, row.difference, row.high),
            )
            for row, (_, text) in zip(part.itertuples(index=False), words.iterrows(), strict=True)
        ]
        head = ["comparison", *shown, "what may be said"]
        forests.append(Forest(f"Difference in {figure}", head, rows, scale.ticks, scale.place(0)))
    return forests


class _Scale:
    """A linear scale with some room at both ends, and two to six round ticks."""

    def __init__(self, low: float, high: float) -> None:
        room = max(0.06 * (high - low), 0.005)
        self.low, self.high = low - room, high + room
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        wide = (factor for factor in (5, 2, 1) if (self.high - self.low) / (step * factor) >= 2)
        step *= next(wide, 1)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        self.ticks = [(f"{number * step:.{places}f}", self.place(number * step)) for number in numbers]

    def place(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def mark(self, low: float | None, at: float | None, high: float | None, study: float | None = None) -> Mark | None:
        if at is None or math.isnan(at):
            return None
        ends = [at if end is None or math.isnan(end) else end for end in (low, high)]
        return Mark(self.place(ends[0]), self.place(at), self.place(ends[1]), study and self.place(study))


def _named(words: str, row: Any) -> str:
    """The words about the first and the second, which the plot calls by their names."""
    names = {"the first": str(row.first), "the second": str(row.second)}
    return re.sub("the (?:first|second)", lambda found: names[found[0]], words)  # in one pass: a name may hold either
