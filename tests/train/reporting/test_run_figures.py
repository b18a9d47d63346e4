"""Figures and the comparison of runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from train.dataset import Dataset
from train.reporting import run_figures
from train.reporting.samples import VARIANTS, Samples, choose


def test_curves_are_drawn(tmp_path: Path) -> None:
    """The figure is a real picture, with something in it."""
    epochs = [1, 2, 3, 4]
    losses = {name: [0.7, 0.5, 0.4, 0.3] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    history = pd.DataFrame({"phase": ["frozen"] * 2 + ["fine-tuned"] * 2, "epoch": epochs, **losses})
    run_figures.curves(history, "title", tmp_path / "curves.png")
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 1


@pytest.mark.parametrize("channels", [(), (3,)])
def test_reducing_loses_and_enlarging_does_not(channels: tuple[int, ...]) -> None:
    """SSIM falls and the error grows the smaller the size; at the original size or above nothing is lost."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96, *channels), dtype=np.uint8)
    losses = [run_figures._loss(image, size) for size in ((12, 8), (48, 32), (96, 64), (200, 200))]
    assert losses[0][0] < losses[1][0] < losses[2][0] == losses[3][0] == 1.0
    assert losses[0][1] > losses[1][1] > losses[2][1] == losses[3][1] == 0.0


def rescaled(folder: Path, *images: np.ndarray) -> list[str]:
    """The lines of the table of what rescaling to 32 x 32 loses of these originals."""
    originals = []
    for number, image in enumerate(images):
        originals.append(folder / f"{number:02}.png")
        Image.fromarray(image).save(originals[-1])
    run_figures.rescaling(Samples("title", (32, 32), originals, {}), folder / "rescaling.png")
    return (folder / "rescaling.csv").read_text().splitlines()


def test_one_small_original_does_not_make_the_loss_infinite(tmp_path: Path) -> None:
    """It loses nothing, the others do; identical is said only where every image is."""
    large = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
    half, same, double = (line.split(",") for line in rescaled(tmp_path, large, large[:20, :20])[1:])
    for line in (half, same):
        assert float(line[1]) < 0.9
        assert 5 < float(line[2]) < 20
    assert double == ["64 x 64", "1.000", "identical", "2"]
    error = run_figures._loss(large, (32, 32))[1] / 2
    assert float(same[2]) == pytest.approx(10 * np.log10(255**2 / error), abs=0.06)


def test_colour_is_shown_as_colour(tmp_path: Path) -> None:
    """An original in colour isn't turned gray; a tiny one, which has no SSIM, is left out."""
    red = np.zeros((40, 56, 3), dtype=np.uint8)
    red[..., 0] = np.random.default_rng(0).integers(128, 256, (40, 56))
    lines = rescaled(tmp_path, red, np.zeros((2, 60), np.uint8))
    assert [line.split(",")[3] for line in lines[1:]] == ["1", "1", "1"]
    shown = np.asarray(Image.open(tmp_path / "rescaling.png").convert("RGB")).astype(int)
    assert (shown[..., 0] - shown[..., 1] > 100).mean() > 0.1


def test_very_small_originals_are_measured(tmp_path: Path) -> None:
    """Of 5 x 4 pixels, for a set whose images are smaller still."""
    image = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
    Image.fromarray(image).save(tmp_path / "a.png")
    run_figures.rescaling(Samples("title", (1, 1), [tmp_path / "a.png"], {}), tmp_path / "rescaling.png")
    assert len((tmp_path / "rescaling.csv").read_text().splitlines()) == 4


def test_before_and_after_are_of_one_source() -> None:
    """Sources that are there as they are come first, with their variants; the others only where there are too few."""
    numbers = {"hidden": (1, 2, 3), "a": (0, 1), "b": (0, 1, 2)}
    rows = pd.DataFrame(
        [
            (f"{label}/{source}-v{number}.jpg", label, source, number, "train")
            for label in ("01", "TRUE")
            for source, variants in numbers.items()
            for number in variants
        ],
        columns=["path", "label", "source", "variant", "split"],
    )
    chosen = choose(Dataset(rows, {}, ("01", "TRUE"), (8, 8), Path(), ""), Path())
    for label in ("01", "TRUE"):
        names = [path.name for path, _ in chosen.variants[label]]
        assert names == ["b-v0.jpg", "b-v1.jpg", "b-v2.jpg", "a-v0.jpg", "a-v1.jpg"][:VARIANTS]
