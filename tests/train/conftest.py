"""Small sets to train on, written as the contract has them, and runs on them whose probabilities are drawn."""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from manifests import contract
from train.features import backbone as model


@pytest.fixture
def image_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a set of noisy images whose brightness tells the class; gives its manifest, two folders below the root."""
    return functools.partial(_set, tmp_path)


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a set in `root` and a run on it, as `fit` writes it but for the model and the pictures; gives the run."""
    made: dict[str, Path] = {}

    def make(root: Path, name: str = "tiny", **options: Any) -> Path:
        key = repr((name, sorted(options.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run")
            _run(made[key], name, **options)
        shutil.copytree(made[key], root, dirs_exist_ok=True)
        return root / "runs" / name

    return make


@pytest.fixture(scope="session")
def weights() -> Path:
    """Weights of a backbone that has seen images, with which predictions mean something."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "weights"
    file = Path(os.environ.get("EVENSET_WEIGHTS", shared / "resnet50v2_tinyimagenet.weights.h5"))
    if not file.is_file():
        pytest.skip(f"no backbone weights at {file}; set EVENSET_WEIGHTS to a ResNet50V2 weights file")
    return file


@pytest.fixture
def xrays_set(tmp_path: Path, xrays_224: Path) -> Callable[..., Path]:
    """Make a set of real X-rays as they are, with so many images a class in each split; gives its manifest."""
    return functools.partial(_xrays_set, tmp_path, xrays_224)


def _xrays_set(root: Path, xrays: Path, **counts: int) -> Path:
    rows = []
    for split, count in counts.items():
        for label in ("NORMAL", "PNEUMONIA"):
            files = sorted((xrays / ("test" if split == "test" else "train") / label).iterdir())
            for file in files[:count] if split != "val" else files[-count:]:
                path = Path("data") / "real" / split / label / file.name
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, root / path)
                sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
                source = file.relative_to(xrays).as_posix()
                rows.append((path.as_posix(), label, split, source, source, 0, 0, "", 224, 224, sha256, sha256))
    card = {"name": "real", "notice": "", "source": "source", "images": "data/real", "rejected": []}
    contract.write(root / "manifests" / "real.csv", pd.DataFrame(rows, columns=contract.COLUMNS), card)
    return root / "manifests" / "real.csv"


def _set(
    root: Path,
    classes: int | tuple[str, ...] = 2,
    train: int = 8,
    val: int = 4,
    test: int = 4,
    size: int = 64,
    name: str = "tiny",
    groups: tuple[str, ...] = (),
) -> Path:
    rows = []
    labels = [f"class{index}" for index in range(classes)] if isinstance(classes, int) else classes
    for split, count in (("train", train), ("val", val), ("test", test)):
        for index, label in enumerate(labels):
            rows += [_image(root, name, split, index, label, number, size) for number in range(count)]
    if groups:  # of the test images, in their order
        tested = [number for number, row in enumerate(rows) if row[2] == "test"]
        for number, group in zip(tested, groups, strict=True):
            rows[number] = (*rows[number][:4], group, *rows[number][5:])
    manifest = root / "manifests" / f"{name}.csv"
    card = {"name": name, "notice": "", "source": "source", "images": f"data/{name}", "rejected": []}
    contract.write(manifest, pd.DataFrame(rows, columns=contract.COLUMNS), card)
    return manifest


def _run(
    root: Path, name: str, phases: tuple[str, ...] = ("frozen", "fine-tuned"), seed: int = 0, **of_set: Any
) -> None:
    from train import dataset as datasets
    from train.evaluation import evaluate
    from train.features.engine import Engine
    from train.fitting import run_folder as runs
    from train.settings import Settings

    manifest = _set(root, name=name, **of_set)
    dataset = datasets.read(manifest, root)
    settings = Settings(weights="random", epochs=2, fine_tune_epochs=2, seed=seed)
    description = runs.describe(
        Path("manifests") / manifest.name, dataset, settings, "0" * 64, Engine("tensorflow", "float32")
    )
    rng = np.random.default_rng(seed)
    labels = np.eye(len(dataset.classes))[dataset.labels(dataset.rows[dataset.is_held_out])]
    found, history = {}, []
    for phase in phases:
        odds = np.exp(1.5 * labels + rng.normal(size=labels.shape))
        found[phase] = odds / odds.sum(axis=1, keepdims=True)
        for _ in range(2):
            row = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), float(rng.random()))
            history.append({"phase": phase, "epoch": len(history) + 1} | row)
    judged = {phase: evaluate.judge(dataset, of, calibrate=False, sensitivity=None) for phase, of in found.items()}
    with runs.written(root / "runs" / name, description) as partial:
        runs.write(partial, history, judged, dataset)


def _image(root: Path, name: str, split: str, index: int, label: str, number: int, size: int) -> tuple[object, ...]:
    key = f"{split}/{label}/{number}"
    drawn = np.random.default_rng(int(hashlib.sha256(key.encode()).hexdigest()[:8], 16))
    pixels = np.clip(drawn.normal(80 + 40 * (index % 4), 30, (size, size)), 0, 255).astype(np.uint8)
    path = root / "data" / name / f"{key}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    relative = path.relative_to(root).as_posix()
    return (relative, label, split, f"{key}.png", key, 0, number, "", size, size, sha256, sha256)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a run folder as `fit` leaves it, with an untrained model of the real kind and its own numbers."""

    def make(
        classes: tuple[str, ...] = ("NORMAL", "PNEUMONIA"),
        size: tuple[int, int] = (64, 64),
        threshold: object = None,
        head: Callable[[keras.layers.Dense], None] = lambda _: None,
    ) -> Path:
        backbone = model.load_backbone("resnet50v2", "random", size, seed=0)
        dense = model.make_head(len(classes), seed=1)
        whole = model.inference_model(backbone, dense)
        head(dense)
        run = tmp_path_factory.mktemp("runs") / "run"
        run.mkdir()
        whole.save(run / "model.keras")
        (run / "settings.json").write_text(json.dumps({"set": "tiny", "classes": classes, "manifest": "none.csv"}))
        metrics = {"frozen": {"threshold": {"value": 0.1}}, "fine-tuned": {"threshold": threshold, "test": {}}}
        (run / "metrics.json").write_text(json.dumps(metrics))
        return run

    return make
