"""A set in the making: its partial folder, and a journal with a line for each image that is whole.

The partial folder lies beside the image folder as `.NAME.partial`. It gets the set's name when all is there,
and last of all comes the manifest: where that exists, the set behind it is complete. An update goes the same
way back: the manifest goes first.
"""

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from augment.job import Written
from augment.scan import digest
from manifests import contract

MARKER, JOURNAL = ".evenset.json", ".journal.csv"  # in the partial folder; the marker stays in the finished one


def partial(images: Path) -> Path:
    """Where the images of a set are until all of them are there."""
    return images.with_name(f".{images.name}.partial")


def is_foreign(folder: Path) -> bool:
    """Whether something is at `folder` that Evenset did not put there."""
    if not folder.exists() or (folder / MARKER).is_file():
        return False
    return not folder.is_dir() or any(folder.iterdir())


def files_in(folder: Path) -> dict[str, int]:
    """The files below SPLIT/CLASS of an image folder: path relative to it -> time of change in ns."""
    found = {}
    start = len(f"{folder}/")
    for split in contract.SPLITS:
        with contextlib.suppress(FileNotFoundError):
            for label in os.scandir(f"{folder}/{split}"):
                # A stray file between the class folders (.DS_Store, say) is found too, to be dropped as any other.
                for entry in os.scandir(label.path) if label.is_dir() else [label]:
                    found[entry.path[start:].replace(os.sep, "/")] = entry.stat().st_mtime_ns
    return found


def reopen(images: Path, manifest: Path, prefix: str, style: dict[str, Any]) -> Path:
    """Make the partial folder ready, from a finished or an interrupted set if there is one of the same style.

    Returns:
        The partial folder. No manifest and no folder of the set's final name exist any more.
    """
    folder = partial(images)
    images.parent.mkdir(parents=True, exist_ok=True)
    if images.exists():
        with contextlib.suppress(contract.ContractError):
            if digest(manifest)[0] != contract.read_card(manifest).get("manifest_sha256"):
                raise contract.ContractError("not as it was written, so nothing in it is taken on trust")
            rows = contract.read(manifest)
            rows["path"] = rows["path"].str.removeprefix(f"{prefix}/")
            text = rows[list(Written._fields)].to_csv(index=False, lineterminator="\n")
            contract.write_atomically(images / JOURNAL, text)
    manifest.unlink(missing_ok=True)
    contract.card_path(manifest).unlink(missing_ok=True)
    if images.exists():
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(images, folder)
    text = json.dumps(style, sort_keys=True)
    if not (folder / MARKER).is_file() or (folder / MARKER).read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)  # never mix images of two styles
        folder.mkdir()
        contract.write_atomically(folder / MARKER, text)
    return folder


def close(folder: Path, images: Path, manifest: Path, rows: pd.DataFrame, card: dict[str, Any]) -> None:
    """Give a complete set its names: drop what is not in it, then name the folder, then write card and manifest."""
    wanted = set(rows["path"].map(lambda path: "/".join(path.split("/")[-3:])))
    for path in files_in(folder).keys() - wanted:
        (folder / path).unlink()
    for label in sorted(folder.glob("*/*/")):
        with contextlib.suppress(OSError):
            label.rmdir()  # only where it is empty
    os.sync()  # so that after a power cut, too, a manifest means a complete set
    os.replace(folder, images)
    contract.write(manifest, rows, card)
    (images / JOURNAL).unlink(missing_ok=True)


class Journal:
    """The journal of a partial folder, open for writing.

    `finished` holds, by path, the images that are there, are as recorded and still wanted.
    """

    def __init__(self, folder: Path, seeds: dict[str, int]) -> None:
        """Take up the journal in `folder` as far as it agrees with `seeds`, path -> seed of each image wanted."""
        self.path = folder / JOURNAL
        self.finished = {
            image.path: image
            for image in self._read()
            if seeds.get(image.path) == image.seed and digest(folder / image.path)[0] == image.sha256
        }

    def _read(self) -> Iterator[Written]:
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", newline="") as file:
            for line in csv.reader(file):
                # A kill may have torn the last line; anything odd is rendered again.
                with contextlib.suppress(ValueError, TypeError):
                    path, seed, transform, width, height, sha256 = line
                    yield Written(path, int(seed), transform, int(width), int(height), sha256)

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8", newline="")
        self._file.write("\n")  # ends a torn line
        self._writer = csv.writer(self._file, lineterminator="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, images: list[Written]) -> None:
        """Record images that are whole on disk."""
        self._writer.writerows(images)
        self._file.flush()
        self.finished.update((image.path, image) for image in images)
