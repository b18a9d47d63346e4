"""Finished runs, read from their folders, summed up, and set beside the original study's."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import pandas as pd

from common.errors import UserError
from manifests import contract
from train import checksums, tables
from train.evaluation.metrics import DECIDED, OF_CLASS, RANKED
from train.evaluation.phase_metrics import Metrics, PhaseMetrics, from_json
from train.evaluation.thresholds import OUT_OF_FOLD, VALIDATION

# Test accuracy in %, frozen and fine-tuned, of the study whose recipes Evenset ships.
STUDY = {"original": (71.31, 73.56), "augment1": (86.38, 86.70), "augment2": (84.78, 86.54)}
_STUDY_CLASSES, _STUDY_TEST_IMAGES = {"NORMAL", "PNEUMONIA"}, 624
NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "calibration error",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
}
_POINTS = {"chosen": "chosen threshold", "0.5": "at 0.5"}  # operating points in words


class ResultsError(UserError):
    """Runs that can't be reported on; the message names the run and the fix."""


class Finished(NamedTuple):
    """A finished run. `metrics` are by phase; `predictions` is its predictions.csv, a row an image and phase."""

    name: str
    settings: dict[str, Any]
    metrics: dict[str, PhaseMetrics]
    history: pd.DataFrame
    predictions: pd.DataFrame

    @property
    def group_name(self) -> str:
        """What the set's recipe calls a group: patient, say."""
        return contract.group_name(self.settings)

    @property
    def last(self) -> PhaseMetrics:
        """The metrics of the last phase, whose weights the model has."""
        return list(self.metrics.values())[-1]

    @property
    def folds(self) -> int:
        """Into how many folds train and val were divided; 0: it is no cross-validation."""
        found = self.last.cross_validation
        return found.folds if found else 0

    @property
    def val_name(self) -> str:
        """What is said of the images that `val` metrics are of."""
        return "out-of-fold" if self.folds else VALIDATION

    @property
    def chosen_on(self) -> str:
        """What threshold and temperature were chosen on."""
        return OUT_OF_FOLD if self.folds else VALIDATION

    @property
    def study(self) -> tuple[float, float] | None:
        """The study's accuracies, if the run is on one of its sets and trained as the study did.

        A name is not enough, since any set may be called after a recipe: the classes and the number of test images must be
        the study's.
        """
        given = self.settings
        found = STUDY.get(given["set"])
        is_its = set(given["classes"]) == _STUDY_CLASSES and given["images"].get("test") == _STUDY_TEST_IMAGES
        made_up = given.get("backbone") == "demo" or str(given.get("notice") or "").startswith(contract.SAMPLE_NOTICE)
        return found if is_its and not made_up and given.get("class_weight", "none") == "none" else None


def are_classes(classes: object) -> TypeGuard[list[str]]:
    """Whether something read from settings.json can be a run's classes: a list of two or more different names."""
    return (
        isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and len(set(classes)) == len(classes) >= 2
    )


def distinct(runs: Iterable[Path]) -> list[Path]:
    """The folders in their order, one that is named twice, in whatever way, once."""
    return list({run.resolve(): run for run in runs}.values())


def read(run: Path) -> Finished:
    """Read a run folder.

    Raises:
        ResultsError: it holds no finished run of this version.
    """
    try:
        settings, metrics = (
            json.loads((run / name).read_text(encoding="utf-8")) for name in ("settings.json", "metrics.json")
        )
        for needed in ("set", "images"):
            settings[needed]
        if not are_classes(settings["classes"]):
            raise ResultsError(
                f"{run}: got the classes {settings['classes']!r:.80}, expected different names; run `python -m train fit` again"
            )
        if "positive" not in settings or any("decisions" not in phase["val"] for phase in metrics.values()):
            raise ResultsError(f"{run} was made by an older version; run `python -m train fit` again")
        history = tables.read(run / "history.csv", tables.HISTORY)
        predictions = tables.read(run / "predictions.csv", tables.predictions(settings["classes"]))
        if altered := checksums.altered(run, "metrics.json", "history.csv", "predictions.csv"):
            raise ResultsError(f"{run / altered[0]} is damaged: it is not as `fit` wrote it; train the run again")
        found = Finished(run.as_posix(), settings, from_json(metrics), history, predictions)
        summary(found), overview([found])  # so that a figure that is missing is known before anything is computed
    except ResultsError:
        raise
    except tables.TableError as error:
        raise ResultsError(f"{error}; train the run again") from None
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        StopIteration,
        RecursionError,
    ) as error:
        raise ResultsError(
            f"{run} holds no finished run ({error}); give folders that `python -m train fit` wrote"
        ) from None
    return found


def summary(run: Finished) -> pd.DataFrame:
    """The figures of each phase on test, or on val if there is no test, a row a figure, with intervals."""
    return _table(run, run.last.split)


def summaries(run: Finished) -> list[pd.DataFrame]:
    """The tables of a run: its summary; of a cross-validation out of fold, by fold, and of the ensemble on test."""
    if not run.folds:
        return [summary(run)]
    return [_table(run, "val"), _by_fold(run)] + ([summary(run)] if run.last.test else [])


def _by_fold(run: Finished) -> pd.DataFrame:
    """The mean of each figure over the folds, and how much it varies."""
    found = {phase: each.cross_validation for phase, each in run.metrics.items() if each.cross_validation}
    columns = {phase: {name: str(figure) for name, figure in each.figures.items()} for phase, each in found.items()}
    first = next(iter(found.values()))
    head = f"mean of {first.folds * first.repeats} folds, standard deviation"
    names = [
        NAMES[name] + (f", {_POINTS.get(point, point)}" if point else "")
        for name, _, point in (figure.partition(" ") for figure in first.figures)
    ]
    return pd.DataFrame({head: names} | {phase: list(of_phase.values()) for phase, of_phase in columns.items()})


def _table(run: Finished, split: str) -> pd.DataFrame:
    parts = []
    for phase, of_phase in run.metrics.items():
        value = of_phase.threshold.value if of_phase.threshold else None
        measured = of_phase.val if split == "val" or not of_phase.test else of_phase.test
        column = figures(measured, value, phase, run.val_name if split == "val" else split, run.group_name)
        if scaled := of_phase.calibration:
            worse = "worse calibrated on test with it" if of_phase.is_worse_scaled else ""
            noted = scaled.reason or worse
            column.loc[len(column)] = ["temperature", f"{scaled.temperature:.3f}{f' ({noted})' if noted else ''}"]
        parts.append(column.set_index(column.columns[0]))
    return pd.concat(parts, axis=1).reset_index()


def figures(
    measured: Metrics, threshold: float | None, name: str, split: str = "test", group_name: str = "group"
) -> pd.DataFrame:
    """Metrics as a table: a row a figure, the numbers in the column `name`."""
    column = {NAMES[figure]: str(getattr(measured, figure)) for figure in RANKED}
    for point, decided in measured.decisions.items():
        at = _POINTS.get(point, point)
        column |= {f"{NAMES[figure]}, {at}": str(getattr(decided, figure)) for figure in DECIDED}
    if threshold is not None:
        column["chosen threshold"] = f"{threshold:.3f}"
    for label, of_class in measured.per_class.items():
        column |= {f"{label}: {NAMES[figure]}": str(getattr(of_class, figure)) for figure in OF_CLASS}
    head = f"{split} of {measured.images:,} images, {measured.patients:,} {group_name}s"
    if measured.positive is not None:
        head += f"; positive: {measured.positive}"
    return pd.DataFrame({head: list(column), name: list(column.values())})


def overview(runs: list[Finished]) -> pd.DataFrame:
    """Test accuracy and AUROC of each run with intervals, in both phases, beside the study's accuracy in %."""
    rows = []
    for run in runs:
        row: dict[str, Any] = {"run": run.name} | run.settings["images"]
        row["positive"] = run.settings.get("positive") or "one of several"
        for phase in ("frozen", "fine-tuned"):
            of_phase = run.metrics.get(phase)
            measured = of_phase.test if of_phase else None
            missing = "no test images" if of_phase else f"not {phase}"
            row[f"accuracy {phase}"] = str(measured.accuracy) if measured else missing
            row[f"AUROC {phase}"] = str(measured.auroc) if measured else missing
        row["the study's accuracy"] = f"{run.study[0]:.2f} -> {run.study[1]:.2f}" if run.study else "-"
        rows.append(row)
    return pd.DataFrame(rows)


def augmentation(run: Finished) -> tuple[list[str], pd.DataFrame]:
    """Whether augmented images differ from originals of their class to a run's model: in sentences, and a row a class.

    Both are empty where the set has no class with both kinds.
    """
    measured = run.last.augmentation
    if measured is None:
        return [], pd.DataFrame()
    rows, differing = [], []
    for label, of_class in measured.classes.items():
        score = of_class.score
        if score.low is not None and score.low > 0.5:
            differing.append(f"a higher one for {label}")
        if score.high is not None and score.high < 0.5:
            differing.append(f"a lower one for {label}")
        row = {
            f"{measured.split} images of": label,
            "originals + augmented": f"{of_class.originals:,} + {of_class.augmented:,}",
            "AUROC for augmented or not: network": str(of_class.probe),
            "the model's probability": str(score),
        }
        for heading, means in (("mean probability", of_class.probability), ("predicted right", of_class.right)):
            shown = f"{means.original:.3f}, {means.augmented:.3f}" if means else "-"
            row[f"{heading}: originals, augmented"] = shown
        rows.append(row)
    of_what = f"of {run.settings['positive']}" if run.settings["positive"] is not None else "of its own class"
    said = [
        (
            "Images are compared within their class, so 0.5 means that augmented images and originals look alike. The first "
            "AUROC says whether a network can see which images were augmented (logistic regression on the frozen backbone's "
            f"output, on {run.group_name}s that it wasn't fitted to). The second says whether this model lets it count: above 0.5, "
            f"augmented images get a higher probability {of_what}, below 0.5 a lower one."
        )
    ]
    if differing:
        said.append(
            f"This model's probability {of_what} depends on augmentation: augmented images get {' and '.join(differing)}. "
            "Test images are originals, so it may misjudge them by that much. Where each class holds the same share of augmented "
            "images (`augmented_share: even` in the recipe), that doesn't favour a class; else it does."
        )
    elif any(of_class.score.value is not None for of_class in measured.classes.values()):
        said.append(f"There is no sign that this model's probability {of_what} depends on augmentation.")
    if measured.split == "train":
        said.append(
            "The validation images are not augmented, so training images were compared, which the model has learnt."
        )
    if measured.split != "val" and measured.precision != "float32":
        said.append(
            f"These figures come from the activations of training, in {measured.precision}; all others are "
            "the saved model's, in float32."
        )
    return said, pd.DataFrame(rows)
