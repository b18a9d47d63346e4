"""What a run has learnt from, kept in its folder: by it `evaluate` and `predict` know images and groups again.

An image is known by its file, by its source, or by its pixels: those of two files are the same picture if they agree
when both are reduced to a few gray pixels. A copy in another format, size or quality agrees; of 5,826 different X-rays
no two come nearer than three times the limit.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import UserError
from common.images.pixels import Pixels, UnreadableImage, decode
from train import checksums, tables
from train.dataset import Dataset, DatasetError
from train.features.store import Store, locked

NAME = "trained_on.csv"
KINDS = {"split": str, "source_sha256": str, "sha256": str, "group_sha256": str, "thumbnail": str}
REASONS = ("the same source", "the same file", "the same pixels", "the same group")
SIDE = 16  # of a thumbnail
# How far two thumbnails of one picture may be apart: their mean difference, by the deviation of one. Copies of real
# X-rays in other sizes, formats and qualities have 0.04 at most, different ones 0.17 at least, drawn phantoms 0.15.
_SAME = 0.06
_ROUNDING = (1.0, 0.2)  # gray levels that are allowed whatever the deviation, but no more than this share of it
_CHUNK = 512  # images between two writes of their thumbnails

Thumbnails = NDArray[np.uint8]
Say = Callable[[str], None]


class LeakError(UserError):
    """What a run has learnt from can't be read; the message names the file and the fix."""


class Record(NamedTuple):
    """The images that a run has learnt from, train and val: a row a file, as KINDS has the columns.

    `thumbnails` has those of the rows `pictured`, int16 (images, 256), and `means` the mean of each.
    """

    rows: pd.DataFrame
    pictured: NDArray[np.intp]
    thumbnails: NDArray[np.int16]
    means: NDArray[np.float64]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Self:
        """A record of the rows that `tables.read` gives.

        Raises:
            ValueError: a thumbnail is none.
        """
        pictured = np.flatnonzero(rows["thumbnail"] != "")
        pixels = [np.frombuffer(base64.b64decode(text, validate=True), np.uint8) for text in rows["thumbnail"] if text]
        drawn = np.stack(pixels) if pixels else np.zeros((0, SIDE**2), np.uint8)
        if drawn.shape[1] != SIDE**2:
            raise ValueError("a thumbnail of another size")
        return cls(rows, pictured, drawn.astype(np.int16), drawn.mean(axis=1))

    def groups(self) -> set[str]:
        """The checksums of the groups' names."""
        return set(self.rows["group_sha256"])

    def known(self, data: bytes, shown: Pixels | None = None) -> str:
        """Whether a file's image was learnt from: `train, the same file`, say, and nothing if it was not.

        Args:
            data: the file's bytes.
            shown: its picture, where the record's are padded or cropped as this one is.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        same = np.flatnonzero((self.rows["source_sha256"] == sha256) | (self.rows["sha256"] == sha256))
        if len(same):
            return f"{self.rows['split'].iloc[same[0]]}, the same file"
        row = self._pictured_as(data, shown)
        return "" if row is None else f"{self.rows['split'].iloc[row]}, the same pixels"

    def shows(self, data: bytes) -> bool:
        """Whether a file has the pixels of an image that was learnt from."""
        return self._pictured_as(data) is not None

    def _pictured_as(self, data: bytes, shown: Pixels | None = None) -> int | None:
        if not len(self.pictured):
            return None
        try:
            wanted = (thumbnail(data) if shown is None else _reduced(shown)).astype(np.int16)
        except UnreadableImage:
            return None
        # Means that differ by more than the limit can't belong to one picture, and soon leave few to compare.
        limit = float(limits(wanted[None])[0])
        near = np.flatnonzero(np.abs(self.means - wanted.mean()) <= limit + 1e-9)
        apart = np.abs(self.thumbnails[near] - wanted).mean(axis=1)
        if not len(near) or apart.min() > limit:
            return None
        return int(self.pictured[near[apart.argmin()]])


def thumbnail(data: bytes) -> Thumbnails:
    """An image file's pixels in little: uint8 (256,), gray, stretched to 16 x 16.

    Raises:
        UnreadableImage: as `pixels.decode` has it.
    """
    return _reduced(decode(data, (2 * SIDE, 2 * SIDE)))  # of a JPEG, at a small scale: it takes a fifth of the time


def _reduced(image: Pixels) -> Thumbnails:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False).reshape(-1)


def limits(thumbnails: NDArray[np.int16]) -> NDArray[np.float64]:
    """How far from each thumbnail another of the same picture may be, in gray levels."""
    deviations = thumbnails.std(axis=1)
    levels, share = _ROUNDING
    return np.maximum(_SAME * deviations, np.minimum(levels, share * deviations))


def encoded(drawn: Thumbnails) -> str:
    """A thumbnail as the text that the record holds."""
    return base64.b64encode(drawn.tobytes()).decode()


def learnt(dataset: Dataset, cache: Path | None, say: Say = lambda _: None) -> pd.DataFrame:
    """The rows of a set's train and val, as KINDS has the columns; with `cache`, with the sources' thumbnails.

    Args:
        dataset: the set.
        cache: the folder that activations are kept in, and thumbnails too; without it, none are made.
        say: called with a line for people: what it waits for, and what was damaged.
    """
    rows = dataset.rows[dataset.rows["split"] != "test"].reset_index(drop=True)
    found = rows[["split", "source_sha256", "sha256"]].copy()
    found["group_sha256"] = rows["group"].map(_digest)
    found["thumbnail"] = ""
    if cache:
        one_each = rows.sort_values("variant", kind="stable").drop_duplicates(["split", "source"])
        shown = one_each[one_each["variant"] == 0]
        drawn = _thumbnails(dict(zip(shown["sha256"], dataset.paths(shown), strict=True)), cache, _of_image, say)
        found.loc[shown.index, "thumbnail"] = [encoded(drawn[sha256]) for sha256 in shown["sha256"]]
        hidden = one_each[one_each["variant"] > 0]  # the set holds variants of these only: the source shows them
        folder = dataset.root / str(dataset.card.get("source", ""))
        paths = {row.source_sha256: folder / row.source for row in hidden.itertuples()}
        drawn = _thumbnails(paths, cache, _of_source, say)
        found.loc[hidden.index, "thumbnail"] = [
            encoded(drawn[sha256]) if sha256 in drawn else "" for sha256 in hidden["source_sha256"]
        ]
    return found[list(KINDS)]


def write(run: Path, dataset: Dataset, cache: Path, say: Say = lambda _: None) -> None:
    """Write what a run on a set has learnt from into its folder; `say` as `learnt` has it."""
    tables.write(run / NAME, learnt(dataset, cache, say))


def read(run: Path) -> Record | None:
    """What a run has learnt from; None if it is of a version that didn't keep that.

    Raises:
        LeakError: the file is damaged, or gone.
    """
    if checksums.altered(run, NAME):
        raise LeakError(f"{run / NAME} is damaged: it is not as `fit` wrote it; train the run again")
    try:
        return Record.of(tables.read(run / NAME, KINDS))
    except FileNotFoundError:
        return None
    except (tables.TableError, binascii.Error, ValueError) as error:
        words = str(error) if isinstance(error, tables.TableError) else f"{run / NAME} is damaged: {error}"
        raise LeakError(f"{words}; train the run again") from None


def find(record: Record, rows: pd.DataFrame, paths: Sequence[Path], *, by_group: bool) -> pd.Series:
    """Why each of some images was learnt from: one of REASONS, or nothing.

    Args:
        record: what was learnt from.
        rows: of a manifest.
        paths: their files.
        by_group: whether a group of the same name is the same one.
    """
    found = pd.Series("", rows.index)
    if by_group:
        found[called_alike(record, rows)] = "the same group"
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pictured = np.array(list(pool.map(lambda path: record.shows(path.read_bytes()), paths)), bool)
    found[pictured] = "the same pixels"
    found[rows["sha256"].isin(record.rows["sha256"])] = "the same file"
    found[rows["source_sha256"].isin(record.rows["source_sha256"])] = "the same source"
    return found


def called_alike(record: Record, rows: pd.DataFrame) -> pd.Series:
    """Which rows' groups have the names of groups that were learnt from."""
    return rows["group"].map(_digest).isin(record.groups())


def _digest(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()


def _thumbnails(
    paths: dict[str, Path], cache: Path, draw: Callable[[Path, str], Thumbnails | None], say: Say
) -> dict[str, Thumbnails]:
    """The thumbnails of image files by checksum, kept beside the activations: a second run reads no image.

    `draw` makes that of a file with a checksum; what it gives None for has none.
    """
    about = {"format": 1, "name": "thumbnails", "size": [SIDE, SIDE], "layers": []}
    store = Store(cache / "thumbnails", ((SIDE**2,),), np.dtype(np.uint8))
    wait = partial(say, f"Another run is computing activations in {cache}; waiting for its end ...")
    with locked(cache, wait), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        store.create(about)
        damaged = store.damaged(paths, lambda *_: None)
        if damaged:
            say(f"{store.folder}: damaged, so drawn again: the thumbnails of {len(damaged):,} images")
        whole = store.index().keys() - damaged
        missing = [sha256 for sha256 in paths if sha256 not in whole]
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            made = zip(chunk, pool.map(lambda sha256: draw(paths[sha256], sha256), chunk), strict=True)
            if drawn := {sha256: thumbnail for sha256, thumbnail in made if thumbnail is not None}:
                store.append(list(drawn), [np.stack(list(drawn.values()))])
                whole |= drawn.keys()
        index, (kept,) = store.index(), store.read()
        return {sha256: np.array(kept[index[sha256]]) for sha256 in paths if sha256 in whole}


def _of_image(path: Path, sha256: str) -> Thumbnails:
    """Of an image of the set, which has to be as the manifest says."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(f"{path}: not the image in the manifest; `python -m augment verify` says more")
    try:
        return thumbnail(data)
    except UnreadableImage as error:
        raise DatasetError(f"{path}: {error}; build the set again") from None


def _of_source(path: Path, sha256: str) -> Thumbnails | None:
    """Of a source, which may be gone or another by now."""
    data = path.read_bytes() if path.is_file() else b""
    try:
        return thumbnail(data) if hashlib.sha256(data).hexdigest() == sha256 else None
    except UnreadableImage:
        return None
