"""Source folder or list -> table of source images, and the files that are none.

Nothing is decoded here: a file's first bytes show whether it is an image at all, and its bytes are hashed, since the
checksum is what seeds, duplicates and reuse go by. What can't be a source is rejected with a reason; nothing that was
found is left out.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import pandas as pd

from augment.list_format import ListFormat
from augment.recipe import KERMANY
from augment.sources.dicom_tags import GroupTag, read_headers
from augment.sources.groups import find_groups, groups_of_list
from augment.sources.layout import Rejected, read_layout, suggest
from augment.sources.lists import read_list
from augment.sources.names import NOTICE, ScanError
from augment.sources.objects import layout_of
from common.images.formats import FORMATS, HEAD, format_of
from common.lists.tables import LISTS
from common.remote import Location, Remote
from common.workers.cluster import Cluster
from common.workers.dispatch import in_order
from common.workers.process_pool import WorkerDied

_SILENT = 10  # files of a store, none of which can be read, after which it is the store's fault
_CHUNK = 128  # files a task
_BLOCK = 2**20  # bytes of a store's file that are hashed at a time
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe is not waited for
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

Progress = Callable[[int, int], None]


class Scan(NamedTuple):
    """What a source has.

    `sources` has the string columns source (POSIX, relative to `folder`), split (train, val, test, or empty where there
    are no splits), label, group and source_sha256, sorted by source. `list_file` is the list, or the folder of lists, that
    was read by `list_format`; both are None for a folder of class folders.
    """

    sources: pd.DataFrame
    rejected: list[Rejected]
    notice: str
    folder: Location
    list_file: Location | None = None
    list_format: ListFormat | None = None
    has_dicom: bool = False
    tag: str = ""  # by which DICOM files were grouped
    key_check: str = ""  # of the key that it was hashed with
    warnings: tuple[str, ...] = ()  # of a list's rules and of DICOM headers


class Digest(NamedTuple):
    """The SHA-256 of a file in hex, or nothing and why there is none; and which format it begins, if it was looked at."""

    sha256: str
    error: str = ""
    format: str = ""


def scan(
    source: Location,
    group: str,
    executor: Executor,
    progress: Progress = lambda *_: None,
    list_format: ListFormat | None = None,
    group_tag: GroupTag | None = None,
) -> Scan:
    """List and hash the images of `source`.

    Args:
        source: folder of class folders, or of train, val and test folders of class folders; or a list of images.
        group: regular expression; its first group is whom the image shows. It is matched at the start of a file's name,
            and of a list without a column for that, searched in the whole path.
        executor: reads and hashes.
        progress: called with (files done, files in all).
        list_format: how a list is read; None: by its columns path, label, and group and split if it has them.
        group_tag: says whom DICOM files show; None: the same as of other files.

    Raises:
        ScanError: no such folder or list, fewer than two classes with images in them, a class without any, or as
            `read_layout`, `read_list` and `read_headers` have it.
    """
    list_file: Location | None = None
    warnings: list[str] = []
    if _is_list(source, list_format):
        listing = read_list(source, list_format, has_pattern=group != KERMANY)
        list_file, list_format = source, listing.list_format
        folder, files, rejected, warnings = listing.folder, listing.files, listing.rejected, listing.warnings
        labels = sorted(files["label"].unique())
        files["group"] = groups_of_list(files, group, KERMANY)
        hint = f"; its paths are looked up below {folder}, which list.images in the recipe says"
    elif isinstance(source, Path) and not source.is_dir():
        what = "file" if source.name.lower().removesuffix(".gz").endswith(LISTS) else "folder"
        raise ScanError(f"{source}: no such {what}; --source takes a folder with one sub-folder a class, or a list")
    elif list_format:
        raise ScanError(f"{source} is a folder, and the recipe reads a list; give --source the list, or set list.files")
    else:
        layout = read_layout(source) if isinstance(source, Path) else layout_of(source, _names(source))
        folder, rejected, labels = source, layout.rejected, layout.labels
        files = pd.DataFrame([file[:3] for file in layout.files], columns=["source", "split", "label"], dtype=object)
        files["group"] = find_groups(layout.files, group, KERMANY)
        hint = "; expected SOURCE/CLASS/* or SOURCE/{train,val,test}/CLASS/*"
        hint += f". {found}" if isinstance(source, Path) and (found := suggest(source)) else ""
    if files["label"].nunique() < 2:
        raise ScanError(_too_few_classes(source, files, rejected, hint))
    listed = dict(zip(files["source"].tolist(), files["label"].tolist(), strict=True))
    files, faulty = _with_digests(files, folder, executor, progress)
    has_dicom = bool((files["format"] == "DICOM").any())
    if has_dicom:
        files, unread, of_headers = _grouped_by_headers(files, folder, group_tag, executor, progress)
        faulty, warnings = [*faulty, *unread], [*warnings, *of_headers]
    fix = "take the class out of the list" if list_file else "move the folder away"
    by_class = [(listed.get(each.source), each) for each in faulty]
    _expect_images(labels, files, by_class + [(None, each) for each in rejected], source, fix)
    rejected = sorted([*rejected, *faulty])
    tag, key_check = (group_tag.keyword, group_tag.key_check) if group_tag and has_dicom else ("", "")
    files, said = files.drop(columns="format"), tuple(warnings)
    return Scan(files, rejected, _notice(folder), folder, list_file, list_format, has_dicom, tag, key_check, said)


def _grouped_by_headers(
    files: pd.DataFrame, folder: Location, tag: GroupTag | None, executor: Executor, progress: Progress
) -> tuple[pd.DataFrame, list[Rejected], list[str]]:
    """Files with the groups that the headers of the DICOM files among them have; those that can't be read; and warnings."""
    is_dicom = files["format"] == "DICOM"
    names, given = files.loc[is_dicom, "source"].tolist(), files.loc[is_dicom, "group"].tolist()
    found = read_headers(folder, names, given, set(files["label"]), tag, executor, progress)
    groups = [group or before for group, before in zip(found.groups, given, strict=True)]
    files.loc[is_dicom, "group"] = pd.Series(groups, index=files.index[is_dicom], dtype=object)
    unread = [Rejected(name, reason) for name, reason in zip(names, found.unread, strict=True) if reason]
    is_read = ~files["source"].isin([entry.source for entry in unread])
    return files[is_read].reset_index(drop=True), unread, found.warnings


def _is_list(source: Location, list_format: ListFormat | None) -> bool:
    """Whether a source is a list, or a folder of lists, by what it is or, of a remote one, by its name."""
    if isinstance(source, Remote):
        return bool(list_format and list_format.files) or source.name.lower().removesuffix(".gz").endswith(LISTS)
    return source.is_file() or bool(list_format and list_format.files and source.is_dir())


def _names(source: Remote) -> list[str]:
    if not source.can_list:
        raise ScanError(f"{source}: a web server can't be listed; give a list of its images, {source}/LIST.csv")
    try:
        names = source.files()
    except OSError as error:
        raise ScanError(f"{source}: can't be listed: {error.strerror}") from None
    if not names:
        raise ScanError(f"{source}: no such folder, or nothing in it")
    return names


def _with_digests(
    files: pd.DataFrame, folder: Location, executor: Executor, progress: Progress
) -> tuple[pd.DataFrame, list[Rejected]]:
    """The files that begin as images do, with their checksums and formats, and the others."""
    names = files["source"].tolist()
    places: list[str | Location] = [
        folder / name if isinstance(folder, Remote) else f"{folder}/{name}" for name in names
    ]
    if isinstance(executor, Cluster) and names:
        executor.expect_file(folder / names[0])
    first = places[:_SILENT] if isinstance(folder, Remote) else []
    found = digest_all(first, executor, progress)
    if first and all(each.error for each in found):
        raise ScanError(
            f"{folder}: none of the first {len(first)} files can be read; first: {names[0]}: {found[0].error}"
        )
    found += digest_all(places[len(first) :], executor, progress)
    rejected = [Rejected(name, each.error) for name, each in zip(names, found, strict=True) if each.error]
    files = files.assign(source_sha256=[each.sha256 for each in found], format=[each.format for each in found])
    return files[files["source_sha256"] != ""].astype(object).reset_index(drop=True), rejected


def _expect_images(
    labels: Sequence[str], files: pd.DataFrame, faulty: list[tuple[str | None, Rejected]], source: Location, fix: str
) -> None:
    """Refuse a class none of whose files is an image; `faulty` are those that aren't, with their class as far as known."""
    with_images = set(files["label"])
    for label in labels:
        if label not in with_images:
            inside = (
                each for of, each in faulty if label == of or (of is None and label in each.source.split("/")[:-1])
            )
            fault = next((f" ({entry.source}: {entry.reason})" for entry in inside), "")
            raise ScanError(f"{source}: class {label}: no readable image{fault}; add images or {fix}")


def digest_all(paths: Sequence[str | Location], executor: Executor, progress: Progress) -> list[Digest]:
    """The `digest` of each file that begins as an image does, in order; `progress` is called with (files done, in all)."""
    size = 1 if paths and isinstance(paths[0], Remote) else _CHUNK  # a store's answers are waited for
    run = partial(digest, images_only=True)
    return in_order(run, paths, executor, str, _unread, size=size, progress=progress)


def differing(folder: Path, expected: Mapping[str, str], executor: Executor, progress: Progress) -> dict[str, Digest]:
    """Those of some files in a folder that don't have the checksum that they should have, and what they have.

    A cluster's workers that don't see these files leave them to threads of this machine.

    Args:
        folder: where they lie.
        expected: the SHA-256 of each, by its path relative to the folder. A link is no file.
        executor: reads and hashes.
        progress: called with (files done, files in all).
    """
    files = list(expected.items())
    if isinstance(executor, Cluster) and files and not executor.sees(folder / files[0][0]):
        with ThreadPoolExecutor() as threads:
            return differing(folder, expected, threads, progress)
    run = partial(_difference, folder)
    found = in_order(run, files, executor, lambda file: str(folder / file[0]), _unread, size=_CHUNK, progress=progress)
    return {path: digest for path, digest in zip(expected, found, strict=True) if digest}


def _difference(folder: Path, file: tuple[str, str]) -> Digest | None:
    """A file's digest, unless it is the one that is expected: of a million, hardly one comes back."""
    path, sha256 = file
    found = digest(f"{folder}/{path}", follow=False)
    return None if found.sha256 == sha256 else found


def _unread(_: object, error: WorkerDied) -> Digest:
    return Digest("", error.reason)


def digest(path: str | Location, *, images_only: bool = False, follow: bool = True) -> Digest:
    """The SHA-256 of a regular file, or why there is none.

    Args:
        path: the file.
        images_only: read only the beginning of a file that begins as no image does, and give that as the error.
        follow: take a symbolic link for the file it leads to, rather than for a fault.
    """
    if isinstance(path, Remote):
        return _digest_remote(path)
    try:
        descriptor = os.open(path, _OPEN | (0 if follow else _NO_FOLLOW))
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                return Digest("", "can't be read: Is a directory" if stat.S_ISDIR(mode) else "not a regular file")
            with open(descriptor, "rb", buffering=0, closefd=False) as file:  # no Path has a descriptor
                name = ""
                if images_only:
                    head = file.read(HEAD)
                    if fault := _no_image(head):
                        return Digest("", fault)
                    name = format_of(head) or ""
                file.seek(0)
                return Digest(hashlib.file_digest(file, "sha256").hexdigest(), "", name)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not follow and os.path.islink(path):  # noqa: PTH114  # may be text
            return Digest("", "a symbolic link")
        return Digest("", f"can't be read: {error.strerror}")


def _digest_remote(file: Remote) -> Digest:
    try:
        return file.use(_digest_of_opened)
    except OSError as error:
        return Digest("", f"can't be read: {error.strerror}")


def _digest_of_opened(file: IO[bytes]) -> Digest:
    """As `digest` with `images_only`, of what gives fewer bytes than it is asked for where it has no more at hand."""
    head = b""
    while len(head) < HEAD and (part := file.read(HEAD - len(head))):
        head += part
    if fault := _no_image(head):
        return Digest("", fault)
    sha256 = hashlib.sha256(head)
    while part := file.read(_BLOCK):
        sha256.update(part)
    return Digest(sha256.hexdigest(), "", format_of(head) or "")


def _no_image(head: bytes) -> str:
    """Why a file with these first bytes is no image; empty if it begins as one."""
    if not head:  # any two would be identical images
        return "empty file (0 bytes)"
    return "" if format_of(head) else f"not an image of a known format ({', '.join(FORMATS)})"


def _too_few_classes(source: Location, files: pd.DataFrame, rejected: list[Rejected], hint: str) -> str:
    """Why there is nothing to choose between, with what to do or the first reason."""
    found = f"{source}: found {len(files)} files in {files['label'].nunique()} classes, but at least 2 are needed{hint}"
    if rejected and "looks right" not in hint:
        found += f". First of {len(rejected):,} rejected: {rejected[0].source}: {rejected[0].reason}"
    return found


def _notice(source: Location) -> str:
    if isinstance(source, Remote):
        return ""
    path = source / NOTICE
    if path.is_symlink() or not path.is_file():  # a link may lead to a file that is nobody's to publish
        return ""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return " ".join(file.read(10_000).split())[:500]
    except OSError:
        return ""
