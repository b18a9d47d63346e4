"""Two runs, or two phases of one, on the same test images: is there a difference that chance doesn't explain?"""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from train.evaluation.intervals import TAIL, bootstrap, interval, resamples
from train.evaluation.metrics import Floats, Labels, ranked
from train.evaluation.results import Finished, ResultsError
from train.evaluation.significance import auroc_influence, clustered, holm, mcnemar, permutation

LEVEL = 0.05  # of all tests together, and what each interval leaves out
FIRST_IS_BETTER, SECOND_IS_BETTER = "the first is better", "the second is better"
NO_EVIDENCE = "no evidence of a difference"
COLUMNS = ("first", "second", "figure", "difference", "low", "high", "p", "p_holm", "p_mcnemar", "words")


class Judgement(NamedTuple):
    """The predictions of one phase of one run for the images that are compared, all in one order."""

    name: str
    images: pd.DataFrame  # source_sha256, label, group
    classes: tuple[str, ...]
    probabilities: Floats  # (images, classes)
    right: dict[str, NDArray[np.bool_]]  # by operating point
    group_name: str = "group"
    split: str = "test"  # what a reason calls the images


def tests_in_words(group_name: str) -> str:
    """What the p of a table are, for people."""
    return (
        f"p: accuracies by exact permutation of the {group_name}s, AUROCs by Obuchowski's test; p (Holm): corrected for all "
        "comparisons, and what the words go by. McNemar's test takes the images for independent."
    )


def differences(
    runs: list[Finished],
    progress: Callable[[int, int], None],
    *,
    out_of_fold: bool = False,
    against_first: bool = False,
) -> pd.DataFrame:
    """Differences on test, second less first: between all pairs of runs in each phase, and between a run's phases.

    With `out_of_fold` they are of the predictions out of fold of cross-validated runs, on the images that all of them were
    scored on: sets of one source may show different ones as they are. Test stays unopened. With `against_first` each run's last phase is compared with
    that of the first run and nothing else, and of each figure the intervals of all runs hold together (Bonferroni).

    Columns: first, second, figure, difference, low, high (its 95 % interval, paired, over patients), p (for accuracies
    by exact permutation of the patients, for AUROCs by Obuchowski's test for clustered data), p_holm (corrected for
    all comparisons), p_mcnemar (McNemar's exact test, which takes the images for independent), reason (why something is
    not defined), note (where the two runs group the images differently) and words (what may be said). `progress` is called with (pairs done, pairs).

    Raises:
        ResultsError: runs on other test images than the first one's; out of fold, a run that isn't cross-validated, or none
            in common.
    """
    order = tuple(runs[0].settings["classes"])
    shared = _scored_by_all(runs) if out_of_fold else None
    judged = [list(_judgements(run, order, shared).items()) for run in runs]
    for phases in judged:
        _expect_same_images(judged[0][0][1], phases[0][1])
    if against_first:
        pairs = [(judged[0][-1][1], phases[-1][1]) for phases in judged[1:]]
    else:
        pairs = [(one, two) for phases in judged for (_, one), (_, two) in combinations(phases, 2)]
        for first, second in combinations(judged, 2):
            of_second = dict(second)
            pairs += [(one, of_second[phase]) for phase, one in first if phase in of_second]
    tail = TAIL / max(1, len(pairs)) if against_first else TAIL
    rows: list[dict[str, Any]] = []
    for done, pair in enumerate(pairs, 1):
        rows += compared(*pair, tail)
        progress(done, len(pairs))
    found = pd.DataFrame(rows, columns=[*COLUMNS, "reason", "note"])
    found["p_holm"] = holm(found["p"].to_numpy(float))
    found["words"] = [_words(row) for row in found.itertuples(index=False)]
    return found


def as_text(found: pd.DataFrame) -> pd.DataFrame:
    """The same for people: numbers as text, the interval in brackets."""
    table = found[["first", "second", "figure"]].copy()
    table["difference"] = [difference_text(row) for row in found.itertuples(index=False)]
    for column, name in (("p", "p"), ("p_holm", "p (Holm)"), ("p_mcnemar", "McNemar p")):
        table[name] = ["" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in found[column]]
    table["what may be said"] = found["words"]
    return table


def notes(found: pd.DataFrame) -> list[str]:
    """What is to be said of all comparisons together."""
    return [note for note in found["note"].unique() if note]


def difference_text(row: Any) -> str:
    """A difference and its interval, `+0.030 [+0.020, +0.040]`, or that there is none."""
    if np.isnan(row.difference):
        return "not defined"
    return f"{row.difference:+.3f}" + ("" if np.isnan(row.low) else f" [{row.low:+.3f}, {row.high:+.3f}]")


def _scored_by_all(runs: list[Finished]) -> set[str]:
    """The checksums of the sources that all runs have predictions out of fold of."""
    sources = []
    for run in runs:
        if not run.folds:
            raise ResultsError(f"{run.name} is not cross-validated; train it with --folds 5, say, or compare on test")
        sources.append(set(run.predictions.loc[run.predictions["split"] == "val", "source_sha256"]))
    shared = set.intersection(*sources)
    if not shared:
        raise ResultsError(
            f"{runs[0].name} and the others have no image in common out of fold; compare runs on sets of one source"
        )
    return shared


def _judgements(run: Finished, order: tuple[str, ...], shared: set[str] | None) -> dict[str, Judgement]:
    """The phases' predictions, by phase; the classes in the given order, if they are the same ones.

    They are of test; or, of the predictions out of fold, of the `shared` sources.
    """
    split = "test" if shared is None else "val"
    chosen = run.predictions[run.predictions["split"] == split]
    if shared is not None:
        chosen = chosen[chosen["source_sha256"].isin(shared)].drop_duplicates(["phase", "source_sha256", "label"])
    found = {}
    for phase in run.metrics:
        rows = chosen[chosen["phase"] == phase].sort_values(["source_sha256", "label"], ignore_index=True)
        if rows.empty:
            raise ResultsError(f"{run.name}: its set has no test images, so there is nothing to compare on")
        own = tuple(run.settings["classes"])
        classes = order if sorted(order) == sorted(own) else own  # another run may take another one for positive
        points = [name for name in rows.columns if name.startswith("predicted (")]
        found[phase] = Judgement(
            f"{run.name} {phase}",
            rows[["source_sha256", "label", "group"]],
            classes,
            rows[[f"p({label})" for label in classes]].to_numpy(float),
            {point[11:-1]: (rows[point] == rows["label"]).to_numpy() for point in points},
            run.group_name,
            "test" if shared is None else "out-of-fold",
        )
    return found


def _expect_same_images(first: Judgement, other: Judgement) -> None:
    if first.classes != other.classes:
        raise ResultsError(
            f"{first.name} is of the classes {', '.join(first.classes)}, {other.name} of {', '.join(other.classes)}; "
            "compare runs of the same classes"
        )
    columns = ["source_sha256", "label"]
    what = "test images" if first.split == "test" else "images or labels out of fold"
    if not first.images[columns].equals(other.images[columns]):
        of_first, of_other = (set(map(tuple, each.images[columns].to_numpy())) for each in (first, other))
        raise ResultsError(
            f"{first.name} and {other.name} are on different {what} ({len(of_first - of_other)} only in the "
            f"first, {len(of_other - of_first)} only in the second); train both on sets of one source folder"
        )


def compared(one: Judgement, two: Judgement, tail: float = TAIL) -> list[dict[str, Any]]:
    """A row a figure, as `differences` has them, without the correction: AUROC, and accuracy at each operating point.

    `tail` is what each end of an interval leaves out.
    """
    labels = one.images["label"].map({name: index for index, name in enumerate(one.classes)}).to_numpy()
    patients, note = _patients(one, two)
    names = {point: _accuracy(point) for point in one.right}
    gained = {point: two.right[point].astype(int) - one.right[point] for point in names}
    rankings = [ranked(labels, each.probabilities) for each in (one, two)]

    def figures(weights: Floats) -> dict[str, Floats]:
        first, second = (np.mean([each.areas(weights)[0] for each in of_run], axis=0) for of_run in rankings)
        total = weights.sum(axis=-1)
        return {"AUROC": second - first} | {names[point]: weights @ each / total for point, each in gained.items()}

    drawn = bootstrap(figures, patients, resamples(tail))
    fewest, lacking = _fewest(labels, patients, one.classes)
    support = dict.fromkeys(drawn, int(patients.max()) + 1) | {"AUROC": fewest}
    tests = {names[point]: (permutation(each, patients), mcnemar(each)) for point, each in gained.items()}
    rows = []
    for name, values in figures(np.ones((1, len(labels)))).items():
        value = float(values[0])
        low, high = interval(value, drawn[name], support[name], (-1.0, 1.0), tail)
        p, images = tests.get(name) or (_p_of_auroc(value, labels, patients, one, two, fewest), np.nan)
        row = {"first": one.name, "second": two.name, "figure": name, "difference": value, "low": low, "high": high}
        few = f"{one.split} holds {support[name]} {one.group_name}" + (f" with an {lacking}" if name == "AUROC" else "")
        reason = f"{one.split} holds no {lacking}" if np.isnan(value) else f"needs at least 2 {one.group_name}s, {few}"
        if support[name] >= 2:
            reason = f"too few resamplings of the {one.group_name}s hold every class"
        rows.append(row | {"p": p, "p_mcnemar": images, "reason": reason if np.isnan(low) else "", "note": note})
    return rows


def _patients(one: Judgement, two: Judgement) -> tuple[NDArray[np.intp], str]:
    """Of each image the number of its patient; where the runs group images differently, of both groupings, and a note.

    Whoever is one for either run is one then, so that it doesn't matter which run is the first.
    """
    numbered = [np.unique(each.images["group"].astype(str), return_inverse=True) for each in (one, two)]
    (names, first), (others, second) = numbered
    if np.array_equal(names[first], others[second]):
        return first, ""
    count = len(first)
    links = np.r_[first, second + len(names)] + count  # from each image to its group of either run
    size = count + len(names) + len(others)
    graph = coo_array((np.ones(2 * count), (np.tile(np.arange(count), 2), links)), (size, size))
    joined = connected_components(graph, directed=False)[1][:count]
    same = len(set(zip(first, second, strict=True))) == len(names) == len(others)
    note = (
        f"Where runs group the same images differently, {one.group_name}s of either that share an image count as one."
    )
    return np.unique(joined, return_inverse=True)[1], "" if same else note


def _accuracy(point: str) -> str:
    """The accuracy at an operating point, as the tables call it."""
    return {"most probable": "accuracy, most probable", "chosen": "accuracy at the chosen thresholds"}.get(
        point, f"accuracy at {point}"
    )


def _fewest(labels: Labels, patients: NDArray[np.intp], classes: tuple[str, ...]) -> tuple[int, str]:
    """How many patients have images of the kind that fewest have, and what that kind is."""
    kinds = [(labels == index, f"image of {name}") for index, name in enumerate(classes)]
    if len(classes) > 2:
        kinds += [(labels != index, f"image of a class other than {name}") for index, name in enumerate(classes)]
    count, place = min((len(np.unique(patients[chosen])), place) for place, (chosen, _) in enumerate(kinds))
    return count, kinds[place][1]


def _p_of_auroc(
    value: float, labels: Labels, patients: NDArray[np.intp], one: Judgement, two: Judgement, fewest: int
) -> float:
    if np.isnan(value):
        return np.nan
    indices = [1] if len(one.classes) == 2 else range(len(one.classes))
    influences = [
        auroc_influence(labels == index, two.probabilities[:, index])
        - auroc_influence(labels == index, one.probabilities[:, index])
        for index in indices
    ]
    return clustered(value, np.mean(influences, axis=0), patients, fewest)


def _words(row: Any) -> str:
    """What may be said: that one is better only where the interval and the corrected test agree."""
    if row.reason:
        return f"not defined: {row.reason}" if np.isnan(row.difference) else f"no interval: {row.reason}"
    if row.low <= 0 <= row.high or not row.p_holm < LEVEL:
        return NO_EVIDENCE
    return SECOND_IS_BETTER if row.difference > 0 else FIRST_IS_BETTER
