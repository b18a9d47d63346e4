"""What the choice of an engine does to a run's predictions on real X-rays."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from manifests import contract
from train import features, model
from train.cli import main
from train.engine import candidates

SPLITS = {"train": ("train", 100), "val": ("train", 30), "test": ("test", 100)}  # split: source folder, images a class


@pytest.fixture
def weights() -> Path:
    """Weights of a backbone that has seen images, with which predictions mean something."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "weights"
    file = Path(os.environ.get("EVENSET_WEIGHTS", shared / "resnet50v2_tinyimagenet.weights.h5"))
    if not file.is_file():
        pytest.skip(f"no backbone weights at {file}; set EVENSET_WEIGHTS to a ResNet50V2 weights file")
    return file


@pytest.fixture
def manifest(tmp_path: Path, xrays_224: Path) -> Path:
    """A set of real X-rays as they are."""
    rows = []
    for split, (folder, count) in SPLITS.items():
        for label in ("NORMAL", "PNEUMONIA"):
            files = sorted((xrays_224 / folder / label).iterdir())
            for file in files[:count] if split != "val" else files[-count:]:
                path = Path("data") / "real" / split / label / file.name
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, tmp_path / path)
                sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
                source = file.relative_to(xrays_224).as_posix()
                rows.append((path.as_posix(), label, split, source, source, 0, 0, "", 224, 224, sha256, sha256))
    card = {"name": "real", "notice": "", "source": "source", "images": "data/real", "rejected": []}
    contract.write(tmp_path / "manifests" / "real.csv", pd.DataFrame(rows, columns=contract.COLUMNS), card)
    return tmp_path / "manifests" / "real.csv"


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_two_threads_may_run_the_frozen_part_at_once(name: str) -> None:
    """Batches that two threads ask for at the same time come out as they do one after the other."""
    if name == "openvino":
        pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    part = model.cut(model.load_backbone("resnet50v2", "random", (64, 64), 0), 5)
    forward = features.forward(part, candidates(name)[-1])
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0, 255, (32, 64, 64, 3)).astype(np.float32) for _ in range(8)]
    expected = [forward(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(forward, batches))
    for outputs, alone in zip(got, expected, strict=True):
        for one, other in zip(outputs, alone, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_engines_come_to_the_same_predictions(manifest: Path, weights: Path, tmp_path: Path) -> None:
    """After both phases, test probabilities of OpenVINO and TensorFlow differ by 0.02 at most, and by 0.005 on average.

    Nearly all decisions are the same. The README states what came out of it once.
    """
    pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    tables = []
    for engine in ("tensorflow", "openvino"):
        run = tmp_path / "runs" / engine
        rates = ["--learning-rate", "1e-2", "--fine-tune-learning-rate", "1e-4"]
        words = ["fit", str(manifest), "--root", str(tmp_path), "--run", str(run), "--weights", str(weights)]
        result = CliRunner().invoke(
            main, [*words, "--engine", engine, "--epochs", "5", "--fine-tune-epochs", "5", *rates]
        )
        assert result.exit_code == 0, result.output
        tables.append(pd.read_csv(run / "predictions.csv").query("split == 'test'"))
    apart = np.abs(tables[0]["p(PNEUMONIA)"].to_numpy() - tables[1]["p(PNEUMONIA)"].to_numpy())
    same = (tables[0]["predicted (0.5)"] == tables[1]["predicted (0.5)"]).mean()
    assert apart.max() < 0.02
    assert apart.mean() < 0.005
    assert same > 0.98
    assert np.ptp(tables[0]["p(PNEUMONIA)"]) > 0.5, "the predictions must mean something, else this shows nothing"
