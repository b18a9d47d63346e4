"""What folders, classes and files may be called, and which names stand for splits, images and masks.

The rules are the same for the folders of a source, the objects of a store and the classes of a list.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from common.errors import UNPRINTABLE, UserError
from common.remote import Location

# The notice that a source folder carries (licence, citation, "synthetic"): the card hands it on.
NOTICE = "NOTICE"
_DRIVE = re.compile(r"[A-Za-z]:")
_SPLIT_NAMES = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:at(?:e|ion))?)?|dev)|(?P<test>test(?:ing)?))(?:[ _-]?(?:set|data|images|split))?",
    re.IGNORECASE,
)
# What splits are called in other ways, as 01_train, eval-set or fold3 are.
_LIKE_A_SPLIT = re.compile(r"(?<![a-z])(?:train|val|dev|eval|test|hold-?out|fold|split|part)", re.IGNORECASE)
# CLASS/images/* beside CLASS/masks/*, as the COVID-19 Radiography Database has it.
IMAGE_FOLDERS = re.compile(r"images?|imgs?", re.IGNORECASE)
MASK_FOLDERS = re.compile(r"masks?|segmentations?|annotations?|labels?", re.IGNORECASE)
# The system's own files, which need no look at their bytes.
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin"})


class ScanError(UserError):
    """The source folder can't be used; the message names it and the fix."""


def expect_class_names(labels: Iterable[str], source: Location) -> None:
    """Refuse classes, of a list, with names that no folder of a set can have, or that look the same.

    Raises:
        ScanError: naming the class.
    """
    for label in labels:
        if UNPRINTABLE.search(label) or "/" in label or "\\" in label or label.startswith(".") or _DRIVE.match(label):
            raise ScanError(
                f"{source}: the class {label!a} can't name a folder; rename it in the list, without /, \\, control characters "
                "or a dot in front"
            )
    expect_distinct({label: label for label in labels}, source)


def expect_no_splits(folders: Mapping[str, list[str]], source: Location) -> None:
    """Refuse splits in a spelling that isn't understood, which would pass for classes, and their classes for patients.

    Args:
        folders: the visible ones in the source, each with those that it holds, sorted.
        source: as the message names it.

    Raises:
        ScanError: all are called as splits are, and hold the same folders.
    """
    names, inner = list(folders), list(folders.values())
    are_alike = len(names) > 1 and len(inner[0]) > 1 and all(each == inner[0] for each in inner)
    if are_alike and all(map(_LIKE_A_SPLIT.search, names)):
        raise ScanError(
            f"{source}: the folders {', '.join(names[:3])} hold the same folders ({', '.join(inner[0][:3])}), as "
            "SPLIT/CLASS/* does; call them train, val and test, or put their files together as CLASS/*"
        )


def class_fault(name: str) -> str:
    """Why a folder of this name is no class or patient, though a file may be called so, or nothing."""
    # No path of a manifest may start as a drive does.
    return "a class name that starts as a Windows drive does; rename it" if _DRIVE.match(name) else ""


def split_of(name: str) -> str:
    """The split that a folder's name stands for, in any usual spelling and case; empty for any other name."""
    match = _SPLIT_NAMES.fullmatch(name)
    return str(match.lastgroup) if match else ""


def name_fault(name: str) -> str:
    """Why a file or folder of this name is not looked at, or nothing."""
    if UNPRINTABLE.search(name) or "\\" in name:
        return "a name with control characters, a backslash or bytes that are not UTF-8; rename it"
    if name.startswith("."):
        return "hidden"
    return "the operating system's, no image" if name.lower() in _SYSTEM_FILES else ""


def expect_distinct(labels: dict[str, str], source: Location) -> None:
    """Refuse classes whose names look the same, or are one folder where case or trailing characters don't count."""
    seen: dict[str, str] = {}
    for label in sorted(labels):
        other = seen.setdefault(look_of(label), label)
        if other != label:
            raise ScanError(
                f"{source}: the classes {other!a} ({labels[other]}) and {label!a} ({labels[label]}) have names "
                "that look the same, or are the same on some file systems; rename one of them"
            )


def look_of(name: str) -> str:
    """A name as the eye and file systems that fold case take it."""
    visible = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    return " ".join(visible.casefold().split()).rstrip(". ")
