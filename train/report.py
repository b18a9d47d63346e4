"""What came of a run, for the eye: the study's three figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from manifests.contract import write_atomically
from manifests.pixels import Pixels, UnreadableImage, decode
from train import plots
from train.artist import VARIANTS, Samples


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
    compared by SSIM and PSNR, as a mean over up to 12 sources. The numbers are beside the picture, in NAME.csv.
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
        losses = [_loss(original, size) for original in originals]
        ssim, psnr = np.mean([loss[0] for loss in losses]), np.mean([loss[1] for loss in losses])
        told = f"PSNR {psnr:.1f} dB" if np.isfinite(psnr) else "identical"
        _show(axis, _resized(shown, size), f"{size[0]} x {size[1]}\nSSIM {ssim:.3f}, {told}, n = {len(losses)}")
        rows.append(
            (f"{size[0]} x {size[1]}", f"{ssim:.3f}", told.removeprefix("PSNR ").removesuffix(" dB"), str(len(losses)))
        )
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
    """Those that can still be read, as gray images."""
    found = []
    for file in files:
        try:
            image = decode(file.read_bytes())
        except (OSError, UnreadableImage):
            continue
        found.append(image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L")))
    return found


def _resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _loss(original: Pixels, size: tuple[int, int]) -> tuple[float, float]:
    """(SSIM, PSNR in dB) of an image that was reduced to `size` and brought back."""
    if min(size) < 1 or (size[0] >= original.shape[1] and size[1] >= original.shape[0]):
        return 1.0, float("inf")  # nothing is lost by enlarging
    back = np.asarray(Image.fromarray(_resized(original, size)).resize(original.shape[::-1], Image.Resampling.BICUBIC))
    return float(structural_similarity(original, back)), float(peak_signal_noise_ratio(original, back))


def _show(axis: Any, image: NDArray[np.uint8], title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=9)
    axis.axis("off")
