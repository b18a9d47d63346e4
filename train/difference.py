"""Two runs, or two phases of one, on the same test images: is there a difference that chance doesn't explain?"""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from train.measure import Floats, Ranked, bootstrap, ranked
from train.outcome import Finished, OutcomeError

LEVEL = 0.05  # of the tests, and what the intervals leave out


class Judgement(NamedTuple):
    """What one phase of one run makes of the test images, all in one order."""

    name: str
    images: pd.DataFrame  # source_sha256, label, group
    classes: tuple[str, ...]
    probabilities: Floats  # (images, classes)
    right: dict[str, NDArray[np.bool_]]  # by way of deciding


def differences(runs: list[Finished], progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Differences on test, second less first: between all pairs of runs in each phase, and between a run's phases.

    Columns: first, second, figure, difference, low, high (the middle 95 % of a paired bootstrap over patients),
    p (McNemar's exact test, for accuracies only; it takes the images for independent) and the words that these
    allow. `progress` is called with (pairs done, pairs).

    Raises:
        OutcomeError: runs on other test images than the first one's.
    """
    judged = [list(_judgements(run).items()) for run in runs]
    for phases in judged:
        _expect_same_images(judged[0][0][1], phases[0][1])
    pairs = [(one, two) for phases in judged for (_, one), (_, two) in combinations(phases, 2)]
    for first, second in combinations(judged, 2):
        of_second = dict(second)
        pairs += [(one, of_second[phase]) for phase, one in first if phase in of_second]
    rows: list[dict[str, Any]] = []
    for done, pair in enumerate(pairs, 1):
        rows += _compared(*pair)
        progress(done, len(pairs))
    return pd.DataFrame(rows, columns=["first", "second", "figure", "difference", "low", "high", "p", "words"])


def told(found: pd.DataFrame) -> pd.DataFrame:
    """The same for people: numbers as text, the interval in brackets."""
    table = found[["first", "second", "figure"]].copy()
    table["difference"] = [
        f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in found.itertuples(index=False)
    ]
    table["McNemar p"] = ["-" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in found["p"]]
    table["what may be said"] = found["words"]
    return table


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The exact two-sided p of McNemar's test, by what only one of two got right.

    Source: Dietterich (1998), Approximate Statistical Tests for Comparing Supervised Classification Learning
    Algorithms; the exact form, by the binomial distribution.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def _judgements(run: Finished) -> dict[str, Judgement]:
    of_test = run.predictions[run.predictions["split"] == "test"]
    found = {}
    for phase in run.metrics:
        rows = of_test[of_test["phase"] == phase].sort_values(["source_sha256", "label"], ignore_index=True)
        if rows.empty:
            raise OutcomeError(f"{run.name}: its set has no test images, so there is nothing to compare on")
        classes = tuple(run.settings["classes"])
        ways = [name for name in rows.columns if name.startswith("predicted (")]
        found[phase] = Judgement(
            f"{run.name} {phase}",
            rows[["source_sha256", "label", "group"]],
            classes,
            rows[[f"p({label})" for label in classes]].to_numpy(float),
            {way[11:-1]: (rows[way] == rows["label"]).to_numpy() for way in ways},
        )
    return found


def _expect_same_images(first: Judgement, other: Judgement) -> None:
    if first.classes != other.classes:
        raise OutcomeError(f"{first.name} tells {', '.join(first.classes)} apart and {other.name} others")
    columns = ["source_sha256", "label"]
    if not first.images[columns].equals(other.images[columns]):
        of_first, of_other = (set(map(tuple, each.images[columns].to_numpy())) for each in (first, other))
        raise OutcomeError(
            f"{first.name} and {other.name} are on different test images ({len(of_first - of_other)} only in the "
            f"first, {len(of_other - of_first)} only in the second); train both on sets of one source folder"
        )


def _compared(one: Judgement, two: Judgement) -> list[dict[str, Any]]:
    """A row a figure: AUROC, and accuracy by each way of deciding."""
    labels = one.images["label"].map({name: index for index, name in enumerate(one.classes)}).to_numpy()
    _, code = np.unique(one.images["group"].astype(str), return_inverse=True)
    names = {way: "accuracy, most probable" if way == "most probable" else f"accuracy at {way}" for way in one.right}
    names |= {"chosen": "accuracy at the chosen thresholds"} if "chosen" in names else {}

    of_one, of_two = ranked(labels, one.probabilities), ranked(labels, two.probabilities)

    def told(weights: Floats) -> dict[str, float]:
        found = {"AUROC": _auroc(of_two, weights) - _auroc(of_one, weights)}
        for way, name in names.items():
            gained = two.right[way].astype(float) - one.right[way]
            found[name] = float(np.average(gained, weights=weights))
        return found

    intervals, rows = bootstrap(told, code), []
    tests = {name: mcnemar(one.right[way], two.right[way]) for way, name in names.items()}
    for name, value in told(np.ones(len(labels))).items():
        low, high = intervals[name]
        p = tests.get(name, np.nan)
        row = {"first": one.name, "second": two.name, "figure": name, "difference": value, "low": low, "high": high}
        rows.append(row | {"p": p, "words": _words(value, low, high, p)})
    return rows


def _auroc(rankings: list[Ranked], weights: Floats) -> float:
    return float(np.mean([ranking.areas(weights)[0] for ranking in rankings]))


def _words(difference: float, low: float, high: float, p: float) -> str:
    """What may be said: only where the interval and the test, if there is one, agree."""
    if np.isnan(difference) or np.isnan(low):
        return "not defined on these images"
    if low <= 0 <= high or p >= LEVEL:
        return "no evidence of a difference"
    return "the second is better" if difference > 0 else "the first is better"
