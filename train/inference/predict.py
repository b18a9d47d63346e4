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

from common.errors import UserError
from common.images.pixels import Pixels, UnreadableImage, decode_to, read_image
from train import tables
from train.fitting.leaks import Record
from train.inference.predictor import Trained

_BATCH = 32
# Control characters, also of lines and of writing direction, and what stands for bytes that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Of a file: its bytes, its image as the model takes it, the predicted class's index and probability -> a file's name.
Draw = Callable[["Found", bytes, NDArray[np.float32], int, float], str]


class PredictError(UserError):
    """The predictions can't be written where they are to go; the message names the place and the fix."""


class Found(NamedTuple):
    """A file to predict: `path` as the user's words give it, `name` within the folder given, or why it can't be read."""

    path: Path
    name: str
    error: str = ""


class _Read(NamedTuple):
    data: bytes
    image: Pixels | None
    error: str
    trained_on: str = ""


def listed(places: Sequence[Path]) -> list[Found]:
    """The files named, and the files of the folders named, at any depth, sorted; each once.

    As when a set is built, what an image is its content says and not its name, so that every file is tried. Hidden
    files and folders are named and not read, and links to folders are not followed.
    """
    found: list[Found] = []
    for place in places:
        found += _inside(place) if place.is_dir() else [Found(place, place.name, _fault(place))]
    return list({entry.path: entry for entry in found}.values())


def _inside(place: Path) -> list[Found]:
    """The files of a folder, at any depth."""
    unlisted: list[Found] = []
    inside: list[Found] = []
    files: list[Path] = []
    for folder, folders, names in os.walk(place, onerror=lambda error: unlisted.append(_unlisted(error, place))):
        for name in [name for name in folders if name.startswith(".")]:
            folders.remove(name)
            inside.append(Found(Path(folder, name), Path(folder, name).relative_to(place).as_posix(), "hidden"))
        files += [Path(folder, name) for name in names]
    for path in files:
        reason = "hidden" if path.name.startswith(".") else _fault(path)
        inside.append(Found(path, path.relative_to(place).as_posix(), reason))
    found = unlisted + sorted(inside)
    return found or [Found(place, place.name, "a folder without files")]


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
                row: dict[str, object] = {"file": display_name(entry.path), "error": one.error}
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


def check_out(out: Path) -> None:
    """Whether the table may be written to `out`.

    Raises:
        PredictError: it would take the place of something else.
    """
    if out.suffix.lower() != ".csv":
        raise PredictError(f"--out {out}: the table is a CSV; give a name that ends in .csv")
    if os.path.lexists(out) and not _is_table(out):
        raise PredictError(f"--out {out}: is there already, and no table of predictions; give another name")
    above = next(place for place in out.absolute().parents if os.path.lexists(place))
    if not above.is_dir():
        raise PredictError(f"--out {out}: {above} is no folder; give another place")


def _is_table(path: Path) -> bool:
    """Whether a file is a table that `write` wrote, which another may replace."""
    try:
        with path.open(encoding="utf-8") as file:
            return path.is_file() and file.readline(4096).startswith("file,predicted,")
    except (OSError, UnicodeDecodeError):
        return False


def write(out: Path, table: pd.DataFrame) -> None:
    """Write the table, with names as they are: as in a manifest, a cell may begin as a formula would."""
    tables.write(out, table)


def display_name(path: Path) -> str:
    """A path as text that is a line and can be encoded, as it is but for characters that aren't for reading."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(path))


def _read(entry: Found, trained: Trained, record: Record | None) -> _Read:
    if entry.error:
        return _Read(b"", None, entry.error)
    try:
        data = read_image(entry.path)
        image = decode_to(data, trained.size, value_range=trained.value_range, fit=trained.fit)
        return _Read(data, image, "", record.known(data) if record else "")
    except OSError as error:
        return _Read(b"", None, f"can't be read: {error.strerror}")
    except UnreadableImage as error:
        return _Read(b"", None, " ".join(str(error).split()))


def _as_input(image: Pixels) -> NDArray[np.float32]:
    """Gray or RGB to float32 of three channels."""
    colour = np.dstack([image] * 3) if image.ndim == 2 else image
    return colour.astype(np.float32)


def _fault(path: Path) -> str:
    """Why a path is no file that can be read, or nothing."""
    if path.is_file():
        return ""
    return "not a regular file" if os.path.lexists(path) else "no such file or folder"


def _unlisted(error: OSError, place: Path) -> Found:
    return Found(Path(error.filename or place), place.name, f"can't be listed: {error.strerror}")
