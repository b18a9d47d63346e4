"""Training on kept activations beside plain Keras through the whole network, in one run: `make bench-train`.

Takes a manifest and runs `python -m train fit` on it as a user does, in processes of its own, start-up included: a
first run with nothing kept, a second one with other learning rates, one of the frozen phase alone, and, with nothing
kept, a cross-validation, and both in 8 bits. Plain Keras is timed on some steps of each phase and of validation before
and after each run, since machines that are shared have slow phases, and scaled to the epochs that the run took.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from train import dataset as datasets
from train import tables
from train.features import backbone as model
from train.features import engine, selection
from train.features.forward import NetworkCache
from train.features.tail import Tail, training_form

BATCH, WARM, LAYERS, FOLDS, STEPS = 32, 5, 5, 5, 20
RUNS = {  # name: (options, at least); what begins with "first" has nothing kept
    "first run": ((), 30),
    "second run, other rates": (("--learning-rate", "2e-3", "--fine-tune-learning-rate", "2e-5"), 45),
    "second run, frozen phase only": (("--learning-rate", "2e-3", "--fine-tune-epochs", "0"), 300),
    f"first run, {FOLDS} folds": (("--folds", str(FOLDS)), 40),
}
if find_spec("nncf"):
    RUNS["first run, 8 bits"] = (("--precision", "int8"), 20)
    RUNS[f"first run, {FOLDS} folds, 8 bits"] = (("--folds", str(FOLDS), "--precision", "int8"), 40)


class Whole(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """The plain way: preprocess, whole backbone with batch norm keeping its statistics, pool, head."""

    def __init__(self, backbone: keras.Model) -> None:
        super().__init__()
        self.scale = keras.layers.Rescaling(1 / 127.5, offset=-1.0)
        self.backbone, self.pool, self.head = backbone, keras.layers.GlobalAveragePooling2D(), model.make_head(2, 0)

    def call(self, image: Any) -> Any:
        """Raw images to probabilities."""
        return self.head(self.pool(self.backbone(self.scale(image), training=False)))


def plain_keras(dataset: datasets.Dataset, weights: str, steps: int) -> dict[str, float]:
    """Seconds a step of batches of 32 in Keras's `fit`, for both phases, and in its `evaluate`."""
    backbone = model.load_backbone("resnet50v2", weights, dataset.size, 0)
    whole = Whole(backbone)
    seconds = {}
    for phase, layers in (("frozen", 0), ("fine-tuned", LAYERS)):
        backbone.trainable = True
        for index, layer in enumerate(backbone.layers):
            layer.trainable = index >= len(backbone.layers) - layers
        whole.compile(keras.optimizers.Adam(1e-5), loss="binary_crossentropy", metrics=["accuracy"])
        clock = Clock()
        whole.fit(some(dataset, steps), callbacks=[clock], shuffle=False, verbose=0)
        seconds[phase] = clock.median()
    clock = Clock()
    whole.evaluate(some(dataset, steps), callbacks=[clock], verbose=0)
    seconds["validation"] = clock.median()
    return seconds


class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Notes when each batch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Of `fit`."""
        self.ends.append(time.perf_counter())

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        """Of `evaluate`."""
        self.ends.append(time.perf_counter())

    def median(self) -> float:
        """Seconds a batch, the first ones, which compile and warm up, left out."""
        return float(np.median(np.diff(self.ends[WARM:])))


def some(dataset: datasets.Dataset, steps: int) -> tf.data.Dataset:
    """Batches of images and labels, read and decoded beside the training."""
    rows = dataset.of("train").sample((steps + WARM) * BATCH, random_state=0)
    labels = tf.data.Dataset.from_tensor_slices(dataset.labels(rows)).batch(BATCH)
    return tf.data.Dataset.zip(datasets.images(dataset.paths(rows), dataset.size, BATCH), labels)


def scaled(seconds: dict[str, float], history: pd.DataFrame, dataset: datasets.Dataset) -> float:
    """What plain Keras would take for the epochs of a run."""
    if "fold" in history:  # of each member the mean
        learnt = dataset.rows[dataset.rows["split"] != "test"]
        train, val = len(learnt) * (1 - 1 / FOLDS) / BATCH, (learnt["variant"] == 0).sum() / FOLDS / BATCH
    else:
        train, val = len(dataset.of("train")) / BATCH, len(dataset.of("val")) / BATCH
    return sum(count * (train * seconds[phase] + val * seconds["validation"]) for phase, count in epochs(history))


def epochs(history: pd.DataFrame) -> list[tuple[str, int]]:
    """How many of each phase."""
    return [(str(phase), int(count)) for phase, count in history["phase"].value_counts(sort=False).items()]


def fitted(manifest: Path, weights: str, scratch: Path, options: tuple[str, ...]) -> tuple[float, pd.DataFrame, float]:
    """Seconds, history and peak memory in GB of our own command, as a user runs it."""
    run = scratch / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "train", "fit", str(manifest.resolve()), "--weights", weights, *options]
    command += ["--root", str(manifest.resolve().parents[1]), "--cache", str(scratch / "cache"), "--run", str(run)]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, tables.read(run / "history.csv", tables.HISTORY), usage.ru_maxrss / 1e6


def passes(part: model.Cut, scratch: Path) -> dict[str, float]:
    """Images a second through the frozen part, by engine, as `--engine auto` measures them."""
    seconds = selection.pass_seconds(NetworkCache(part, "", scratch), engine.candidates("auto"), time.perf_counter)
    return {name: BATCH / taken for name, taken in seconds.items()}


def steps(part: model.Cut) -> dict[str, float]:
    """Milliseconds a fine-tuning step on activations in bfloat16: as Keras computes it, and in each form that we train in."""
    rng = np.random.default_rng(0)
    given = [tf.cast(np.abs(rng.normal(size=(BATCH, *x.shape[1:]))), tf.bfloat16) for x in part.tail.inputs]
    labels = tf.constant(rng.integers(0, 2, BATCH))
    part.tail.trainable = True
    forms = {
        "Keras's own": contextlib.nullcontext(),
        "float32": training_form(part, "float32"),
        "bfloat16": training_form(part, "bfloat16"),
    }
    runs = {}
    for name, form in forms.items():
        with form:
            tail = Tail(part, model.make_head(2, 0))
            if name == "Keras's own":
                tail.end = None  # its layers and updates as they are
            tail.compile(keras.optimizers.Adam(0.0), loss="binary_crossentropy", jit_compile=False)
            tail.train_on_batch(given, labels)  # traces it in this form
        runs[name] = lambda tail=tail: [tail.train_on_batch(given, labels) for _ in range(STEPS)]
    return {name: taken / STEPS * 1000 for name, taken in selection.timed(runs).items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path, help="of a set, two folders below its root")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    parser.add_argument("--steps", type=int, default=15, help="that plain Keras is timed on each time, for each phase")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="those to take")
    chosen = parser.parse_args()
    weights = str(Path(chosen.weights).resolve()) if Path(chosen.weights).is_file() else chosen.weights
    dataset = datasets.read(chosen.manifest, chosen.manifest.resolve().parents[1])
    print(f"{len(dataset.rows):,} images; {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    print(
        "| | seconds | plain Keras, scaled | epochs | peak memory | faster | at least |\n| --- | --: | --: | --: | --: | --: | --: |"
    )
    before = plain_keras(dataset, weights, chosen.steps)
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen.runs:
            options, least = RUNS[name]
            if name.startswith("first"):
                shutil.rmtree(Path(scratch) / "cache", ignore_errors=True)
            taken, history, peak = fitted(chosen.manifest, weights, Path(scratch), options)
            after = plain_keras(dataset, weights, chosen.steps)
            plain = np.mean([scaled(seconds, history, dataset) for seconds in (before, after)])
            before = after
            of_phases = " + ".join(str(count) for _, count in epochs(history))
            print(
                f"| {name} | {taken:.0f} | {plain:.0f} | {of_phases} | {peak:.1f} GB | {plain / taken:.0f} x | {least} x |",
                flush=True,
            )
    print("plain Keras, images/s: " + ", ".join(f"{name} {BATCH / taken:.0f}" for name, taken in after.items()))
    part = model.cut(model.load_backbone("resnet50v2", weights, dataset.size, 0), LAYERS)
    print("a fine-tuning step, ms: " + ", ".join(f"{name} {taken:.1f}" for name, taken in steps(part).items()))
    speeds = passes(part, Path())
    taken = selection.fastest({name: 1 / speed for name, speed in speeds.items()})
    print(json.dumps(engine.machine()))
    print("the pass, images/s: " + ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items()))
    print(f"auto takes {taken}: {speeds[taken] / max(speeds.values()):.2f} of the fastest, at least 0.95")


if __name__ == "__main__":
    main()
