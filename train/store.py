"""Activations on disk, found by the checksum of the image they come from.

A store is a folder that only ever grows: `index` has a line for each image, its checksum, and each `N.bin` a
row of fixed size in the same order. The lines are written after the rows, so that a kill loses the rows that it
interrupts and no more; what lies beyond the index is overwritten.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the name bfloat16
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from manifests.contract import write_atomically

_LINE = 65  # bytes: a SHA-256 in hex and an end of line


class StoreError(ValueError):
    """The stores can't be worked on; the message names the place and the fix."""


@dataclass(frozen=True)
class Store:
    """The activations that one network's frozen part gave in one precision: for each image one row of each array."""

    folder: Path
    shapes: tuple[tuple[int, ...], ...]  # of a row of each array
    dtype: np.dtype

    def create(self, about: dict[str, Any]) -> None:
        """Make the folder if need be, with what its activations are of in about.json."""
        told = {**about, "shapes": self.shapes, "dtype": self.dtype.name}
        if not (self.folder / "about.json").is_file():
            write_atomically(self.folder / "about.json", json.dumps(told, indent=2) + "\n")

    @property
    def row_bytes(self) -> int:
        """Bytes that an image takes."""
        return sum(self._sizes) + _LINE

    @property
    def _sizes(self) -> list[int]:
        return [prod(shape) * self.dtype.itemsize for shape in self.shapes]

    def index(self) -> dict[str, int]:
        """Image checksum -> row, of all that is there in full."""
        try:
            text = (self.folder / "index").read_bytes()
        except FileNotFoundError:
            return {}
        return {text[at : at + 64].decode(): at // _LINE for at in range(0, len(text) // _LINE * _LINE, _LINE)}

    def append(self, checksums: Sequence[str], arrays: Sequence[NDArray[Any]]) -> None:
        """Add a batch of images, none of which is there; for one process at a time.

        Args:
            checksums: of the images' files, SHA-256 in hex.
            arrays: one of shape (images, *shape) for each of `shapes`.

        Raises:
            OSError: the disk is full, say. The store is as it was.
            ValueError: arrays of another shape.
        """
        lines = self.folder / "index"
        done = lines.stat().st_size // _LINE if lines.exists() else 0
        if [array.shape for array in arrays] != [(len(checksums), *shape) for shape in self.shapes]:
            raise ValueError(f"{self.folder}: rows of {[array.shape for array in arrays]}, expected {self.shapes}")
        for number, (array, size) in enumerate(zip(arrays, self._sizes, strict=True)):
            row = np.ascontiguousarray(array, self.dtype).reshape(-1)
            _write_at(self._file(number), done * size, row.view(np.uint8).data)
        _write_at(lines, done * _LINE, "".join(f"{checksum}\n" for checksum in checksums).encode())

    def read(self) -> list[NDArray[Any]]:
        """Each array, memory-mapped, shape (rows, *shape)."""
        rows = len(self.index())
        if not rows:
            return [np.zeros((0, *shape), self.dtype) for shape in self.shapes]
        return [np.memmap(self._file(n), self.dtype, "r", shape=(rows, *shape)) for n, shape in enumerate(self.shapes)]

    def keep(self, checksums: set[str]) -> int:
        """Drop all images but these, and the folder if none is left; gives how many went."""
        index = self.index()
        kept = [checksum for checksum in index if checksum in checksums]
        if len(kept) == len(index):
            return 0
        partial = replace(self, folder=self.folder.with_name(f".{self.folder.name}.partial"))
        shutil.rmtree(partial.folder, ignore_errors=True)
        arrays = self.read()
        if kept:
            partial.create(json.loads((self.folder / "about.json").read_text(encoding="utf-8")))
        try:
            for start in range(0, len(kept), 256):
                chunk = kept[start : start + 256]
                rows = [index[checksum] for checksum in chunk]
                partial.append(chunk, [array[rows] for array in arrays])
        except OSError:  # the disk is full, say
            shutil.rmtree(partial.folder, ignore_errors=True)
            raise
        shutil.rmtree(self.folder)
        if kept:
            os.replace(partial.folder, self.folder)
        return len(index) - len(kept)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.bin"


def stored(cache: Path) -> list[tuple[Store, dict[str, Any]]]:
    """The stores in a folder, by name, each with what its about.json says; what is none is passed over."""
    found = []
    for path in sorted(cache.glob("[!.]*/about.json")):  # a hidden one was being made when its writer was killed
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            shapes = tuple(tuple(int(n) for n in shape) for shape in about["shapes"])
            found.append((Store(path.parent, shapes, np.dtype(about["dtype"])), about))
        except (ValueError, KeyError, TypeError):
            continue
    return found


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One process at a time writes to the stores in a folder, or drops from them.

    Raises:
        StoreError: another is at it.
    """
    try:
        with FileLock(cache / ".lock", timeout=0):
            yield
    except Timeout:
        raise StoreError(
            f"{cache}: another run is computing activations; wait for it, or give --cache elsewhere"
        ) from None


def _write_at(path: Path, offset: int, data: bytes | memoryview) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())  # in this order on disk, too: a power cut finds no line without its rows
