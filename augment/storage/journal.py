"""The journal of a set in the making: a CSV line for each image that is whole on disk, and for each note on a source."""

import contextlib
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from augment.rendering.notes import Noted
from augment.rendering.tasks import Written
from augment.storage.image_folder import JOURNAL


def images_in(folder: Path) -> Iterator[Written]:
    """The images that the journal in a folder records, one by one: a million of them would fill the memory.

    The last record of an image is the one that counts.
    """
    for fields in _records(folder):
        with contextlib.suppress(ValueError):  # a wrong number of fields, too
            name, seed, transform, width, height, sha256 = fields
            yield Written(name, int(seed), transform, int(width), int(height), sha256)


def notes_in(folder: Path) -> set[Noted]:
    """The notes on sources that the journal in a folder records."""
    notes = set()
    for fields in _records(folder):
        with contextlib.suppress(ValueError):
            source, note, largest, source_sha256 = fields
            number = (int if largest.isdigit() else float)(largest) if largest else None
            notes.add(Noted(source, note, number, source_sha256))
    return notes


def _records(folder: Path) -> Iterator[list[str]]:
    """The lines of a journal; none without one.

    One that isn't whole is skipped: a kill may tear the last one anywhere, and its image is rendered again.
    """
    path = folder / JOURNAL
    if path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, csv.Error):  # a UnicodeDecodeError is a ValueError
                (fields,) = csv.reader([line.decode()], strict=True)
                yield fields


class Journal:
    """The journal of a partial folder, open for writing.

    `finished` holds the paths of the recorded images, `notes` the notes on their sources.
    """

    def __init__(self, folder: Path, finished: Iterable[str] = (), notes: Iterable[Noted] = ()) -> None:
        """Take up the journal in `folder`, of whose images `finished` are known to be there and as recorded."""
        self._path = folder / JOURNAL
        self.finished = set(finished)
        self.notes = set(notes)

    def __enter__(self) -> Self:
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._file.write("\n")  # ends a torn line
        self._writer = csv.writer(self._file, lineterminator="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.finished.clear()  # the file has them: of a million images, they would take a tenth of a gigabyte

    def add(self, images: Iterable[Written], notes: Iterable[Noted] = ()) -> None:
        """Record images that are whole on disk, and notes on their sources."""
        for note in sorted(set(notes) - self.notes):
            self._writer.writerow(note)
            self.notes.add(note)
        for image in images:
            self._writer.writerow(image)
            self.finished.add(image.path)
        self._file.flush()
