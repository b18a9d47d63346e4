"""Image files, from anywhere -> a table of predictions."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import escaped
from common.images.pixels import Pixels, UnreadableImage, decode_to, read_image
from train import tables
from train.data_checks.leaks import Record
from train.inference.files import Found
from train.inference.predictor import Trained

_BATCH = 32
# Of a file: its bytes, its image as the model takes it, the predicted class's index and probability -> a file's name.
Draw = Callable[["Found", bytes, NDArray[np.float32], int, float], str]


class _Read(NamedTuple):
    data: bytes
    image: Pixels | None
    error: str
    trained_on: str = ""


def predict(
    trained: Trained,
    found: Sequence[Found],
    progress: Callable[[int, int], None],
    draw: Draw | None = None,
    record: Record | None = None,
) -> pd.DataFrame:
    """Predict each file, decoded and stretched as the builder does it.

    The model was trained on images that were written as JPEGs after that and read again. Leaving this out moves
    real X-rays by less than one gray level on average and their probabilities by less than 0.005, as
    tests/train/inference/test_predict.py measures.

    Args:
        trained: the run.
        found: the files, and what is known of those that can't be read.
        progress: called with (files done, files in all).
        draw: called with each file that could be read; what it gives goes into the column `cam`.
        record: what the run has learnt from.

    Returns:
        A row a file, in order: file, predicted, p(CLASS) for each class, error (empty if there is none), cam if `draw`
        is given, and trained_on if `record` is: the split, train or val, and how that is known, or nothing.
    """
    rows: list[dict[str, object]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            # A batch at a time, so that a folder of any size fits into memory.
            read = list(pool.map(lambda entry: _read(entry, trained, record), batch))
            images = [_as_input(one.image) for one in read if one.image is not None]
            given = (
                trained.probabilities(np.stack(images)) if images else np.zeros((0, len(trained.classes)), np.float32)
            )
            predicted = iter(zip(images, given, trained.predicted(given), strict=True))
            for entry, one in zip(batch, read, strict=True):
                row: dict[str, object] = {"file": escaped(str(entry.path)), "error": one.error}
                if not one.error:
                    image, probabilities, index = next(predicted)
                    row["predicted"], row["trained_on"] = trained.classes[index], one.trained_on
                    for name, value in zip(trained.classes, probabilities, strict=True):
                        row[tables.probability(name)] = float(value)
                    if draw:
                        row["cam"] = draw(entry, one.data, image, int(index), float(probabilities[index]))
                rows.append(row)
            progress(len(rows), len(found))
    columns = ["file", "predicted", *map(tables.probability, trained.classes)]
    columns += [*(["trained_on"] if record else []), *(["cam"] if draw else []), "error"]
    return pd.DataFrame(rows, columns=columns)


def write(out: Path, table: pd.DataFrame) -> None:
    """Write the table, with names as they are: as in a manifest, a cell may begin as a formula would."""
    tables.write(out, table)


def _read(entry: Found, trained: Trained, record: Record | None) -> _Read:
    if entry.error:
        return _Read(b"", None, entry.error)
    try:
        data = read_image(entry.path)
        image = decode_to(data, trained.size, value_range=trained.value_range, fit=trained.fit)
        # Of a set that is padded or cropped, the record shows what the network takes.
        shown = None if trained.fit == "stretch" else image
        return _Read(data, image, "", record.known(data, shown) if record else "")
    except OSError as error:
        return _Read(b"", None, f"can't be read: {error.strerror}")
    except UnreadableImage as error:
        return _Read(b"", None, " ".join(str(error).split()))


def _as_input(image: Pixels) -> NDArray[np.float32]:
    """Gray or RGB to float32 of three channels."""
    colour = np.dstack([image] * 3) if image.ndim == 2 else image
    return colour.astype(np.float32)
