"""Images that are the same picture, though they have other labels: found among many, by their thumbnails."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from train.data_checks import leaks

_COMPARED, _PAIRS = 128, 2**16  # images that are compared with others at once, and pairs of which all pixels are


def search(thumbnails: leaks.Thumbnails, labels: NDArray[np.int64]) -> dict[int, int]:
    """For each image that is the same picture as one with another label: the nearest of those.

    Only images with means as near as one picture's are compared, and of them only those that are near enough in 4 x 4
    pixels, which are never further apart than the whole.

    Args:
        thumbnails: uint8 (images, 256).
        labels: (images,).
    """
    order = np.argsort(thumbnails.mean(axis=1), kind="stable")
    pixels, of_sorted = thumbnails[order].astype(np.int16), labels[order]
    means, limit = pixels.mean(axis=1), leaks.limits(pixels) + 1e-9
    blocks = pixels.reshape(-1, 4, leaks.SIDE // 4, 4, leaks.SIDE // 4).mean(axis=(2, 4)).reshape(-1, 16)
    nearest, apart = np.full(len(order), -1), np.full(len(order), np.inf)
    for start in range(0, len(order), _COMPARED):
        rows = slice(start, start + _COMPARED)
        end = np.searchsorted(means, (means[rows] + limit[rows]).max(), side="right")
        near = cdist(blocks[rows], blocks[start:end], "cityblock") / 16 <= limit[rows, None]
        near &= of_sorted[rows, None] != of_sorted[None, start:end]
        for pairs in np.array_split(np.argwhere(near) + start, near.sum() // _PAIRS + 1):
            one, other = pairs.T
            distances = np.abs(pixels[one] - pixels[other]).mean(axis=1)
            same = distances <= np.minimum(limit[one], limit[other])
            for row, twin in ((one[same], other[same]), (other[same], one[same])):
                _keep_nearest(nearest, apart, row, twin, distances[same])
    return {int(order[row]): int(order[nearest[row]]) for row in np.flatnonzero(nearest >= 0)}


def _keep_nearest(
    nearest: NDArray[np.int64],
    apart: NDArray[np.float64],
    rows: NDArray[np.int64],
    twins: NDArray[np.int64],
    distances: NDArray[np.float64],
) -> None:
    """Note for each row the nearest of its twins, if that is nearer than the one that is known."""
    by_distance = np.argsort(-distances, kind="stable")  # of assignments to one place the last holds
    rows, twins, distances = rows[by_distance], twins[by_distance], distances[by_distance]
    nearer = distances < apart[rows]
    nearest[rows[nearer]], apart[rows[nearer]] = twins[nearer], distances[nearer]
