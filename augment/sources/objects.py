"""The names of objects in a store -> the layout of a source, by the rules that hold for folders.

A store has names and no folders: no empty ones, no links, and what a folder is called is a part of a name.
"""

import unicodedata

from augment.sources.layout import BESIDE, MASKS, Layout, Listed, Rejected
from augment.sources.names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    NOTICE,
    class_fault,
    expect_class_names,
    expect_no_splits,
    name_fault,
    split_of,
)
from common.errors import printable
from common.remote import Remote

_EMPTY = "a name with an empty part (//), which no path has; rename it"


def layout_of(source: Remote, names: list[str]) -> Layout:
    """SPLIT/CLASS/*, CLASS/* and CLASS/PATIENT/*, as `read_layout` has it.

    Raises:
        ScanError: two classes have names that look the same, or they are splits in a spelling that isn't understood.
    """
    files: list[Listed] = []
    rejected = [Rejected(printable(name), _EMPTY) for name in names if "//" in f"/{name}"]
    names = sorted(name for name in names if "//" not in f"/{name}")
    splits = _splits(names)
    with_images = {
        "/".join(folders[:-1])
        for name in names
        if len(folders := name.split("/")[:-1]) > 1 and IMAGE_FOLDERS.fullmatch(folders[-1])
    }
    holding = {} if splits else _split_folders_inside(names)
    if not splits:
        expect_no_splits(_folders(names), source)
    for name in names:
        if name != NOTICE:
            found = _listed(name, splits, with_images, holding)
            (files if isinstance(found, Listed) else rejected).append(found)  # type: ignore[arg-type]  # by its kind
    labels = sorted({file.label for file in files})
    expect_class_names(labels, source)
    return Layout(files, sorted(rejected), labels)


def _splits(names: list[str]) -> set[str]:
    """The first folders that are splits: one of them holds folders, or no other folder lies beside them."""
    first = {name.partition("/")[0] for name in names if "/" in name and not name.startswith((".", "_"))}
    named = {folder for folder in first if split_of(folder)}
    has_folders = any(name.count("/") > 1 and name.partition("/")[0] in named for name in names)
    return named if has_folders or named == first else set()


def _folders(names: list[str]) -> dict[str, list[str]]:
    """The visible folders, each with the visible ones that it holds, sorted."""
    found: dict[str, set[str]] = {}
    for outer, inner in {(*name.split("/")[:-1], "", "")[:2] for name in names}:
        if outer and outer[0] not in "._":
            found.setdefault(outer, set()).update({inner} if inner and inner[0] not in "._" else ())
    return {outer: sorted(found[outer]) for outer in sorted(found)}


def _split_folders_inside(names: list[str]) -> dict[str, str]:
    """The folders that hold a split's, which no class does, each with the first of those."""
    inner = sorted({tuple(name.split("/")[:2]) for name in names if name.count("/") > 1}, reverse=True)
    return {outer: folder for outer, folder in inner if split_of(folder)}


def _listed(name: str, splits: set[str], with_images: set[str], holding: dict[str, str]) -> Listed | Rejected:
    parts = name.split("/")
    shown = printable(name)
    if parts[0] in holding and not class_fault(parts[0]):
        return Rejected(shown, f"no class folder: it holds {holding[parts[0]]}/, a split's folder")
    if fault := next(filter(None, map(name_fault, parts)), ""):
        return Rejected(shown, fault)
    if splits and parts[0] not in splits:
        return Rejected(name, BESIDE)
    split, *rest = (split_of(parts[0]), *parts[1:]) if splits else ("", *parts)
    if len(rest) < 2:
        return Rejected(name, "not in a class folder")
    label, *inner, _ = rest
    if fault := next(filter(None, map(class_fault, (label, *inner))), ""):
        return Rejected(name, fault)
    if inner and split_of(inner[0]):
        return Rejected(name, f"a split's folder below the class {label}; expected SPLIT/CLASS/*")
    home = name.removesuffix("/".join(["", *inner, parts[-1]]))
    if inner and home in with_images and MASK_FOLDERS.fullmatch(inner[0]):
        return Rejected(name, MASKS)
    patient = inner[0] if inner and not IMAGE_FOLDERS.fullmatch(inner[0]) else ""
    return Listed(name, split, unicodedata.normalize("NFC", label), unicodedata.normalize("NFC", patient))
