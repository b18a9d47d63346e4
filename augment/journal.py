"""The journal of a set in the making: a CSV line for each image that is whole on disk."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from augment.image_folder import JOURNAL
from augment.job import Written


def read_journal(folder: Path) -> Iterator[Written]:
    """The images that the journal in a folder records; nothing without one.

    A line that isn't whole, or is no record, is skipped: a kill may tear the last one anywhere, and its image is rendered
    again.
    """
    path = folder / JOURNAL
    if path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                ((name, seed, transform, width, height, sha256),) = csv.reader([line.decode()], strict=True)
                yield Written(name, int(seed), transform, int(width), int(height), sha256)
            except (ValueError, csv.Error):  # a UnicodeDecodeError is a ValueError, as is a wrong number of fields
                continue


class Journal:
    """The journal of a partial folder, open for writing. `finished` holds the recorded images by path."""

    def __init__(self, folder: Path, finished: Iterable[Written]) -> None:
        """Take up the journal in `folder`, of whose images `finished` are known to be there and as recorded."""
        self._path = folder / JOURNAL
        self.finished = {image.path: image for image in finished}

    def __enter__(self) -> Self:
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._file.write("\n")  # ends a torn line
        self._writer = csv.writer(self._file, lineterminator="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, images: Iterable[Written]) -> None:
        """Record images that are whole on disk."""
        for image in images:
            self._writer.writerow(image)
            self.finished[image.path] = image
        self._file.flush()
