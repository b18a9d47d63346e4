"""Source folder -> table of source images, and the files that are none.

Reads SOURCE/{train,val,test}/CLASS/* and SOURCE/CLASS/*. Nothing is decoded here: a file's bytes are only
hashed, since the checksum is what seeds, duplicates and reuse go by. What can't be a source is rejected
with a reason; nothing that was found is left out.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from manifests.contract import SPLITS

# The notice that a source folder carries (licence, citation, "synthetic"): the card hands it on.
NOTICE = "NOTICE"
_CHUNK = 64  # files a thread hashes at a time
_NOTHING = hashlib.sha256().hexdigest()
# Control characters, also of lines and of writing direction, a backslash, and what stands for bytes that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")


class ScanError(ValueError):
    """The source folder can't be used; the message names it and the fix."""


class Rejected(NamedTuple):
    """A file or folder that was found but is not in the set. `source_sha256` is empty if it was never read."""

    source: str
    reason: str
    source_sha256: str = ""


class Scan(NamedTuple):
    """What lies in a source folder.

    `sources` has the string columns source (POSIX, relative to the source folder), split (train, val, test,
    or empty where the folder has no splits), label, group and source_sha256, sorted by source.
    """

    sources: pd.DataFrame
    rejected: list[Rejected]
    notice: str


def scan(source: Path, group: str, workers: int, progress: Callable[[int, int], None] = lambda *_: None) -> Scan:
    """List and hash the images of `source`.

    Args:
        source: folder of class folders, or of train, val and test folders of class folders.
        group: regular expression; its first group, found in a file's name, is whom the image shows.
        workers: threads that read and hash.
        progress: called with (files done, files in all).

    Raises:
        ScanError: no such folder, fewer than two classes with files in them, a class without any, or a link in place of
            a split's folder that leads out of the source.
    """
    if not source.is_dir():
        raise ScanError(f"{source}: no such folder; --source takes a folder with one sub-folder a class")
    rejected: list[Rejected] = []
    classes = list(_classes(source, rejected))
    found = sorted(_images(source, classes, rejected))
    if len({label for _, _, label in found}) < 2:
        raise ScanError(
            f"{source}: found {len(found)} files in {len({label for _, _, label in found})} classes, but at least 2 "
            "are needed; expected SOURCE/CLASS/* or SOURCE/{train,val,test}/CLASS/*"
        )
    rows = []
    digests = digest_all([f"{source}/{name}" for name, _, _ in found], workers, progress)
    for (name, split, label), (sha256, error) in zip(found, digests, strict=True):
        if error or sha256 == _NOTHING:
            rejected.append(Rejected(name, error or "empty file (0 bytes)"))  # else any two would be identical images
        else:
            rows.append((name, split, label, group_of(name, group), sha256))
    for label in sorted({folder.name for _, folder in classes} - {row[2] for row in rows}):
        faults = (
            f" ({entry.source}: {entry.reason})" for entry in sorted(rejected) if label in entry.source.split("/")[:-1]
        )
        raise ScanError(
            f"{source}: class {label}: no readable image{next(faults, '')}; add images or move the folder away"
        )
    sources = pd.DataFrame(rows, columns=["source", "split", "label", "group", "source_sha256"], dtype=object)
    return Scan(sources, sorted(rejected), _notice(source))


def group_of(source: str, pattern: str) -> str:
    """Whom an image shows, by its file name; a name that doesn't match is a group of its own."""
    match = re.match(pattern, source.rpartition("/")[2])
    return match[1] if match and match[1] else source


def digest_all(
    paths: Sequence[str | Path], workers: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, str]]:
    """The `digest` of each file in order, read by `workers` threads; `progress` is called with (files done, in all)."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for chunk in pool.map(lambda chunk: [digest(path) for path in chunk], chunks):
            yield from chunk
            done += len(chunk)
            progress(done, len(paths))


def digest(path: str | Path) -> tuple[str, str]:
    """The SHA-256 of a file in hex and no error, or nothing and why it could not be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a Path is made 20 times slower than a file is opened
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except OSError as error:
        return "", f"can't be read: {error.strerror}"


def _classes(source: Path, rejected: list[Rejected]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (split, folder) of each class folder; what lies beside one is rejected."""
    splits = [name for name in SPLITS if (source / name).is_dir()]
    for name in splits:
        if (source / name).is_symlink() and (fault := _link_fault(source / name, source)):
            raise ScanError(f"{source / name}: {fault}; put the folder itself there")
    for split, folder in [(name, source / name) for name in splits] or [("", source)]:
        for entry in _entries(folder):
            if not (folder == source and _is_notice(entry)) and not _refused(entry, source, rejected):
                yield split, entry
    if splits:
        beside = [entry for entry in _entries(source) if entry.name not in splits and not _is_notice(entry)]
        rejected += [Rejected(_relative(entry, source), "beside the folders train, val and test") for entry in beside]


def _images(
    source: Path, classes: list[tuple[str, os.DirEntry[str]]], rejected: list[Rejected]
) -> Iterator[tuple[str, str, str]]:
    """Yield (path relative to source, split, label) of each file in a class folder; the rest is rejected."""
    for split, folder in classes:
        for file in _entries(Path(folder.path)):
            if not _refused(file, source, rejected, want_file=True):
                yield _relative(file, source), split, folder.name


def _refused(entry: os.DirEntry[str], source: Path, rejected: list[Rejected], *, want_file: bool = False) -> bool:
    reason = ""
    if _UNPRINTABLE.search(entry.name):
        reason = "a name with control characters, a backslash or bytes that are not UTF-8; rename it"
    elif entry.name.startswith("."):
        reason = "hidden"
    elif entry.is_symlink() and (fault := _link_fault(Path(entry.path), source)):
        reason = fault
    elif want_file and entry.is_dir():
        reason = "a folder inside a class folder; its files are not read"
    elif want_file and not entry.is_file():
        reason = "not a regular file"
    elif not want_file and not entry.is_dir():
        reason = "not in a class folder"
    elif not want_file and _DRIVE.match(entry.name):
        reason = "a class name that starts as a Windows drive does; rename it"  # no path of a manifest may
    if reason:
        rejected.append(Rejected(_relative(entry, source), reason))
    return bool(reason)


def _link_fault(link: Path, source: Path) -> str:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop
        return "a link that leads nowhere"
    return "" if target.is_relative_to(source.resolve()) else "a link that leads out of the source folder"


def _is_notice(entry: os.DirEntry[str]) -> bool:
    return entry.name == NOTICE and entry.is_file(follow_symlinks=False)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ScanError(f"{folder}: can't be listed: {error.strerror}") from None


def _relative(entry: os.DirEntry[str], source: Path) -> str:
    """The path that a file is told by; what can't be printed, and is in no source's name, is escaped."""
    path = entry.path.removeprefix(f"{source}{os.sep}").replace(os.sep, "/")  # a source of "." may be no prefix
    return path.encode("unicode_escape").decode() if _UNPRINTABLE.search(path.replace("\\", "")) else path


def _notice(source: Path) -> str:
    try:
        text = (source / NOTICE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return " ".join(text.split())[:500]
