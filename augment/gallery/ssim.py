"""How like its source each variant came out, by the written files, and the extremes of each class."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity

from augment.rendering.render import geometry_alone
from augment.rendering.tasks import Style
from common.images.pixels import Pixels, UnreadableImage, decode
from common.workers.dispatch import results

MOST = 2000  # variants that are compared; of a larger set a sample, since more would say no more of its recipe
_BATCH = 32  # variants a task
_WINDOW = 7  # pixels; the side of the window that skimage takes where the image is no smaller


class Pair(NamedTuple):
    """A variant and its source as variant 0, both as paths from where the process runs."""

    path: str  # the variant's in the manifest
    before: str
    after: str
    seed: int


class Likeness(NamedTuple):
    """How a variant differs from its source: by all, and by what isn't geometry; None where that isn't known.

    `aligned` is the SSIM to the source after the same geometric transforms, `invented` the share of pixels that the
    source doesn't reach, `clipped` the share that became black or white.
    """

    ssim: float
    aligned: float | None = None
    invented: float | None = None
    clipped: float | None = None


class Extremes(NamedTuple):
    """The variants of a class that are least and most like their source, as paths, the most extreme first."""

    label: str
    least: list[str]
    most: list[str]


def pairs(rows: pd.DataFrame, root: Path) -> list[Pair]:
    """What to compare: up to `MOST` variants, shared out over the classes and picked by their checksums."""
    variants = rows[rows["variant"] > 0]
    variants = variants.merge(
        rows.loc[rows["variant"] == 0, ["split", "source", "path"]].drop_duplicates(["split", "source"]),
        on=["split", "source"],
        suffixes=("", "_before"),
    )
    rank = variants.sort_values("sha256", kind="stable").groupby("label").cumcount().sort_index()
    picked = variants[rank < share(variants["label"].value_counts(), MOST)] if len(variants) > MOST else variants
    return [
        Pair(after, f"{root}/{before}", f"{root}/{after}", seed)
        for after, before, seed in zip(picked["path"], picked["path_before"], picked["seed"], strict=True)
    ]


def share(counts: "pd.Series[int]", most: int) -> int:
    """The largest number that each class can have if together they are to have no more than `most`."""
    left, classes = most, len(counts)
    for count in sorted(counts):
        if count * classes > left:
            return max(1, left // classes)
        left, classes = left - count, classes - 1
    return most


def compare(
    compared: Sequence[Pair], style: Style | None, executor: Executor, progress: Callable[[int, int], None]
) -> dict[str, Likeness | None]:
    """How like its source each variant is, by path, in the order given; None where that can't be computed.

    Args:
        compared: what to compare.
        style: what the variants were rendered by; None: unknown.
        executor: any `concurrent.futures.Executor` whose workers see the same files.
        progress: called with (variants done, variants in all).

    Raises:
        DispatchError: as `results` has it.
    """
    batches: Iterator[Sequence[Pair]] = (compared[at : at + _BATCH] for at in range(0, len(compared), _BATCH))
    found: dict[str, Likeness | None] = {}
    of_batch = partial(_compare_batch, style)
    for batch in results(of_batch, batches, executor, lambda pair: pair.after, lambda pair, _: (pair.path, None)):
        found.update(batch)
        progress(len(found), len(compared))
    return {pair.path: found[pair.path] for pair in compared}


def extremes(rows: pd.DataFrame, ssim: Mapping[str, float | None], most: int) -> list[Extremes]:
    """For each class with compared variants, its `most` least and most like ones; none is among both."""
    labels = dict(zip(rows["path"], rows["label"], strict=True))
    by_label: dict[str, list[tuple[float, str]]] = {}
    for path, value in ssim.items():
        if value is not None:
            by_label.setdefault(labels[path], []).append((value, path))
    found = []
    for label, values in sorted(by_label.items()):
        ranked = [path for _, path in sorted(values)]
        count = min(most, (len(ranked) + 1) // 2)
        found.append(Extremes(label, ranked[:count], ranked[count:][::-1][:count]))
    return found


def _compare_batch(style: Style | None, batch: Sequence[Pair]) -> list[tuple[str, Likeness | None]]:
    return [(pair.path, likeness(pair, style)) for pair in batch]


def likeness(pair: Pair, style: Style | None) -> Likeness | None:
    """How like a variant is to its source; None where one can't be read, or as `ssim` has it."""
    before, after = Path(pair.before), Path(pair.after)
    if not (before.is_file() and after.is_file()):  # a pipe would be waited for
        return None
    try:
        first, second = decode(before.read_bytes()), decode(after.read_bytes())
    except (OSError, UnreadableImage):
        return None
    whole = ssim(first, second)
    if whole is None or style is None:
        return None if whole is None else Likeness(whole)
    try:
        moved, invented = geometry_alone(first, pair.seed, style)
    except Exception:  # of a manifest and a card that aren't each other's, whatever a transform raises
        return Likeness(whole)
    clipped = max(0.0, _extreme(second) - _extreme(moved))
    return Likeness(whole, ssim(moved, second), invented, clipped)


def ssim(first: Pixels, second: Pixels) -> float | None:
    """The structural similarity (Wang et al. 2004) of two images, 1 if they are equal.

    None where they differ in size, or are less than 3 pixels wide or high.
    """
    side = min(*first.shape[:2], _WINDOW)
    if first.shape[:2] != second.shape[:2] or side < 3:
        return None
    if first.ndim != second.ndim:
        first, second = _rgb(first), _rgb(second)
    side -= 1 - side % 2  # the window's side is odd
    channels = 2 if first.ndim == 3 else None
    return float(structural_similarity(first, second, win_size=side, data_range=255, channel_axis=channels))


def _extreme(pixels: Pixels) -> float:
    """The share of black and of white."""
    return float(np.mean((pixels == 0) | (pixels == 255)))


def _rgb(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
