"""What the user names (files, folders, lists) -> the files to predict, each with the reason if it can't be read."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common.lists import tables
from common.lists.lookup import Lookup

_ADDRESS = re.compile(r"[A-Za-z0-9]{2,}:/[^/]")  # of whose two slashes a path keeps one; a drive is one letter
_HINT = "Say which columns hold what: --columns path=COLUMN"


class Found(NamedTuple):
    """A file to predict: `path` as the user's words give it, `name` within the folder given, or why it can't be read."""

    path: Path
    name: str
    error: str = ""


def listed(places: Sequence[Path], columns: Mapping[str, str] | None = None) -> list[Found]:
    """The files named, those of the folders named, at any depth, sorted, and those that lists name; each once.

    As when a set is built, what an image is its content says and not its name, so that every file is tried. Hidden
    files and folders are named and not read, and links to folders are not followed.
    """
    found: list[Found] = []
    for place in places:
        if is_list(place):
            found += read_list(place, columns or {}, ())[0]
        else:
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


def is_list(place: Path) -> bool:
    """Whether a file is a list of images by its name: CSV, TSV (or .gz of them) or Parquet."""
    return place.name.lower().removesuffix(".gz").endswith(tables.LISTS) and place.is_file()


def read_list(place: Path, columns: Mapping[str, str], wanted: Sequence[str]) -> tuple[list[Found], pd.DataFrame]:
    """The images that a list names, in its order, and what it says of them.

    Args:
        place: of the list. Files are looked up below its folder, by the end of their path.
        columns: which columns hold path, label and group, where they are called otherwise.
        wanted: of these, the ones to read beside path.

    Returns:
        A file a row, then those of rows that are broken; and of the others the wanted columns, as text.

    Raises:
        ListError: the list can't be read, or lacks a column.
    """
    names = [columns.get(name, name) for name in ("path", *wanted)]
    rows, broken = tables.read(place, names, _HINT)
    below = {entry.name: entry for entry in _inside(place.parent)}
    paths = rows[names[0]].tolist()
    files, reasons = Lookup(sorted(below)).find_all(paths)
    found = [
        below[name]._replace(name=path) if name else Found(place.parent / path, path, reasons[path])
        for path, name in zip(paths, files, strict=True)
    ]
    found += [Found(place.parent / where, where, fault) for where, fault in broken]
    return found, rows[names[1:]].set_axis(list(wanted), axis=1).reset_index(drop=True)


def _fault(path: Path) -> str:
    """Why a path is no file that can be read, or nothing."""
    if path.is_file():
        return ""
    if _ADDRESS.match(str(path)) and not os.path.lexists(path):
        return "an address, which only `augment` reads; copy its images here"
    return "not a regular file" if os.path.lexists(path) else "no such file or folder"


def _unlisted(error: OSError, place: Path) -> Found:
    return Found(Path(error.filename or place), place.name, f"can't be listed: {error.strerror}")
