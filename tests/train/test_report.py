"""Figures and the comparison of runs."""

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


def test_reducing_loses_and_enlarging_does_not() -> None:
    """SSIM and PSNR fall with the size; at the original size or above nothing is lost."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    losses = [report._loss(image, size) for size in ((12, 8), (48, 32), (96, 64), (200, 200))]
    assert losses[0][0] < losses[1][0] < losses[2][0] == losses[3][0] == 1.0
    assert losses[0][1] < losses[1][1] < losses[2][1] == np.inf
