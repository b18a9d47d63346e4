"""Source folder -> its image files with split, class and inner folder, and all that is not taken, with the reason.

Reads SOURCE/CLASS/* and SOURCE/SPLIT/CLASS/*, and in a class folder CLASS/* and CLASS/PATIENT/*. No file is opened.
Every file below the source folder is either listed or rejected.
"""

import os
import unicodedata
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from augment.sources.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    NOTICE,
    ScanError,
    class_fault,
    expect_distinct,
    expect_no_splits,
    name_fault,
    split_of,
)
from common.errors import UNPRINTABLE

MASKS = "a folder of masks or labels beside one of images"
BESIDE = "beside the folders train, val and test"


class Rejected(NamedTuple):
    """A file or folder that was found but is not in the set. `source_sha256` is empty if it was never read."""

    source: str
    reason: str
    source_sha256: str = ""


class Listed(NamedTuple):
    """A file in a class folder. `split` is empty in a source without splits, `inner` is the folder below the class."""

    source: str  # POSIX, relative to the source folder
    split: str
    label: str
    inner: str


class Layout(NamedTuple):
    """What lies in a source folder: the files of its classes, what is rejected, and the classes that have a folder."""

    files: list[Listed]
    rejected: list[Rejected]
    labels: list[str]


def read_layout(source: Path) -> Layout:
    """List the files of a source folder.

    Returns:
        Files and rejected entries sorted by path. A class name is in Unicode's composed form (NFC), however its folder
        is spelt.

    Raises:
        ScanError: a folder can't be listed, a split's folder is a link out of the source, or two classes have names
            that look the same.
    """
    files: list[Listed] = []
    rejected: list[Rejected] = []
    labels: dict[str, str] = {}  # class -> the first folder of that name
    for split, folder in _class_folders(source, rejected):
        label = unicodedata.normalize("NFC", folder.name)
        labels.setdefault(label, _relative(folder, source))
        files += _files_of_class(folder, source, split, label, rejected)
    expect_distinct(labels, source)
    return Layout(sorted(files), sorted(rejected), sorted(labels))


def files_below(folder: Path) -> tuple[list[str], list[Rejected]]:
    """The files in a folder and its inner ones, however deep, relative to it and sorted, and what can't be a source.

    Raises:
        ScanError: a folder can't be listed.
    """
    rejected: list[Rejected] = []
    start = f"{folder}{os.sep}"  # a folder of "." is no prefix
    found = [entry.path.removeprefix(start).replace(os.sep, "/") for entry in _files_below(folder, folder, rejected)]
    return sorted(found), sorted(rejected)


def suggest(source: Path) -> str:
    """Name a folder near `source` that looks like a source folder: an inner one, or the one around it; or nothing."""
    below = [Path(entry.path) for entry in _folders(source)]
    deeper = [Path(entry.path) for folder in below for entry in _folders(folder)]
    around = [] if any(map(_leads_to_folder, _list(source))) else [source.resolve().parent]
    for folder in [*below, *deeper, *around]:
        if labels := _classes_in(folder):
            listed = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
            return f"{folder} looks right, it has class folders {listed}: give --source {folder}"
    return ""


def _classes_in(folder: Path) -> list[str]:
    """The names of the classes of a folder, if there are two and more that hold files, else none."""
    splits = [entry for entry in _folders(folder) if split_of(entry.name)]
    homes = [Path(entry.path) for entry in splits] or [folder]
    labels = {entry.name for home in homes for entry in _folders(home) if any(map(_is_visible_file, _list(entry.path)))}
    return sorted(labels) if len(labels) > 1 else []


def _is_visible_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    """The visible folders in a folder, without links."""
    return [entry for entry in _list(folder) if entry.is_dir(follow_symlinks=False) and entry.name[0] not in "._"]


def _list(folder: Path | str) -> list[os.DirEntry[str]]:
    """The entries of a folder by name; nothing where it can't be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError:
        return []


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError as error:
        raise ScanError(f"{folder}: can't be listed: {error.strerror}") from None


def _class_folders(source: Path, rejected: list[Rejected]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (split, folder) of each class folder; what lies beside one is rejected."""
    entries = [entry for entry in _entries(source) if not _is_notice(entry)]
    splits = _split_folders(source, entries)
    if not splits:
        folders = _folders(source)
        expect_no_splits(
            {folder.name: [entry.name for entry in _folders(Path(folder.path))] for folder in folders}, source
        )
    for entry in entries:
        if entry in splits:
            for inner in _entries(entry.path):
                if not _is_refused(inner, source, rejected, want_file=False):
                    yield split_of(entry.name), inner
        elif splits:
            rejected += _reject(entry, source, BESIDE)
        elif not _is_refused(entry, source, rejected, want_file=False):
            splits_inside = [inner.name for inner in _folders(Path(entry.path)) if split_of(inner.name)]
            if splits_inside:
                rejected += _reject(entry, source, f"no class folder: it holds {splits_inside[0]}/, a split's folder")
            else:
                yield "", entry


def _split_folders(source: Path, entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """The folders of train, val and test, if the source has any: a class may be called train, too.

    Folders of these names are splits if one of them holds folders, and classes if other classes lie beside them.
    """
    named = [entry for entry in entries if _leads_to_folder(entry) and split_of(entry.name)]
    others = [
        entry for entry in entries if _leads_to_folder(entry) and entry not in named and entry.name[0] not in "._"
    ]
    if others and not any(_leads_to_folder(inner) for entry in named for inner in _list(entry.path)):
        return []
    for entry in named:
        if entry.is_symlink() and (fault := _link_fault(Path(entry.path), source)):
            raise ScanError(f"{source / entry.name}: {fault}; put the folder itself there")
    return named


def _files_of_class(
    folder: os.DirEntry[str], source: Path, split: str, label: str, rejected: list[Rejected]
) -> Iterator[Listed]:
    """Yield the files in a class folder and in its inner folders, however deep; the rest is rejected."""
    entries = _entries(folder.path)
    has_images_folder = any(
        entry.is_dir(follow_symlinks=False) and IMAGE_FOLDERS.fullmatch(entry.name) for entry in entries
    )
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if _is_refused(entry, source, rejected, want_file=not is_folder):
            continue
        if not is_folder:
            yield Listed(_relative(entry, source), split, label, "")
        elif split_of(entry.name):
            rejected += _reject(entry, source, f"a split's folder below the class {label}; expected SPLIT/CLASS/*")
        elif not _list(entry.path):
            rejected.append(Rejected(_relative(entry, source), "an empty folder"))
        elif has_images_folder and MASK_FOLDERS.fullmatch(entry.name):
            rejected += _reject(entry, source, MASKS)
        else:
            inner = "" if IMAGE_FOLDERS.fullmatch(entry.name) else unicodedata.normalize("NFC", entry.name)
            for file in _files_below(entry.path, source, rejected):
                yield Listed(_relative(file, source), split, label, inner)


def _files_below(folder: Path | str, source: Path, rejected: list[Rejected]) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        if entry.is_file(follow_symlinks=False) and not name_fault(
            entry.name
        ):  # nearly all: a million are soon gone through
            yield entry
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if not _is_refused(entry, source, rejected, want_file=not is_folder):
            if is_folder:
                yield from _files_below(entry.path, source, rejected)
            else:
                yield entry


def _is_refused(entry: os.DirEntry[str], source: Path, rejected: list[Rejected], *, want_file: bool) -> bool:
    """Reject an entry that can't be what is wanted in its place, with all that is below it."""
    reason = _fault(entry, source, want_file=want_file)
    if reason:
        rejected += _reject(entry, source, reason)
    return bool(reason)


def _fault(entry: os.DirEntry[str], source: Path, *, want_file: bool) -> str:
    if fault := name_fault(entry.name):
        return fault
    if entry.is_symlink() and (fault := _link_fault(Path(entry.path), source)):
        return fault
    if want_file:
        if entry.is_dir():
            return "a link to a folder inside a class folder; its files are not read"
        return "" if entry.is_file() else "not a regular file"
    if not entry.is_dir():
        return "not in a class folder"
    return class_fault(entry.name)


def _reject(entry: os.DirEntry[str], source: Path, reason: str) -> Iterator[Rejected]:
    """An entry as rejected, file by file if it is a folder that holds any; links are not followed."""
    files = chain.from_iterable(
        _reject(inner, source, reason) for inner in (_list(entry.path) if entry.is_dir(follow_symlinks=False) else ())
    )
    first = next(files, Rejected(_relative(entry, source), reason))
    yield first
    yield from files


def _link_fault(link: Path, source: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop
        return "a link that leads nowhere"
    if not target.is_relative_to(source.resolve()):
        return "a link that leads out of the source folder"
    return "a link that leads back to a folder around it" if link.parent.resolve().is_relative_to(target) else ""


def _is_notice(entry: os.DirEntry[str]) -> bool:
    return entry.name == NOTICE and entry.is_file(follow_symlinks=False)


def _relative(entry: os.DirEntry[str], source: Path) -> str:
    """The path that an entry is listed by; what can't be printed, and is in no source's name, is escaped."""
    path = entry.path.removeprefix(f"{source}{os.sep}").replace(os.sep, "/")  # a source of "." may be no prefix
    return path.encode("unicode_escape").decode() if UNPRINTABLE.search(path) else path
