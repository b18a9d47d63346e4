"""The run folder: what a run is decided by, and what came of it, under its name only when all is there."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from manifests.contract import write_atomically
from train.dataset import Dataset
from train.evaluate import of_phases, predictions
from train.fit import Fitted, Settings

PACKAGES = ("tensorflow", "keras", "numpy")


def describe(manifest: Path, dataset: Dataset, settings: Settings, weights: str) -> dict[str, Any]:
    """All that decides a run's outcome, as settings.json has it. `weights` is the digest of the backbone's."""
    return {
        "set": dataset.card.get("name", manifest.stem),
        "notice": dataset.card.get("notice", ""),
        "manifest": manifest.as_posix(),
        "manifest_sha256": dataset.sha256,
        "classes": list(dataset.classes),
        "images": {split: len(dataset.of(split)) for split in ("train", "val", "test")},
        **asdict(settings),
        "weights_digest": weights,
        "versions": {package: version(package) for package in PACKAGES},
    }


def is_finished(folder: Path, told: dict[str, Any]) -> bool:
    """Whether `folder` holds a finished run of just these settings."""
    try:
        kept: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return kept == told


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A partial folder that becomes `folder` at the end; a run that was there is moved to the next free NAME.N."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    yield partial
    if folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        os.replace(folder, aside)
    os.replace(partial, folder)


def write(partial: Path, told: dict[str, Any], fitted: Fitted, dataset: Dataset) -> None:
    """Write settings.json, history.csv, metrics.json and predictions.csv."""
    history = pd.DataFrame(fitted.history)
    write_atomically(partial / "settings.json", json.dumps(told, indent=2) + "\n")
    write_atomically(partial / "history.csv", history.to_csv(index=False))
    write_atomically(partial / "metrics.json", json.dumps(of_phases(dataset, fitted.probabilities), indent=2) + "\n")
    write_atomically(partial / "predictions.csv", predictions(dataset, fitted.probabilities).to_csv(index=False))
