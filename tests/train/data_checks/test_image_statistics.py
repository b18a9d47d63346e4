"""Statistics of image files."""

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from common.images.pixels import UnreadableImage
from train.data_checks.image_statistics import STATISTICS, of_files, statistics


def png(pixels: np.ndarray) -> bytes:
    """The pixels' bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def test_each_statistic_is_what_its_name_says() -> None:
    """On a dark frame around a bright noisy image."""
    pixels = np.zeros((100, 200), np.uint8)
    pixels[5:-5, 5:-5] = np.random.default_rng(0).integers(100, 200, (90, 190))
    data = png(pixels)
    found = statistics(data)
    assert tuple(found) == STATISTICS
    assert (found["width"], found["height"], found["aspect ratio"]) == (200, 100, 2)
    assert found["bits per pixel"] == 8 * len(data) / 20_000
    assert found["brightness"] == pytest.approx(pixels.mean() / 255)
    assert found["contrast"] == pytest.approx(pixels.std() / 255)
    assert found["border"] == pytest.approx(-pixels[5:-5, 5:-5].mean() / 255)


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    """Since it is relative to the variance of the gray levels."""
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8), (0, 0), 1)
    blurred = cv2.GaussianBlur(pixels, (0, 0), 2)
    sharp, soft, faint = (statistics(png(each))["sharpness"] for each in (pixels, blurred, pixels // 2))
    assert soft < sharp - 1
    assert faint == pytest.approx(sharp, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 3), (8, 8, 3)])
def test_the_smallest_and_flat_images_have_numbers(shape: tuple[int, ...]) -> None:
    """All of them finite."""
    assert np.isfinite(list(statistics(png(np.full(shape, 7, np.uint8))).values())).all()


def test_what_can_not_be_read_or_is_another_file_has_none(tmp_path: Path) -> None:
    """In the order of the files, with progress to the end."""
    good, bad, gone = (tmp_path / name for name in ("good.png", "bad.png", "gone.png"))
    good.write_bytes(png(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (good, bad)]
    shown: list[tuple[int, int]] = []
    found = of_files([gone, bad, good, good], [sums[0], sums[1], sums[0], sums[1]], lambda *at: shown.append(at))
    assert found.notna().all(axis=1).tolist() == [False, False, True, False]
    assert shown[-1] == (4, 4)
    with pytest.raises(UnreadableImage):
        statistics(bad.read_bytes())
