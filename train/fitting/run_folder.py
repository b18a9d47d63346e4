"""The run folder: what decides a run, and its results, under its name only when all is there."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from common.errors import UserError
from common.files import write_atomically
from train import checksums, tables
from train.dataset import Dataset
from train.evaluation.evaluate import Judged, predictions
from train.evaluation.phase_metrics import to_json
from train.features.engine import Engine
from train.features.store import versions
from train.fitting.fit import CHECKPOINTS
from train.settings import Settings

_WORDS = ("group_name",)  # decide nothing
_MACHINE = ("engine", "precision", "fine_tune_precision", "versions")  # what the machine adds to the settings


class RunError(UserError):
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
    recipe = dataset.card.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    return {
        "set": dataset.card.get("name", manifest.stem),
        "notice": dataset.card.get("notice", ""),
        "source": dataset.card.get("source", ""),
        "group_name": dataset.group_name,
        "manifest": manifest.as_posix(),
        "manifest_sha256": dataset.sha256,
        "classes": list(dataset.classes),
        "positive": dataset.positive,
        "size": list(dataset.size),
        "value_range": recipe.get("value_range"),
        "fit": recipe.get("fit", "stretch"),
        "images": {split: len(dataset.of(split)) for split in ("train", "val", "test")},
        **asdict(settings),
        "weights_digest": weights,
        "engine": engine.name,
        "precision": engine.precision,  # of training; what is measured is the saved model's
        "measured_in": "float32",
        "fine_tune_precision": fine_tune_precision,
        "versions": {"numpy": version("numpy"), **versions(engine.packages)},
    }


def begun(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run in `folder`, finished or killed, if they are these but for the machine's part; else none."""
    for place in (folder.with_name(f".{folder.name}.partial"), folder):
        try:
            kept = json.loads((place / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if _decided(kept, (*_MACHINE, *_WORDS)) == _decided(described, (*_MACHINE, *_WORDS)):
            return kept
    return {}


def is_finished(folder: Path, description: dict[str, Any]) -> bool:
    """Whether `folder` holds a finished run of just these settings, with every file as it was written."""
    return _is_of(folder, description) and not checksums.altered(folder)


def _is_of(folder: Path, description: dict[str, Any]) -> bool:
    """Whether `folder` holds a run of just these settings, finished or begun."""
    try:
        kept = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return _decided(kept, _WORDS) == _decided(description, _WORDS)


def _decided(settings: object, without: tuple[str, ...]) -> dict[str, Any]:
    """What decides a run; an option that its version didn't have is what it is by default."""
    known = {**asdict(Settings()), **settings} if isinstance(settings, dict) else {}
    return {name: value for name, value in known.items() if name not in without}


@contextmanager
def written(
    folder: Path, description: dict[str, Any], notify: Callable[[str], None] = lambda _: None
) -> Iterator[Path | None]:
    """A partial folder that becomes `folder` at the end; None if the run is finished already.

    A run that was there is moved to the next free NAME.N. What a killed run of the same settings left is kept, for
    training to go on from; what one of other settings left goes to NAME.unfinished.N, and is taken up from there when
    its settings come again.

    Args:
        folder: where the run is to be.
        description: all that decides its outcome.
        notify: called with a line that says what was moved where.

    Raises:
        RunError: another process is at it, or the folder can't be one of a run.
    """
    if folder.name in ("", ".."):
        raise RunError(f"--run {folder}: is no name for a folder; give one, runs/{description['set']} say")
    with _locked(folder):
        if is_finished(folder, description):  # by the process that held the lock before
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # of one that was killed behind its last step
            yield None
            return
        partial = folder.with_name(f".{folder.name}.partial")
        _reopen(folder, partial, description, notify)
        yield partial
        checksums.write(partial)
        if os.path.lexists(folder):
            aside = _free(folder, "")
            os.replace(folder, aside)
            notify(f"What was at {folder} is now at {aside}.")
        os.replace(partial, folder)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # last: until the run has its name they are needed


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which lies beside it and stays.

    Inside, it would have to go before the folder gets its name, and whoever waits for it would hold a lock on nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{folder}: another process is training it; wait for it, or give --run another name") from None
    except NotImplementedError as error:  # a file system without locks
        raise RunError(f"{folder} can't be locked: {error}; give --run on another disk") from None
    try:
        yield
    finally:
        lock.release()


def _reopen(folder: Path, partial: Path, description: dict[str, Any], notify: Callable[[str], None]) -> None:
    """Make the partial folder ready: what was begun with these settings, or a new one."""
    if _is_of(partial, description):
        return
    if any(partial.glob(f"{CHECKPOINTS}/*")):
        aside = _free(folder, ".unfinished")
        os.replace(partial, aside)
        notify(f"A killed run of other settings was there; what it had done is kept at {aside}.")
    shutil.rmtree(partial, ignore_errors=True)
    pattern = re.compile(re.escape(f"{folder.name}.unfinished.") + r"\d+")
    for aside in sorted(folder.parent.iterdir()):
        if pattern.fullmatch(aside.name) and _is_of(aside, description):
            os.replace(aside, partial)
            notify(f"Going on from {aside}.")
            return
    partial.mkdir()
    write_atomically(partial / "settings.json", _json(description))


def _free(folder: Path, kind: str) -> Path:
    """The first path of NAME{kind}.1, .2, ... where nothing is."""
    return next(
        path for number in count(1) if not os.path.lexists(path := folder.with_name(f"{folder.name}{kind}.{number}"))
    )


def write(partial: Path, history: list[dict[str, Any]], judged: dict[str, Judged], dataset: Dataset) -> None:
    """Write history.csv, metrics.json and predictions.csv."""
    columns = [*(name for name in tables.FOLDS if history and name in history[0]), *tables.HISTORY]
    tables.write(partial / "history.csv", pd.DataFrame(history, columns=columns))
    write_atomically(partial / "metrics.json", _json(to_json({phase: each.metrics for phase, each in judged.items()})))
    tables.write(partial / "predictions.csv", predictions(dataset, judged))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
