"""Activations on disk, found by the checksum of the image they come from.

A store is a folder that only ever grows: `index` has a line for each image, its checksum and that of its activations,
and each `N.bin` a row of fixed size in the same order. The lines are written after the rows, so that a kill loses the
rows that it interrupts and no more; what lies beyond the index is overwritten.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the names bfloat16 and float8_e4m3fn
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from common.errors import UserError
from common.files import write_atomically

FORMAT = 4  # raise when what is stored changes, or how an image is read and preprocessed
_LINE = 74  # bytes: a SHA-256 and a CRC-32 in hex, a space and an end of line
_ENTRY = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{8})\n")
_DTYPES = ("float32", "bfloat16", "float8_e4m3fn")
_CHUNK = 64  # rows that a thread checks at a time
_MOST_ABOUT = 10**5  # bytes; an about.json has a few hundred


class StoreError(UserError):
    """The stores can't be worked on; the message names the place and the fix."""


@dataclass(frozen=True)
class Store:
    """The activations that one network's frozen part gave in one precision: for each image one row of each array."""

    folder: Path
    shapes: tuple[tuple[int, ...], ...]  # of a row of each array
    dtype: np.dtype

    def create(self, about: Mapping[str, Any]) -> None:
        """Make the folder if need be, with the description of its activations in about.json."""
        text = json.dumps({**about, "shapes": self.shapes, "dtype": self.dtype.name}, indent=2) + "\n"
        path = self.folder / "about.json"
        if _read(path, _MOST_ABOUT) != text.encode():
            write_atomically(path, text)

    @property
    def row_bytes(self) -> int:
        """Bytes that an image takes."""
        return sum(self._sizes) + _LINE

    @property
    def rows(self) -> int:
        """Rows that all of its arrays have in full, whatever the index says."""
        return min(_size(self._file(number)) // size for number, size in enumerate(self._sizes))

    @property
    def _done(self) -> int:
        """Rows that the index has a line for, too; the next one is written behind them."""
        return min(_size(self.folder / "index") // _LINE, self.rows)

    @property
    def _sizes(self) -> list[int]:
        return [prod(shape) * self.dtype.itemsize for shape in self.shapes]

    def index(self) -> dict[str, int]:
        """Image checksum -> row, of all that is there in full."""
        return {checksum: row for checksum, (row, _) in self._entries().items()}

    def _entries(self) -> dict[str, tuple[int, int]]:
        """Image checksum -> row and CRC-32; a damaged line is passed over, and of two for one image the last counts."""
        text = _read(self.folder / "index")
        found = {}
        for row in range(self._done):
            entry = _ENTRY.fullmatch(text, row * _LINE, (row + 1) * _LINE)
            if entry:
                found[entry[1].decode()] = (row, int(entry[2], 16))
        return found

    def damaged(self, checksums: Iterable[str], progress: Callable[[int, int], None]) -> set[str]:
        """Those images whose activations aren't what was written, among some that are there.

        Args:
            checksums: of the images' files; those that aren't there are passed over.
            progress: called with (images checked, images to check).
        """
        entries = self._entries()
        wanted = [(checksum, *entries[checksum]) for checksum in checksums if checksum in entries]
        chunks = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
        found: set[str] = set()
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # neither reading nor CRC-32 holds the interpreter's lock
            for number, wrong in enumerate(pool.map(self._damaged, chunks)):
                found |= wrong
                progress(min((number + 1) * _CHUNK, len(wanted)), len(wanted))
        return found

    def _damaged(self, entries: list[tuple[str, int, int]]) -> set[str]:
        with ExitStack() as stack:
            files = [stack.enter_context(self._file(number).open("rb")) for number in range(len(self.shapes))]
            found = set()
            for checksum, row, expected in entries:
                state = zlib.crc32(checksum.encode())
                try:
                    for file, size in zip(files, self._sizes, strict=True):
                        file.seek(row * size)
                        state = zlib.crc32(file.read(size), state)
                except OSError:  # the disk can't read it
                    state = -1
                if state != expected:
                    found.add(checksum)
            return found

    def append(self, checksums: Sequence[str], arrays: Sequence[NDArray[Any]]) -> None:
        """Add a batch of images; for one process at a time. Of an image that is there already, the new row counts.

        Args:
            checksums: of the images' files, SHA-256 in hex.
            arrays: one of shape (images, *shape) for each of `shapes`.

        Raises:
            OSError: the disk is full, say. The store is as it was.
            ValueError: arrays of another shape.
        """
        lines = self.folder / "index"
        done = self._done
        if [array.shape for array in arrays] != [(len(checksums), *shape) for shape in self.shapes]:
            raise ValueError(f"{self.folder}: rows of {[array.shape for array in arrays]}, expected {self.shapes}")
        states = [zlib.crc32(checksum.encode()) for checksum in checksums]
        for number, (array, size) in enumerate(zip(arrays, self._sizes, strict=True)):
            data = np.ascontiguousarray(array, self.dtype).reshape(-1).view(np.uint8).data
            states = [zlib.crc32(data[at * size : (at + 1) * size], state) for at, state in enumerate(states)]
            _write_at(self._file(number), done * size, data)
        text = "".join(f"{checksum} {state:08x}\n" for checksum, state in zip(checksums, states, strict=True))
        _write_at(lines, done * _LINE, text.encode())

    def read(self) -> list[NDArray[Any]]:
        """Each array, memory-mapped, shape (rows, *shape)."""
        rows = self._done
        if not rows:
            return [np.zeros((0, *shape), self.dtype) for shape in self.shapes]
        return [np.memmap(self._file(n), self.dtype, "r", shape=(rows, *shape)) for n, shape in enumerate(self.shapes)]

    def keep(self, checksums: set[str]) -> int:
        """Drop all images but these, and the folder if none is left; gives how many went."""
        index = self.index()
        kept = [checksum for checksum in index if checksum in checksums]
        if kept and len(kept) == len(index):
            return 0
        # What is damaged must not get a new checksum, with which it would pass for whole.
        wrong = self.damaged(kept, lambda *_: None)
        kept = [checksum for checksum in kept if checksum not in wrong]
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


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """The packages, with their versions, that decide what activations are: Keras, TensorFlow, and what an engine needs."""
    return {package: version(package) for package in ("keras", "tensorflow", *packages)}


def is_stale(about: Mapping[str, Any]) -> bool:
    """Whether a store's activations are another Evenset's or other packages', so that no run takes them any more.

    A package that isn't installed now says nothing: it may come back as it was.
    """
    if about.get("format") != FORMAT or not isinstance(about.get("versions"), dict):
        return True
    for package, kept in about["versions"].items():
        try:
            if package in ("keras", "tensorflow", "openvino", "nncf") and version(package) != kept:
                return True
        except PackageNotFoundError:
            continue
    return False


def stored(cache: Path) -> list[tuple[Store, dict[str, Any]]]:
    """The stores in a folder, by name, each with its about.json; what is none is passed over."""
    found = []
    for path in sorted(cache.glob("[!.]*/about.json")):  # a hidden one was being made when its writer was killed
        if path.parent.is_symlink():
            continue
        try:
            about = json.loads(_read(path, _MOST_ABOUT))
            shapes = tuple(tuple(shape) for shape in about["shapes"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        sides = [side for shape in shapes for side in shape]
        if shapes and all(shapes) and about.get("dtype") in _DTYPES and all(_is_side(side) for side in sides):
            found.append((Store(path.parent, shapes, np.dtype(about["dtype"])), about))
    return found


def taken(cache: Path) -> int:
    """Bytes that the stores in a folder take."""
    return sum(_size(path) for store, _ in stored(cache) for path in store.folder.iterdir())


@contextmanager
def locked(cache: Path, wait: Callable[[], None] | None = None) -> Iterator[None]:
    """One process at a time writes to the stores in a folder, or drops from them.

    Args:
        cache: the folder; it is made if need be.
        wait: called once before waiting for another process to end; None: don't wait.

    Raises:
        StoreError: another is at it, and this one doesn't wait.
    """
    cache.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if wait is None:
            raise StoreError(
                f"{cache}: another run is computing activations; wait for it, or give --cache elsewhere"
            ) from None
        wait()
        lock.acquire(timeout=-1, poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value < 2**24


def _size(path: Path) -> int:
    """Bytes of a regular file; 0 for what isn't there or is something else."""
    return path.stat().st_size if path.is_file() else 0


def _read(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file, at most some; none for what isn't there or is something else: a FIFO would wait."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read() if most is None else file.read(most)


def _write_at(path: Path, offset: int, data: bytes | memoryview) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())  # in this order on disk, too: a power cut finds no line without its rows
