"""The journal of a set in the making: a CSV line for each image that is whole on disk, and for each note on a source."""

import csv
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from augment.rendering.notes import Noted
from augment.rendering.tasks import Written
from augment.storage.image_folder import JOURNAL


def read_journal(folder: Path) -> tuple[list[Written], set[Noted]]:
    """The images and notes that the journal in a folder records; nothing without one.

    A line that isn't whole, or is no record, is skipped: a kill may tear the last one anywhere, and its image is rendered
    again.
    """
    images: list[Written] = []
    notes: set[Noted] = set()
    path = folder / JOURNAL
    if path.is_symlink() or not path.is_file():
        return images, notes
    with path.open("rb") as file:
        for line in file:
            try:
                (fields,) = csv.reader([line.decode()], strict=True)
                if len(fields) == len(Noted._fields):
                    source, note, largest, source_sha256 = fields
                    number = (int if largest.isdigit() else float)(largest) if largest else None
                    notes.add(Noted(source, note, number, source_sha256))
                else:
                    name, seed, transform, width, height, sha256 = fields
                    images.append(Written(name, int(seed), transform, int(width), int(height), sha256))
            except (ValueError, csv.Error):  # a UnicodeDecodeError is a ValueError, as is a wrong number of fields
                continue
    return images, notes


class Journal:
    """The journal of a partial folder, open for writing.

    `finished` holds the recorded images by path, `notes` the notes on their sources.
    """

    def __init__(self, folder: Path, finished: Iterable[Written] = (), notes: Iterable[Noted] = ()) -> None:
        """Take up the journal in `folder`, of whose images `finished` are known to be there and as recorded."""
        self._path = folder / JOURNAL
        self.finished = {image.path: image for image in finished}
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

    def add(self, images: Iterable[Written], notes: Iterable[Noted] = ()) -> None:
        """Record images that are whole on disk, and notes on their sources."""
        for note in sorted(set(notes) - self.notes):
            self._writer.writerow(note)
            self.notes.add(note)
        for image in images:
            self._writer.writerow(image)
            self.finished[image.path] = image
        self._file.flush()
