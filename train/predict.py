"""Image files, from anywhere -> a table of predictions."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from manifests import contract
from manifests.pixels import Pixels, UnreadableImage, decode_to
from train import tables
from train.trained import Trained

# What is taken from a folder; a file that is named itself is tried whatever its name.
SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"))
_BATCH = 32
# Control characters, also of lines and of writing direction, and what stands for bytes that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Of a file: its bytes, its image as the model takes it, the predicted class's index and probability -> a file's name.
Draw = Callable[["Found", bytes, NDArray[np.float32], int, float], str]


class PredictError(ValueError):
    """The predictions can't be written where they are to go; the message names the place and the fix."""


class Found(NamedTuple):
    """A file to predict: `path` as the user's words give it, `name` within the folder given, or why it can't be read."""

    path: Path
    name: str
    error: str = ""


class Listing(NamedTuple):
    """The files to predict, and how many of the folders' files don't have an image's name."""

    found: list[Found]
    passed_over: int


class _Read(NamedTuple):
    data: bytes
    image: Pixels | None
    error: str


def listed(places: Sequence[Path]) -> Listing:
    """The files named, and the image files of the folders named, at any depth, sorted; each once.

    Hidden files are left out, and links to folders are not followed.
    """
    found: list[Found] = []
    passed_over = 0
    for place in places:
        if not place.is_dir():
            found.append(Found(place, place.name, "" if place.is_file() else _no_file(place)))
            continue
        faults: list[Found] = []
        files = []
        for folder, folders, names in os.walk(place, onerror=lambda error: faults.append(_unlisted(error, place))):  # noqa: B023  # called in this turn of the loop only
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(folder, name) for name in names if not name.startswith(".")]
        images = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        passed_over += len(files) - len(images)
        if not images and not faults:
            faults = [Found(place, place.name, "a folder without image files")]
        found += faults + [
            Found(path, path.relative_to(place).as_posix(), "" if path.is_file() else _no_file(path)) for path in images
        ]
    return Listing(list({entry.path: entry for entry in found}.values()), passed_over)


def predict(
    trained: Trained,
    found: Sequence[Found],
    progress: Callable[[int, int], None],
    draw: Draw | None = None,
) -> pd.DataFrame:
    """Predict each file, decoded and stretched as the builder does it.

    The model was trained on images that were written as JPEGs after that and read again. Leaving this out moves
    real X-rays by less than one gray level on average and their probabilities by less than 0.005, as
    tests/train/test_predict.py measures.

    Args:
        trained: the run.
        found: the files, and what is known of those that can't be read.
        progress: called with (files done, files in all).
        draw: called with each file that could be read; what it gives goes into the column `cam`.

    Returns:
        A row a file, in order: file, predicted, p(CLASS) for each class, error (empty if there is none), and cam if
        `draw` is given.
    """
    rows: list[dict[str, object]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            # A batch at a time, so that a folder of any size fits into memory.
            read = list(pool.map(lambda entry: _read(entry, trained.size), batch))
            images = [_as_input(one.image) for one in read if one.image is not None]
            given = (
                trained.probabilities(np.stack(images)) if images else np.zeros((0, len(trained.classes)), np.float32)
            )
            predicted = iter(zip(images, given, trained.predicted(given), strict=True))
            for entry, one in zip(batch, read, strict=True):
                row: dict[str, object] = {"file": told(entry.path), "error": one.error}
                if not one.error:
                    image, probabilities, index = next(predicted)
                    row["predicted"] = trained.classes[index]
                    for name, value in zip(trained.classes, probabilities, strict=True):
                        row[tables.probability(name)] = float(value)
                    if draw:
                        row["cam"] = draw(entry, one.data, image, int(index), float(probabilities[index]))
                rows.append(row)
            progress(len(rows), len(found))
    columns = ["file", "predicted", *map(tables.probability, trained.classes), *(["cam"] if draw else []), "error"]
    return pd.DataFrame(rows, columns=columns)


def check_out(out: Path) -> None:
    """Whether the table may be written to `out`.

    Raises:
        PredictError: it would take the place of something else.
    """
    if out.suffix.lower() != ".csv":
        raise PredictError(f"--out {out}: the table is a CSV; give a name that ends in .csv")
    if out.is_file() and contract.is_manifest(out):
        raise PredictError(f"--out {out}: is a set's manifest; give another name")


def write(out: Path, table: pd.DataFrame) -> None:
    """Write the table, with names as they are: as in a manifest, a cell may begin as a formula would."""
    tables.write(out, table)


def told(path: Path) -> str:
    """A path as text that is a line and can be encoded, as it is but for characters that aren't for reading."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(path))


def _read(entry: Found, size: tuple[int, int]) -> _Read:
    if entry.error:
        return _Read(b"", None, entry.error)
    try:
        data = entry.path.read_bytes()
        return _Read(data, decode_to(data, size), "")
    except OSError as error:
        return _Read(b"", None, f"can't be read: {error.strerror}")
    except UnreadableImage as error:
        return _Read(b"", None, " ".join(str(error).split()))


def _as_input(image: Pixels) -> NDArray[np.float32]:
    """Gray or RGB to float32 of three channels."""
    colour = np.dstack([image] * 3) if image.ndim == 2 else image
    return colour.astype(np.float32)


def _no_file(path: Path) -> str:
    return "not a regular file" if os.path.lexists(path) else "no such file or folder"


def _unlisted(error: OSError, place: Path) -> Found:
    return Found(Path(error.filename or place), place.name, f"can't be listed: {error.strerror}")
