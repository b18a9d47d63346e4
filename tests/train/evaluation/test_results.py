"""Finished runs as their folders tell of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from train import tables
from train.evaluation import metrics, results
from train.evaluation.phase_metrics import Estimate, to_json

# Exact bounds of twelve and of six patients without a mistake.
ALL_RIGHT, ALL_RIGHT_OF_SIX = "1.000 [0.735, 1.000]", "1.000 [0.541, 1.000]"


def folder(place: Path, name: str, phases: tuple[str, ...] = ("frozen", "fine-tuned"), classes: int = 2) -> Path:
    """A run folder as `fit` writes it, on made-up probabilities."""
    labels = np.arange(12) % classes
    names = tuple(f"class{index}" for index in range(classes))
    probabilities = np.full((12, classes), 0.1)
    probabilities[np.arange(12), labels] = 1 - 0.1 * (classes - 1)
    groups = np.array([f"p{number}" for number in range(12)])
    measured: dict[str, Any] = {}
    for phase in phases:
        split = to_json(metrics.metrics(labels, probabilities, groups, names, 0.3 if classes == 2 else None))
        measured[phase] = {"val": split, "test": split}
        if classes == 2:
            measured[phase]["threshold"] = {"value": 0.3, "interval": [0.1, 0.9], "chosen_by": "hand"}
    run = place / name
    run.mkdir()
    settings = {"set": name, "classes": names, "images": {"train": 8, "val": 12, "test": 12}}
    settings["positive"] = names[1] if classes == 2 else None
    (run / "settings.json").write_text(json.dumps(settings))
    (run / "metrics.json").write_text(json.dumps(measured))
    history = pd.DataFrame({"phase": phases, "epoch": range(1, len(phases) + 1)})
    tables.write(run / "history.csv", history.assign(loss=0.5, accuracy=0.5, val_loss=0.5, val_accuracy=0.5))
    rows = [
        pd.DataFrame({"path": [f"{place}.jpg" for place in range(12)], "source_sha256": "0" * 64, "split": split})
        .assign(label=np.array(names)[labels], group=groups, phase=phase)
        .assign(**{tables.probability(name): probabilities[:, index] for index, name in enumerate(names)})
        for phase in phases
        for split in ("val", "test")
    ]
    tables.write(run / "predictions.csv", pd.concat(rows))
    return run


def of_the_study(run: results.Finished) -> results.Finished:
    """The same run, on what is the study's set."""
    images = run.settings["images"] | {"test": 624}
    return run._replace(settings=run.settings | {"classes": ["NORMAL", "PNEUMONIA"], "images": images})


def test_the_overview_stands_beside_the_studys_numbers(tmp_path: Path) -> None:
    """A run on one of the study's sets shows the study's accuracies; a run without fine-tuning says so."""
    runs = [folder(tmp_path, "augment1"), folder(tmp_path, "own", ("frozen",))]
    table = results.overview([of_the_study(results.read(run)) for run in runs])
    assert table["accuracy frozen"].tolist() == [ALL_RIGHT] * 2
    assert table["accuracy fine-tuned"].tolist() == [ALL_RIGHT, "not fine-tuned"]
    assert table["positive"].tolist() == ["class1", "class1"]
    assert table["the study's accuracy"].tolist() == ["86.38 -> 86.70", "-"]


@pytest.mark.parametrize(
    "other",
    [
        {"set": "own"},
        {"classes": ["cat", "dog"]},
        {"images": {"train": 8, "val": 12, "test": 12}},
        {"backbone": "demo"},
        {"notice": "Synthetic chest phantoms drawn by Evenset (seed 0): not X-rays, no patients.\n"},
        {"class_weight": "balanced"},
    ],
)
def test_a_set_called_like_the_studys_is_not_the_studys(tmp_path: Path, other: dict[str, Any]) -> None:
    """Other classes, other images, the sample or a small network: no number of the study stands beside them."""
    run = of_the_study(results.read(folder(tmp_path, "augment1")))
    assert run.study == (86.38, 86.70)
    assert run._replace(settings=run.settings | other).study is None


def test_the_summary_has_every_figure_with_its_interval(tmp_path: Path) -> None:
    """A row a figure, at 0.5 and at the chosen threshold; a column a phase."""
    table = results.summary(results.read(folder(tmp_path, "own"))).set_index(
        "test of 12 images, 12 groups; positive: class1"
    )
    assert list(table.columns) == ["frozen", "fine-tuned"]
    assert {"AUROC", "AUPRC", "Brier score", "calibration error", "chosen threshold"} <= set(table.index)
    for point in ("at 0.5", "chosen threshold"):
        assert table.loc[f"accuracy, {point}", "frozen"] == ALL_RIGHT
        for figure in ("balanced accuracy", "sensitivity", "specificity", "F1"):
            assert table.loc[f"{figure}, {point}", "frozen"] == ALL_RIGHT_OF_SIX


def test_the_summary_of_three_classes_has_each(tmp_path: Path) -> None:
    """Macro figures first, then those of each class against the rest."""
    table = results.summary(results.read(folder(tmp_path, "own", classes=3))).set_index("test of 12 images, 12 groups")
    assert "accuracy, most probable" in table.index
    assert "class2: AUROC" in table.index


def test_what_is_not_defined_says_why() -> None:
    """No dash and no nan: the reason, in place of the figure or beside it."""
    assert str(Estimate(None, None, None, "test holds no image of B")) == "not defined: test holds no image of B"
    few = "an interval needs at least 2 patients; test holds 1"
    assert str(Estimate(0.75, None, None, few)) == f"0.750 ({few})"


@pytest.mark.parametrize(
    "damage",
    [
        "gone",
        "empty",
        "list",
        "nested",
        "no figures",
        "nested figures",
        "older",
        "without positive",
        "twice",
        "infinite",
    ],
)
def test_a_folder_without_a_finished_run_is_named(tmp_path: Path, damage: str) -> None:
    """Missing, damaged or of an older version: the message names the folder and says what to give or do."""
    run = folder(tmp_path, "own")
    match damage:
        case "gone":
            (run / "predictions.csv").unlink()
        case "empty":
            (run / "metrics.json").write_text("")
        case "list":
            (run / "settings.json").write_text("[]")
        case "nested":
            (run / "metrics.json").write_text("[" * 100_000 + "]" * 100_000)
        case "no figures":
            (run / "metrics.json").write_text(
                json.dumps({"frozen": {"val": {"decisions": {}}, "test": {"decisions": {}}}})
            )
        case "nested figures":
            text = json.dumps({"frozen": {"val": {"decisions": {}}, "test": "here"}})
            (run / "metrics.json").write_text(text.replace('"here"', "[" * 600 + "]" * 600))
        case "without positive":
            settings = json.loads((run / "settings.json").read_text())
            del settings["positive"]
            (run / "settings.json").write_text(json.dumps(settings))
        case "twice":
            settings = json.loads((run / "settings.json").read_text())
            (run / "settings.json").write_text(json.dumps(settings | {"classes": ["a", "a"]}))
        case "older":
            (run / "metrics.json").write_text(json.dumps({"frozen": {"val": {"accuracy": 0.5}}}))
        case "infinite":
            text = (run / "metrics.json").read_text().replace('"images": 12', '"images": Infinity')
            (run / "metrics.json").write_text(text)
    said = "older version" if damage in ("older", "without positive") else ""
    with pytest.raises(results.ResultsError, match=rf"{run}.*{said}.*`python -m train fit`"):
        results.read(run)
