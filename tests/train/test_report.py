"""Figures and the comparison of runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from train import report


def test_curves_are_drawn(tmp_path: Path) -> None:
    """The figure is a real picture, with something in it."""
    epochs = [1, 2, 3, 4]
    losses = {name: [0.7, 0.5, 0.4, 0.3] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    history = pd.DataFrame({"phase": ["frozen"] * 2 + ["fine-tuned"] * 2, "epoch": epochs, **losses})
    report.curves(history, "title", tmp_path / "curves.png")
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 1


def test_the_comparison_stands_beside_the_studys_numbers(tmp_path: Path) -> None:
    """A run on one of the study's sets shows the study's accuracies; a run without fine-tuning a dash."""
    for name, tuned in (("augment1", 0.875), ("own", None)):
        run = tmp_path / name
        run.mkdir()
        images = {"train": 8, "val": 2, "test": 8}
        (run / "settings.json").write_text(json.dumps({"set": name, "images": images}))
        told = {"frozen": {"test": {"accuracy": 0.75, "auroc": 0.8}}}
        if tuned:
            told["fine-tuned"] = {"test": {"accuracy": tuned, "auroc": 0.9}}
        (run / "metrics.json").write_text(json.dumps(told))
    table = report.comparison([tmp_path / "augment1", tmp_path / "own"])
    assert table["accuracy frozen"].tolist() == ["75.00", "75.00"]
    assert table["accuracy fine-tuned"].tolist() == ["87.50", "-"]
    assert table["the study's accuracy"].tolist() == ["86.38 -> 86.70", "-"]


def test_reducing_loses_and_enlarging_does_not() -> None:
    """SSIM and PSNR fall with the size; at the original size or above nothing is lost."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    losses = [report._loss(image, size) for size in ((12, 8), (48, 32), (96, 64), (200, 200))]
    assert losses[0][0] < losses[1][0] < losses[2][0] == losses[3][0] == 1.0
    assert losses[0][1] < losses[1][1] < losses[2][1] == np.inf
