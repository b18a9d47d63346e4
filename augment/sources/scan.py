"""Source folder -> table of source images, and the files that are none.

Nothing is decoded here: a file's first bytes show whether it is an image at all, and its bytes are hashed, since the
checksum is what seeds, duplicates and reuse go by. What can't be a source is rejected with a reason; nothing that was
found is left out.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augment.recipe import KERMANY
from augment.sources.groups import find_groups
from augment.sources.layout import NOTICE, Layout, Listed, Rejected, ScanError, read_layout, suggest
from common.images.formats import FORMATS, HEAD, looks_like_image

_CHUNK = 64  # files a thread hashes at a time
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe is not waited for
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

Progress = Callable[[int, int], None]


class Scan(NamedTuple):
    """What lies in a source folder.

    `sources` has the string columns source (POSIX, relative to the source folder), split (train, val, test,
    or empty where the folder has no splits), label, group and source_sha256, sorted by source.
    """

    sources: pd.DataFrame
    rejected: list[Rejected]
    notice: str


def scan(source: Path, group: str, workers: int, progress: Progress = lambda *_: None) -> Scan:
    """List and hash the images of `source`.

    Args:
        source: folder of class folders, or of train, val and test folders of class folders.
        group: regular expression; its first group, found in a file's name, is whom the image shows.
        workers: threads that read and hash.
        progress: called with (files done, files in all).

    Raises:
        ScanError: no such folder, fewer than two classes with images in them, a class without any, or as `read_layout`
            has it.
    """
    if not source.is_dir():
        raise ScanError(f"{source}: no such folder; --source takes a folder with one sub-folder a class")
    layout = read_layout(source)
    images, digests, rejected = _hash_images(source, layout, workers, progress)
    labels = {file.label for file in images}
    if len({file.label for file in layout.files}) < 2:
        raise ScanError(_too_few_classes(source, layout))
    for label in layout.labels:
        if label not in labels:
            inside = (entry for entry in rejected if label in entry.source.split("/")[:-1])
            fault = next((f" ({entry.source}: {entry.reason})" for entry in inside), "")
            raise ScanError(f"{source}: class {label}: no readable image{fault}; add images or move the folder away")
    groups = find_groups(images, group, KERMANY)
    columns = ["source", "split", "label", "group", "source_sha256"]
    rows = [
        (file.source, file.split, file.label, of, sha256)
        for file, of, sha256 in zip(images, groups, digests, strict=True)
    ]
    return Scan(pd.DataFrame(rows, columns=columns, dtype=object), rejected, _notice(source))


def _hash_images(
    source: Path, layout: Layout, workers: int, progress: Progress
) -> tuple[list[Listed], list[str], list[Rejected]]:
    """The files that begin as images do, their checksums, and all that is rejected, each sorted by path."""
    images, digests, rejected = [], [], list(layout.rejected)
    hashed = digest_all([f"{source}/{file.source}" for file in layout.files], workers, progress, images_only=True)
    for file, (sha256, error) in zip(layout.files, hashed, strict=True):
        if error:
            rejected.append(Rejected(file.source, error))
        else:
            images.append(file)
            digests.append(sha256)
    return images, digests, sorted(rejected)


def digest_all(
    paths: Sequence[str | Path],
    workers: int | None,
    progress: Progress,
    *,
    images_only: bool = False,
    follow: bool = True,
) -> Iterator[tuple[str, str]]:
    """The `digest` of each file in order, read by `workers` threads; `progress` is called with (files done, in all)."""

    def digests(chunk: Sequence[str | Path]) -> list[tuple[str, str]]:
        return [digest(path, images_only=images_only, follow=follow) for path in chunk]

    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for chunk in pool.map(digests, chunks):
            yield from chunk
            done += len(chunk)
            progress(done, len(paths))


def digest(path: str | Path, *, images_only: bool = False, follow: bool = True) -> tuple[str, str]:
    """The SHA-256 of a regular file in hex and no error, or nothing and why there is none.

    Args:
        path: the file.
        images_only: read only the beginning of a file that begins as no image does, and give that as the error.
        follow: take a symbolic link for the file it leads to, rather than for a fault.
    """
    try:
        descriptor = os.open(path, _OPEN | (0 if follow else _NO_FOLLOW))
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                return "", "can't be read: Is a directory" if stat.S_ISDIR(mode) else "not a regular file"
            with open(descriptor, "rb", buffering=0, closefd=False) as file:  # no Path has a descriptor
                if images_only and (fault := _no_image(file.read(HEAD))):
                    return "", fault
                file.seek(0)
                return hashlib.file_digest(file, "sha256").hexdigest(), ""
        finally:
            os.close(descriptor)
    except OSError as error:
        if not follow and os.path.islink(path):  # noqa: PTH114  # may be text
            return "", "a symbolic link"
        return "", f"can't be read: {error.strerror}"


def _no_image(head: bytes) -> str:
    """Why a file with these first bytes is no image; empty if it begins as one."""
    if not head:  # any two would be identical images
        return "empty file (0 bytes)"
    return "" if looks_like_image(head) else f"not an image of a known format ({', '.join(FORMATS)})"


def _too_few_classes(source: Path, layout: Layout) -> str:
    """Why there is nothing to choose between, with the first reason and what to do."""
    labels = sorted({file.label for file in layout.files})
    found = f"{source}: found {len(layout.files)} files in {len(labels)} classes"
    found += ", but at least 2 are needed; expected SOURCE/CLASS/* or SOURCE/{train,val,test}/CLASS/*"
    if hint := suggest(source):
        return f"{found}. {hint}"
    if layout.rejected:
        first = layout.rejected[0]
        return f"{found}. First of {len(layout.rejected):,} rejected: {first.source}: {first.reason}"
    return found


def _notice(source: Path) -> str:
    path = source / NOTICE
    if path.is_symlink() or not path.is_file():  # a link may lead to a file that is nobody's to publish
        return ""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return " ".join(file.read(10_000).split())[:500]
    except OSError:
        return ""
