"""What came of a run, for people: the study's three figures and the table that compares runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from manifests.pixels import Pixels, UnreadableImage, decode

if TYPE_CHECKING:
    from train.dataset import Dataset  # which takes TensorFlow with it; `compare` needs none

# Test accuracy in %, frozen and fine-tuned, of the study whose recipes Evenset ships.
STUDY = {"original": (71.31, 73.56), "augment1": (86.38, 86.70), "augment2": (84.78, 86.54)}
_PAIRS = 12  # images that the loss by rescaling is measured on


class ReportError(ValueError):
    """Runs that can't be reported on; the message names the run and the fix."""


def figures(dataset: "Dataset", root: Path, history: pd.DataFrame, folder: Path) -> None:
    """Draw the study's three figures into `folder`: curves.png, rescaling.png and augmentation.png.

    rescaling.png is left out where the source folder that the card names isn't there.
    """
    name = " - ".join(filter(None, (dataset.card.get("name"), dataset.card.get("notice"))))
    curves(history, f"Training on {name}", folder / "curves.png")
    rescaling(dataset, root / dataset.card.get("source", ""), f"What rescaling loses: {name}", folder / "rescaling.png")
    augmentation(dataset, f"Before and after augmentation: {name}", folder / "augmentation.png")


def curves(history: pd.DataFrame, title: str, path: Path) -> None:
    """Accuracy and loss over the epochs, with the start of fine-tuning marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axis.plot(history["epoch"], history[name], marker="o", markersize=3, label="train")
        axis.plot(
            history["epoch"], history[f"val_{name}"], marker="s", markersize=3, linestyle="--", label="validation"
        )
        tuned = history.loc[history["phase"] == "fine-tuned", "epoch"]
        if len(tuned):
            axis.axvline(tuned.min() - 0.5, color="gray", linestyle=":", label="start of fine-tuning")
        axis.set(xlabel="epoch", ylabel=name)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)


def rescaling(dataset: "Dataset", source: Path, title: str, path: Path) -> None:
    """An original beside itself rescaled to the set's size, half and double of it, and how much each loses.

    The loss is measured where the original is: reduced (area averages), brought back to its size (bicubic) and
    compared by SSIM and PSNR, as a mean over up to 12 sources.
    """
    originals = _originals(dataset, source)
    if not originals:
        return
    width, height = dataset.size
    sizes = [(width // 2, height // 2), (width, height), (width * 2, height * 2)]
    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 1 + len(sizes))
    shown = originals[0]
    _show(axes[0], shown, f"original\n{shown.shape[1]} x {shown.shape[0]}")
    for axis, size in zip(axes[1:], sizes, strict=True):
        losses = [_loss(original, size) for original in originals]
        ssim, psnr = np.mean([loss[0] for loss in losses]), np.mean([loss[1] for loss in losses])
        told = f"PSNR {psnr:.1f} dB" if np.isfinite(psnr) else "identical"
        _show(axis, _resized(shown, size), f"{size[0]} x {size[1]}\nSSIM {ssim:.3f}, {told}, n = {len(losses)}")
    figure.savefig(path, dpi=120)


def augmentation(dataset: "Dataset", title: str, path: Path) -> None:
    """For each class the sources with the most variants as they are in the set, and their variants beside them."""
    figure = Figure(figsize=(11, 2.6 * len(dataset.classes)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(dataset.classes), 5, squeeze=False)
    rows = dataset.of("train")
    for axes, label in zip(grid, dataset.classes, strict=True):
        of_label = rows[rows["label"] == label]
        in_all = of_label.groupby("source")["path"].transform("size")
        variants = of_label.assign(in_all=in_all).sort_values(
            ["in_all", "source", "variant"], ascending=[False, True, True]
        )
        for axis in axes:
            axis.axis("off")
        for axis, row in zip(axes, variants.head(len(axes)).itertuples(), strict=False):
            name = "before" if row.variant == 0 else f"after: variant {row.variant}"
            _show(axis, decode((dataset.root / str(row.path)).read_bytes()), f"{label}\n{name}")
    figure.savefig(path, dpi=120)


def summary(run: Path) -> pd.DataFrame:
    """The test metrics of a run, a row a phase.

    Raises:
        ReportError: a folder that holds no finished run.
    """
    rows = []
    for phase, of_split in _read(run, "metrics.json").items():
        told = of_split.get("test", {})
        row = {"phase": phase, "test images": told.get("images", 0), "accuracy %": _percent(told.get("accuracy"))}
        row["AUROC"] = _three(told.get("auroc"))
        for name in ("sensitivity", "specificity"):
            value = told.get(name)
            of_class = value if isinstance(value, dict) else {"": value}
            row |= {f"{name} {label}".strip(): _three(share) for label, share in of_class.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def comparison(runs: list[Path]) -> pd.DataFrame:
    """Test accuracy of each run, frozen and fine-tuned, beside the study's, in %.

    Raises:
        ReportError: a folder that holds no finished run.
    """
    return pd.DataFrame([_compared(run) for run in runs])


def _compared(run: Path) -> dict[str, Any]:
    settings, told = _read(run, "settings.json"), _read(run, "metrics.json")
    of_test = {phase: of_split.get("test", {}) for phase, of_split in told.items()}
    study = STUDY.get(settings["set"])
    row = {"run": run.as_posix(), "train": settings["images"]["train"], "val": settings["images"]["val"]}
    row["test"] = settings["images"]["test"]
    for name, form in (("accuracy", _percent), ("auroc", _three)):
        for phase in ("frozen", "fine-tuned"):
            row[f"{name} {phase}"] = form(of_test.get(phase, {}).get(name))
    return {**row, "the study's accuracy": f"{study[0]:.2f} -> {study[1]:.2f}" if study else "-"}


def _read(run: Path, name: str) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads((run / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{run} holds no finished run ({error}); give folders that `python -m train fit` wrote"
        ) from None
    return read


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _originals(dataset: "Dataset", source: Path) -> list[Pixels]:
    """Some test sources as gray images, spread evenly over the set, that can still be read."""
    names = dataset.rows.loc[dataset.rows["variant"] == 0, "source"].sort_values().tolist()
    found = []
    for name in names[:: max(1, len(names) // _PAIRS)][:_PAIRS]:
        try:
            image = decode((source / name).read_bytes())
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
