"""What can be said of an image file without looking at what it shows: shape, compression, brightness, sharpness, border."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from common.images.pixels import Pixels, UnreadableImage, decode, read_image

OF_FILE = ("width", "height", "aspect ratio", "bits per pixel")
OF_PIXELS = ("brightness", "contrast", "sharpness", "border")
STATISTICS = (*OF_FILE, *OF_PIXELS)
_BORDER = 0.05  # of the shorter side

Range = tuple[float, float]


def statistics(data: bytes, value_range: Range | None = None) -> dict[str, float]:
    """The statistics of an image file.

    Args:
        data: its bytes.
        value_range: the samples that are black and white, where they have more than 8 bits; None: as the file declares.

    Returns:
        `width` and `height` in pixels; `aspect ratio`, width by height; `bits per pixel` of the file; `brightness` and
        `contrast`, mean and standard deviation of the gray levels, 0..1; `sharpness`, the logarithm of the Laplacian's
        variance by that of the gray levels; `border`, the mean gray level of a frame of 5 % of the shorter side less that
        of what it frames.

    Raises:
        UnreadableImage: it can't be decoded.
    """
    image = decode(data, value_range=value_range)
    height, width = image.shape[:2]
    found = (width, height, width / height, 8 * len(data) / (width * height), *_of_pixels(_gray(image)))
    return dict(zip(STATISTICS, map(float, found), strict=True))


def of_files(
    paths: Sequence[Path],
    checksums: Sequence[str],
    progress: Callable[[int, int], None],
    value_range: Range | None = None,
) -> pd.DataFrame:
    """The statistics of image files, a row a file; nan where it can't be read, or is not the one of the checksum."""

    def of_file(path: Path, checksum: str) -> dict[str, float]:
        try:
            data = read_image(path)
            return statistics(data, value_range) if hashlib.sha256(data).hexdigest() == checksum else {}
        except (
            OSError,
            UnreadableImage,
            MemoryError,
            ValueError,
            cv2.error,
        ):  # ValueError: of a name that no file can have
            return {}

    found = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # each holds an image at its full size
        for done, each in enumerate(pool.map(of_file, paths, checksums), 1):
            found.append(each)
            progress(done, len(paths))
    return pd.DataFrame(found, columns=list(STATISTICS), dtype=float)


def _gray(image: Pixels) -> Pixels:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _of_pixels(gray: Pixels) -> tuple[float, ...]:
    levels = gray.astype(np.float32) / 255
    frame = max(1, round(_BORDER * min(gray.shape)))
    inner = levels[frame:-frame, frame:-frame]
    outer_mean = (levels.sum() - inner.sum()) / max(1, levels.size - inner.size)
    border = outer_mean - inner.mean() if inner.size else 0.0
    edges = cv2.Laplacian(levels, cv2.CV_32F).var()
    variance = levels.var()
    sharpness = np.log(max(edges, 1e-12) / max(variance, 1e-12))
    return levels.mean(), np.sqrt(variance), sharpness, border
