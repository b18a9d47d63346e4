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
from filelock import FileLock, Timeout

from manifests.contract import write_atomically
from train.dataset import Dataset
from train.engine import Engine
from train.evaluate import Judged, predictions
from train.fit import CHECKPOINTS, Fitted, Settings
from train.store import versions

_LOCK = ".lock"
_MACHINE = ("engine", "precision", "fine_tune_precision", "versions")  # what the machine adds to the settings


class RunError(ValueError):
    """The run folder can't be used; the message names it and the fix."""


def describe(
    manifest: Path,
    dataset: Dataset,
    settings: Settings,
    weights: str,
    engine: Engine,
    fine_tune_precision: str = "float32",
) -> dict[str, Any]:
    """All that decides a run's outcome, as settings.json has it. `weights` is the digest of the backbone's."""
    return {
        "set": dataset.card.get("name", manifest.stem),
        "notice": dataset.card.get("notice", ""),
        "manifest": manifest.as_posix(),
        "manifest_sha256": dataset.sha256,
        "classes": list(dataset.classes),
        "size": list(dataset.size),
        "images": {split: len(dataset.of(split)) for split in ("train", "val", "test")},
        **asdict(settings),
        "weights_digest": weights,
        "engine": engine.name,
        "precision": engine.precision,
        "fine_tune_precision": fine_tune_precision,
        "versions": {"numpy": version("numpy"), **versions(engine.name)},
    }


def begun(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run in `folder`, finished or killed, if they are these but for the machine's part; else none."""

    def asked(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in _MACHINE}

    for place in (folder.with_name(f".{folder.name}.partial"), folder):
        try:
            kept = json.loads((place / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(kept, dict) and asked(kept) == asked(described):
            return kept
    return {}


def is_finished(folder: Path, told: dict[str, Any]) -> bool:
    """Whether `folder` holds a run of just these settings, finished or, if it is a partial folder, begun."""
    try:
        kept: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return kept == told


@contextmanager
def written(folder: Path, told: dict[str, Any]) -> Iterator[Path]:
    """A partial folder that becomes `folder` at the end; a run that was there is moved to the next free NAME.N.

    What a killed run of the same settings left there is kept, for training to go on from.

    Raises:
        RunError: another process is at it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{folder}: another process is training it; wait for it, or give --run another name") from None
    with lock:
        if not is_finished(partial, told):
            for path in partial.iterdir():
                if path.name != _LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_atomically(partial / "settings.json", _json(told))
        yield partial
        shutil.rmtree(partial / CHECKPOINTS, ignore_errors=True)
        (partial / _LOCK).unlink()
        if folder.exists():
            number = 1
            while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
                number += 1
            os.replace(folder, aside)
        os.replace(partial, folder)


def write(partial: Path, fitted: Fitted, judged: dict[str, Judged], dataset: Dataset) -> None:
    """Write history.csv, metrics.json and predictions.csv."""
    write_atomically(partial / "history.csv", pd.DataFrame(fitted.history).to_csv(index=False))
    write_atomically(partial / "metrics.json", _json({phase: each.metrics for phase, each in judged.items()}))
    write_atomically(partial / "predictions.csv", predictions(dataset, judged).to_csv(index=False))


def _json(told: dict[str, Any]) -> str:
    return json.dumps(told, indent=2) + "\n"
