"""The study's three figures of a run: training curves, what rescaling loses, before and after augmentation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import mean_squared_error, structural_similarity

from common.files import write_atomically
from common.images.pixels import Pixels, UnreadableImage, decode
from train.reporting import plots
from train.reporting.samples import VARIANTS, Samples

_WINDOW = 7  # pixels; the side of the window that skimage takes where the image is no smaller
_SMALLEST = 3  # pixels; the side of the smallest window that SSIM can be computed in


def curves(history: pd.DataFrame, title: str, path: Path) -> None:
    """Accuracy and loss over the epochs, with the start of fine-tuning marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        plots.draw_history(axis, history, name)
    figure.savefig(path, dpi=120)


def rescaling(chosen: Samples, path: Path) -> None:
    """An original beside itself rescaled to the set's size, half and double of it, and how much each loses.

    The loss is measured where the original is: reduced (area averages), brought back to its size (bicubic) and
    compared, over up to 12 sources: the mean SSIM, and the PSNR of the mean squared error, which one source that loses
    nothing doesn't make infinite. The numbers are beside the picture, in NAME.csv.
    """
    originals = _readable(chosen.originals)
    if not originals:
        return
    width, height = chosen.size
    sizes = [(width // 2, height // 2), (width, height), (width * 2, height * 2)]
    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(f"What rescaling loses: {chosen.title}")
    axes = figure.subplots(1, 1 + len(sizes))
    shown, rows = originals[0], [("size", "SSIM", "PSNR in dB", "images")]
    _show(axes[0], shown, f"original\n{shown.shape[1]} x {shown.shape[0]}")
    for axis, size in zip(axes[1:], sizes, strict=True):
        ssim, error = np.mean([_loss(original, size) for original in originals], axis=0)
        psnr = f"{10 * np.log10(255**2 / error):.1f}" if error > 0 else "identical"
        label = f"PSNR {psnr} dB" if error > 0 else psnr
        _show(axis, _resized(shown, size), f"{size[0]} x {size[1]}\nSSIM {ssim:.3f}, {label}, n = {len(originals)}")
        rows.append((f"{size[0]} x {size[1]}", f"{ssim:.3f}", psnr, str(len(originals))))
    figure.savefig(path, dpi=120)
    write_atomically(path.with_suffix(".csv"), "".join(f"{','.join(row)}\n" for row in rows))


def augmentation(chosen: Samples, path: Path) -> None:
    """For each class the sources with the most variants as they are in the set, and their variants beside them."""
    figure = Figure(figsize=(11, 2.6 * len(chosen.variants)), layout="constrained")
    figure.suptitle(f"Before and after augmentation: {chosen.title}")
    grid = figure.subplots(len(chosen.variants), VARIANTS, squeeze=False)
    for axes, (label, variants) in zip(grid, chosen.variants.items(), strict=True):
        for axis in axes:
            axis.axis("off")
        for axis, (file, number) in zip(axes, variants, strict=False):
            name = "before" if number == 0 else f"after: variant {number}"
            _show(axis, decode(file.read_bytes()), f"{label}\n{name}")
    figure.savefig(path, dpi=120)


def _readable(files: list[Path]) -> list[Pixels]:
    """Those that can still be read and are not too small for SSIM, gray or in colour."""
    found = []
    for file in files:
        try:
            image = decode(file.read_bytes())
        except (OSError, UnreadableImage):
            continue
        if min(image.shape[:2]) >= _SMALLEST:
            found.append(image)
    return found


def _resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    width, height = (max(1, side) for side in size)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _loss(original: Pixels, size: tuple[int, int]) -> tuple[float, float]:
    """(SSIM, mean squared error) of an image that was reduced to `size` and brought back."""
    height, width = original.shape[:2]
    if size[0] >= width and size[1] >= height:
        return 1.0, 0.0  # nothing is lost by enlarging
    back = np.asarray(Image.fromarray(_resized(original, size)).resize((width, height), Image.Resampling.BICUBIC))
    window = min(height, width, _WINDOW)
    window -= 1 - window % 2  # its side is odd
    channels = 2 if original.ndim == 3 else None
    ssim = structural_similarity(original, back, win_size=window, data_range=255, channel_axis=channels)
    return float(ssim), float(mean_squared_error(original, back))


def _show(axis: Any, image: NDArray[np.uint8], title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=9)
    axis.axis("off")
