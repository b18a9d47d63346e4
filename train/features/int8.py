"""OpenVINO's network in 8 bits: NNCF's post-training quantisation, calibrated on some images of the train split.

Jacob et al. 2018, arXiv 1712.05877. NNCF is Apache-2.0. Which images are taken goes by their checksums, so that the same set
always gets the same network.
"""

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import UserError
from train.dataset import Dataset, expect_image, images

IMAGES = 300  # NNCF's default


class Int8Error(UserError):
    """The network can't be quantised; the message says why, and the fix."""


def calibration(dataset: Dataset) -> pd.DataFrame:
    """The rows that the network is calibrated on: the train images as they are, or else all, with the least checksums.

    Raises:
        Int8Error: there are none.
    """
    train = dataset.rows[dataset.rows["split"] == "train"]
    as_they_are = train[train["variant"] == 0]
    rows = (train if as_they_are.empty else as_they_are).drop_duplicates("sha256").sort_values("sha256")
    if rows.empty:
        raise Int8Error("--precision int8 is calibrated on train images, and there are none; leave it out")
    return rows.head(IMAGES)


def digest(dataset: Dataset) -> str:
    """Of what the network is calibrated on."""
    return hashlib.sha256("".join(calibration(dataset)["sha256"]).encode()).hexdigest()[:16]


def samples(dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Yield the images that the network is calibrated on, (1, height, width, 3).

    Raises:
        DatasetError: one is not the image in the manifest.
    """
    rows = calibration(dataset)
    paths = dataset.paths(rows)
    for path, sha256, image in zip(paths, rows["sha256"], images(paths, dataset.size, 1), strict=True):
        expect_image(path, sha256)
        yield image.numpy().astype(np.uint8)  # which they are decoded from


def quantised(graph: Any, calibrated_on: Sequence[NDArray[np.uint8]]) -> Any:
    """An `openvino.Model` whose convolutions are in 8 bits.

    Args:
        graph: an `openvino.Model` that takes images one by one, float32 (1, height, width, 3).
        calibrated_on: such images.
    """
    nncf = import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    given = nncf.Dataset(calibrated_on, lambda image: image.astype(np.float32))
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars of its own
        return nncf.quantize(graph, given, subset_size=len(calibrated_on))


def require() -> None:
    """That the packages are there.

    Raises:
        Int8Error: they are not.
    """
    lacking = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if lacking:
        raise Int8Error(
            f"--precision int8: {' and '.join(lacking)} not installed; python -m pip install -r requirements-int8.txt, or leave it out"
        )
