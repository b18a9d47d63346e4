"""The model card of a run: what it was trained on and how, what it is meant for, and what its numbers are worth."""

import re
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from manifests.balance import unevenness
from manifests.contract import SAMPLE_NOTICE
from train.evaluation.phase_metrics import PhaseMetrics
from train.evaluation.results import Finished
from train.settings import DECAY, DEMO, MOMENTUM, PLATEAU_FACTOR, Settings

USE = (
    "Meant for studying how balancing, augmenting and fine-tuning act on a classifier of such images, and for teaching.",
    "Not meant for diagnosis, screening or triage, nor for images of another kind, place or device than the tested ones.",
)
NO_DEVICE = "This is no medical device. Nothing here may be used on patients."
_EVIDENCE = (
    "Grad-CAM is coarse, and shows where the evidence for an answer is, not whether it is a good reason. Evidence "
    "outside the body, at a letter or an edge, is a warning."
)
_OPTIMIZERS = {
    "adam": "Adam",
    "adamw": f"AdamW with a weight decay of {DECAY}",
    "sgd": f"SGD with a momentum of {MOMENTUM}",
}
_SCHEDULES = {
    "cosine": "In each phase the learning rate falls along a cosine, to 0 at the end of its epochs",
    "plateau": f"The learning rate is multiplied by {PLATEAU_FACTOR} whenever the validation loss stops falling",
}
_DEFAULTS = Settings()  # what runs of versions without an option were trained with
_KERMANY = re.compile(r"(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)")


class Card(NamedTuple):
    """`facts` are terms with what there is to say of each, `counts` the header and rows of the table of the data."""

    facts: list[tuple[str, list[str]]]
    counts: list[list[str]]
    limits: list[str]


def of(run: Finished, rows: pd.DataFrame | None, set_card: dict[str, Any]) -> Card:
    """The card of a run.

    Args:
        run: the run.
        rows: of its set's manifest, if that is there.
        set_card: the set's card, or nothing.
    """
    return Card(_facts(run, set_card), _counts(run, rows), limits(run, rows))


def _facts(run: Finished, set_card: dict[str, Any]) -> list[tuple[str, list[str]]]:
    settings = run.settings
    data = [f"The set {settings['set']}", str(settings.get("notice") or ""), _recipe(run, set_card)]
    return [
        (
            "Model",
            [
                f"{settings.get('backbone', '?')} with one new dense layer, for the classes {', '.join(settings['classes'])}"
            ],
        ),
        ("First weights", [_weights(settings)]),
        ("Data", [line for line in data if line]),
        ("Training", _training(run)),
        ("Decision", [_decision(settings["classes"], run.last)]),
        ("Calibration", [_calibration(run)]),
        ("Computed by", [_versions(settings)]),
    ]


def _training(run: Finished) -> list[str]:
    settings = {"epochs": "?", "fine_tune_epochs": "?", "fine_tune_layers": "?", "batch_size": "?"} | run.settings
    rates = settings.get("learning_rate", "?"), settings.get("fine_tune_learning_rate", "?")
    divided = run.last.cross_validation
    members = divided.folds * divided.repeats if divided else 1
    done = run.history["phase"].value_counts() / members
    lines = []
    if divided:
        lines.append(
            f"Cross-validation by {run.group_name}: {divided.repeats} x {divided.folds} folds of train and val; the model "
            f"is the ensemble of the {members} members, by the mean of their logits. Epochs below are the mean of the members'"
        )
    lines.append(
        f"Backbone frozen: {done.get('frozen', 0):.3g} of at most {settings['epochs']} epochs, learning rate {rates[0]}"
    )
    if "fine-tuned" in run.metrics:
        epochs = f"{done.get('fine-tuned', 0):.3g} of at most {settings['fine_tune_epochs']} epochs"
        lines.append(f"Its last {settings['fine_tune_layers']} layers trained too: {epochs}, learning rate {rates[1]}")
    else:
        lines.append("No fine-tuning")
    whom = "class" if settings.get("class_weight") == "balanced" else "image"
    optimizer = _OPTIMIZERS.get(str(settings.get("optimizer", "adam")), "?")
    return [
        *lines,
        f"{optimizer}, batches of {settings['batch_size']}; each {whom} weighs the same in the loss",
        *_options(settings),
    ]


def _options(settings: dict[str, Any]) -> list[str]:
    """The schedule, label smoothing and dropout, if there were any, and when a phase stopped."""
    lines = []
    if settings.get("schedule", "none") != "none":
        lines.append(_SCHEDULES.get(str(settings["schedule"]), "?"))
    if settings.get("label_smoothing"):
        lines.append(f"Labels smoothed by {settings['label_smoothing']}, in the training and the validation loss")
    if settings.get("dropout"):
        lines.append(f"Dropout of {settings['dropout']} before the dense layer, in training only")
    patience = settings.get("patience", _DEFAULTS.patience)
    when = (
        "when the validation loss no longer falls"
        if patience == _DEFAULTS.patience
        else f"when {patience} epochs in a row give no better validation loss"
    )
    return [*lines, f"A phase stops {when}, and keeps the weights of its best epoch"]


def _counts(run: Finished, rows: pd.DataFrame | None) -> list[list[str]]:
    """Images, sources and patients of each split and class; without the manifest, what the run itself records."""
    if rows is None:
        measured = {"val": run.last.val, "test": run.last.test}
        return [["split", "images", f"{run.group_name}s"]] + [
            [split, f"{count:,}", f"{of_split.patients:,}" if (of_split := measured.get(split)) else "not recorded"]
            for split, count in run.settings["images"].items()
        ]
    found = [["split", "class", "images", "augmented", "sources", f"{run.group_name}s"]]
    for split in ("train", "val", "test"):
        for label in run.settings["classes"]:
            part = rows[(rows["split"] == split) & (rows["label"] == label)]
            if len(part):
                of_part = (
                    len(part),
                    int((part["variant"] > 0).sum()),
                    part["source"].nunique(),
                    part["group"].nunique(),
                )
                found.append([split, label, *(f"{count:,}" for count in of_part)])
    return found


def limits(run: Finished, rows: pd.DataFrame | None) -> list[str]:
    """What the numbers of a run are worth, said of its very data."""
    measured, validation = run.last.measured, run.settings["images"]["val"]
    point = 100 / measured.images
    found = [f"One image of {measured.images:,} is {point:.2f} points of accuracy."]
    name = run.group_name
    found.append(
        f"The intervals say what other {name}s of the same kind would change, and not what another seed of training or "
        "another place would."
    )
    if run.folds:
        found.append(
            "Each member's epoch was chosen by the loss on the very images that it then predicted out of fold, which flatters "
            "those figures a little. The intervals of the folds' mean are none: folds share most of their training images."
        )
    elif not run.last.test:
        found.append(
            f"The set has no test images. These numbers are of the validation images, by which {_by_validation(run)}, so "
            "they flatter the model."
        )
    if measured.patients == measured.images:
        found.append(
            f"Each image counts as its own {name}. If that is not so, the intervals are too narrow, and images of one "
            f"{name} may be in several splits: give the recipe a pattern for your files' names."
        )
    if validation < 100 and not run.folds:
        found.append(f"With {validation} validation images, {_by_validation(run)} by little more than chance.")
    augmented = 0 if rows is None else int(((rows["split"] == "val") & (rows["variant"] > 0)).sum())
    if augmented and not run.folds:
        found.append(
            f"{augmented:,} of the {validation:,} validation images are augmented, so {_by_validation(run)} by images that "
            "differ from the test images as the train images do."
        )
    found += [f"{each[0].upper()}{each[1:]}." for each in ([] if rows is None else unevenness(rows))]
    return [*found, _of_the_data(run), _of_the_weights(run), _EVIDENCE]


def _by_validation(run: Finished) -> str:
    """What the validation images decided in a run."""
    done = ["training was stopped"]
    done += ["the threshold was chosen"] if run.last.threshold else []
    done += ["the temperature was fitted"] if run.last.calibration else []
    return " and ".join([", ".join(done[:-1]), done[-1]] if len(done) > 1 else done)


def _of_the_data(run: Finished) -> str:
    groups = run.predictions["group"].astype(str) if "group" in run.predictions else pd.Series(dtype=str)
    if str(run.settings.get("notice") or "").startswith(SAMPLE_NOTICE):
        return "The images are phantoms drawn by a program. What is trained on them shows that the machinery works, no more."
    if len(groups) and groups.str.fullmatch(_KERMANY).mean() > 0.99:
        return (
            "By their names these are Kermany's X-rays: children of one to five years from one hospital in Guangzhou. The "
            "test images differ from the train images in more than chance. A number here is about this data set and not "
            "about pneumonia."
        )
    return (
        "All images come from one folder. Where, by which device and of whom they were made, and by whom they were "
        "labelled, is not known here; a model may go by such traces in place of what the classes mean. A number here is "
        "about this data set and not about the world."
    )


def _of_the_weights(run: Finished) -> str:
    weights = run.settings.get("weights")
    if weights == "random":
        return "The backbone began with random weights and has learnt next to nothing: expect no more than chance."
    if run.settings.get("backbone") == "demo":
        return f"{DEMO} Nothing about a ResNet50V2, or about images of your own, follows from its numbers."
    if weights != "imagenet" and run.study:
        return "The backbone's weights are not those of the original study, so its numbers are no measure of this run."
    return "Other weights to begin with, another seed or other versions of the packages give other numbers."


def _weights(settings: dict[str, Any]) -> str:
    weights = str(settings.get("weights", "?"))
    digest = str(settings.get("weights_digest", ""))[:12]
    return f"{PurePosixPath(weights).name}{f' (SHA-256 {digest}...)' if digest else ''}"


def _recipe(run: Finished, set_card: dict[str, Any]) -> str:
    """How the set was made, as far as its card, which anyone may have edited, says."""
    recipe = set_card.get("recipe")
    if not isinstance(recipe, dict):
        return ""
    size, transforms, target = recipe.get("size"), recipe.get("transforms"), recipe.get("per_class")
    listed = transforms if isinstance(transforms, list) else []
    names = [str(name) for each in listed if isinstance(each, dict) for name in each]
    steps = [f"augmented by {', '.join(names)}" if names else "not augmented"]
    if isinstance(target, int):
        steps.insert(0, f"filled to {target:,} images a class")
    if recipe.get("augmented_share") is not None:
        steps.append("the same share of each class in train")
    if isinstance(size, list) and len(size) == 2:
        steps.append(f"{size[0]} x {size[1]} pixels")
    return f"Split by {run.group_name} first, none in two splits; {', '.join(steps)}"


def _decision(classes: list[str], last: PhaseMetrics) -> str:
    chosen = last.threshold
    if len(classes) > 2:
        return "The most probable class is predicted"
    if not chosen:
        return f"{classes[1]}, the positive class, is predicted from a probability of 0.5 on"
    return (
        f"{classes[1]}, the positive class, is predicted from a probability of {chosen.value:.3f} on, which gave "
        f"{chosen.chosen_by}; so does every threshold above {chosen.interval[0]:.3f} and up to {chosen.interval[1]:.3f}"
    )


def _calibration(run: Finished) -> str:
    scaled = run.last.calibration
    if not scaled:
        return "The probabilities are as the model gives them"
    if scaled.reason and scaled.temperature == 1:
        return f"The probabilities are as the model gives them; {scaled.reason}"
    before = scaled.test_before or scaled.val_before
    unclear = f" ({scaled.reason})" if scaled.reason else ""
    worse = (
        "; with it the Brier score is worse, so don't take the probabilities at their word" * run.last.is_worse_scaled
    )
    return (
        f"The probabilities are scaled by a temperature of {scaled.temperature:.3f}, fitted on {run.chosen_on}{unclear}. Before it, "
        f"on {run.last.split}, the Brier score was {before.brier.value:.3f} and the calibration error {before.ece.value:.3f}{worse}"
    )


def _versions(settings: dict[str, Any]) -> str:
    versions = settings.get("versions")
    parts = [f"{name} {version}" for name, version in versions.items()] if isinstance(versions, dict) else []
    engine = (
        f"frozen layers by {settings['engine']} in {settings.get('precision', '?')}" if settings.get("engine") else ""
    )
    return ", ".join(filter(None, [*parts, engine, f"seed {settings.get('seed', '?')}"]))
