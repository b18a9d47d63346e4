"""The folder of a set's images on disk: which files in it are the set's, and how a new one takes its place.

A set is built in a partial folder, `.NAME.partial` beside the image folder, and gets its name when all is there. Until
then a set that was there before stays as it is. In both folders symbolic links are never followed, and a file that
isn't the set's is never deleted: it is set aside in `.NAME.stray`.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from augment.rendering.image_file import MARKER
from common.files import write_atomically
from manifests import contract

JOURNAL = ".journal.csv"  # in the partial folder, and in a finished one while a set takes its place
_OURS = (MARKER, JOURNAL, f".{MARKER}.tmp", f".{JOURNAL}.tmp")
# What a killed build may leave in a partial folder beside whole images: images in no journal, and unfinished ones.
_UNFINISHED = re.compile(r"(?:train|val|test)/[^/]+/(?:\..+\.(?:jpg|png)\.\d+\.tmp|.+-v\d+\.(?:jpg|png))")


def partial(images: Path) -> Path:
    """Where the images of a set are until all of them are there."""
    return images.with_name(f".{images.name}.partial")


def replaced(images: Path) -> Path:
    """Where the images that a new set replaces are until they are deleted."""
    return images.with_name(f".{images.name}.old")


def stray(images: Path) -> Path:
    """Where files go that were found in the image folder and aren't the set's."""
    return images.with_name(f".{images.name}.stray")


def scratch(images: Path) -> Path:
    """Where a repair renders what then takes its place."""
    return images.with_name(f".{images.name}.repair")


def is_foreign(folder: Path) -> bool:
    """Whether something is at `folder` that Evenset did not put there."""
    if folder.is_symlink():
        return True
    if not folder.exists() or (folder / MARKER).is_file():
        return False
    # A build may be killed between making the folder and writing the marker.
    return not folder.is_dir() or any(entry.name not in _OURS for entry in folder.iterdir())


def marker(folder: Path) -> str:
    """The text of a folder's marker; empty without one."""
    path = folder / MARKER
    try:
        return path.read_text(encoding="utf-8") if path.is_file() and not path.is_symlink() else ""
    except (OSError, ValueError):
        return ""


def create(folder: Path, text: str) -> None:
    """Make a folder, if it isn't there, with a marker that holds `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / MARKER, text)


def list_files(folder: Path) -> Iterator[str]:
    """Everything below a folder that is no folder itself, links among them, relative and POSIX, sorted by folder."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        inner = Path(place).relative_to(folder)
        links = [name for name in folders if os.path.islink(f"{place}/{name}")]  # noqa: PTH114  # faster
        for name in sorted([*names, *links]):
            yield (inner / name).as_posix()


def linked(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """The folders of images at `paths` that are links, or lie in a split's or a set's folder that is: which is one."""
    found = {}
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        parts = folder.split("/")
        outer = ["/".join(parts[:count]) for count in range(max(1, len(parts) - 2), len(parts) + 1)]
        if link := next((part for part in outer if os.path.islink(f"{root}/{part}")), ""):  # noqa: PTH114  # faster
            found[folder] = link
    return found


def find_strays(folder: Path, paths: Collection[str]) -> list[str]:
    """The files in the split folders of an image folder that are none of `paths`."""
    return [path for path in list_files(folder) if path.partition("/")[0] in contract.SPLITS and path not in paths]


def tidy_partial(images: Path, paths: Collection[str]) -> list[str]:
    """Leave in the partial folder nothing but `paths`: delete what a build left, set aside what is not Evenset's.

    Returns:
        What was set aside.
    """
    folder = partial(images)
    surplus = [path for path in list_files(folder) if path not in paths and path not in _OURS]
    ours = {path for path in surplus if _UNFINISHED.fullmatch(path) and not (folder / path).is_symlink()}
    for path in ours:
        (folder / path).unlink()
    return set_aside(folder, images, [path for path in surplus if path not in ours])


def set_aside(folder: Path, images: Path, paths: Iterable[str]) -> list[str]:
    """Move files out of `folder` to the place for strays of the set at `images`; a link is moved, not its target.

    Returns:
        The paths, as given.
    """
    moved = []
    for path in paths:
        aside = stray(images) / path
        aside.parent.mkdir(parents=True, exist_ok=True)
        while os.path.lexists(aside):
            aside = aside.with_name(f"{aside.name}.again")
        os.replace(folder / path, aside)
        moved.append(path)
    if moved:
        remove_empty_folders(folder)
    return moved


def remove_empty_folders(folder: Path) -> None:
    """Remove the empty folders below a folder: one too many is a class too many for what reads class folders."""
    for place, _, _ in os.walk(folder, topdown=False):
        if place != str(folder):
            with contextlib.suppress(OSError):
                os.rmdir(place)  # noqa: PTH106  # only where it is empty


def make_class_folders(folder: Path, paths: Iterable[str]) -> None:
    """Give each split that has images a folder for every class, so that whatever numbers them does so alike in all."""
    places = {tuple(path.split("/")[:2]) for path in paths}
    for split in {split for split, _ in places}:
        for label in {label for _, label in places}:
            (folder / split / label).mkdir(parents=True, exist_ok=True)


def take_over(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        copy = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.copyfile(source, copy, follow_symlinks=False)
        os.replace(copy, target)


def remove(folder: Path) -> None:
    """Delete a folder of Evenset's, its marker last: what a kill leaves of it is known for Evenset's.

    A folder that isn't Evenset's stays.
    """
    if not folder.exists() or is_foreign(folder):
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    (folder / MARKER).unlink(missing_ok=True)
    folder.rmdir()
