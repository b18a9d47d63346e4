"""Whom DICOM files show, by a tag of their headers and as a keyed hash; and what their headers don't rule out.

No value of a header leaves this module: not in a message, and not as a group but hashed with the user's key.
"""

import hashlib
import hmac
import io
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from augment.recipe import Recipe
from augment.sources.layout import ScanError
from common.remote import Location, Remote
from common.workers.dispatch import in_order

_LEAST_KEY, _HASH = 16, 16  # bytes of a key; hex digits of a group
_BATCH = 32  # files a task
_LEAST_NAME = 4  # characters of an ID or a part of a name that a path is searched for
_READ = ["PatientID", "PatientName", "BurnedInAnnotation", "PatientIdentityRemoved"]


class GroupTag(NamedTuple):
    """The tag that says whom an image shows, by its keyword (PatientID), and the key that it is hashed with."""

    keyword: str
    key: bytes


class _Header(NamedTuple):
    group: str  # hashed; empty where the tag has no value
    burned_in: str  # yes, no, or nothing
    is_anonymous: bool
    names_patient: bool  # its path holds an ID or a name of the header


_DAMAGED = _Header("", "", is_anonymous=True, names_patient=False)


def group_tag(recipe: Recipe, key_file: str | PathLike[str] | None) -> GroupTag | None:
    """The tag of a recipe, with the key that a file holds.

    Raises:
        ScanError: there is no key, it can't be read, or it is too short to be one.
    """
    if recipe.group_tag is None:
        return None
    if key_file is None:
        raise ScanError(
            f"group_tag {recipe.group_tag} is hashed with a key of yours: give --group-key FILE, the same each time; make one: "
            "head -c 32 /dev/urandom > FILE"
        )
    file = Path(key_file)
    try:
        key = file.read_bytes()
    except OSError as error:
        raise ScanError(f"--group-key {file}: {error.strerror}; make one: head -c 32 /dev/urandom > {file}") from None
    if len(key) < _LEAST_KEY:
        raise ScanError(f"--group-key {file}: {len(key)} bytes, expected {_LEAST_KEY} or more that nobody can guess")
    return GroupTag(recipe.group_tag, key)


def groups_and_warnings(
    folder: Location,
    names: Sequence[str],
    tag: GroupTag | None,
    executor: Executor,
    progress: Callable[[int, int], None],
) -> tuple[list[str], list[str]]:
    """The group of each of some DICOM files (empty where there is no tag, or no value), and what to know of them all.

    Args:
        folder: what the names are relative to.
        names: of the files.
        tag: whom they show.
        executor: reads; a cluster's workers get the key, and never hand an identifier back.
        progress: called with (files done, files in all).

    Raises:
        ScanError: pydicom isn't installed, no such tag, or paths that hold the IDs or names of patients.
    """
    try:
        from pydicom.datadict import tag_for_keyword
    except ImportError:
        raise ScanError("DICOM needs packages: python -m pip install -r requirements-dicom.txt") from None
    if tag and tag_for_keyword(tag.keyword) is None:
        raise ScanError(f"group_tag {tag.keyword!r} is no DICOM keyword, such as PatientID")
    read = partial(_header, folder, tag=tag)
    headers = in_order(read, names, executor, str, lambda *_: _DAMAGED, size=_BATCH, progress=progress)
    if named := sum(header.names_patient for header in headers):
        raise ScanError(
            f"{folder}: the paths of {named:,} DICOM files hold the ID or name of their patient, which manifest and file names "
            "would repeat; rename files and folders, or de-identify them and say so in PatientIdentityRemoved"
        )
    return [header.group for header in headers], _warnings(headers, tag)


def _header(folder: Location, name: str, tag: GroupTag | None) -> _Header:
    import pydicom

    wanted = [*_READ, *([tag.keyword] if tag else [])]
    try:
        place = folder / name
        file = io.BytesIO(place.read()) if isinstance(place, Remote) else place
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted)
        is_anonymous = str(dataset.get("PatientIdentityRemoved") or "").upper() == "YES"
        identifiers = [str(dataset.get("PatientID") or ""), *str(dataset.get("PatientName") or "").split("^")]
        path = name.casefold()
        names_patient = any(
            len(each) >= _LEAST_NAME and each.casefold() in path for each in map(str.strip, identifiers)
        )
        value = str(dataset.get(tag.keyword) or "").strip() if tag else ""
        burned_in = str(dataset.get("BurnedInAnnotation") or "").lower()
    except Exception:  # a damaged header of any kind: decoding will say so of the file
        return _DAMAGED
    group = hmac.new(tag.key, value.encode(), hashlib.sha256).hexdigest()[:_HASH] if tag and value else ""
    return _Header(group, burned_in, is_anonymous, names_patient and not is_anonymous)


def _warnings(headers: Sequence[_Header], tag: GroupTag | None) -> list[str]:
    found, count = [], len(headers)
    if burned := sum(header.burned_in == "yes" for header in headers):
        found.append(
            f"{burned:,} of {count:,} DICOM files say that text is burned into the image, which may name the patient"
        )
    if silent := sum(header.burned_in not in ("yes", "no") for header in headers):
        found.append(
            f"{silent:,} of {count:,} DICOM files don't say whether text is burned into the image (BurnedInAnnotation), so that "
            "it can't be excluded; look at the gallery"
        )
    if open_files := sum(not header.is_anonymous for header in headers):
        found.append(
            f"{open_files:,} of {count:,} DICOM files don't declare that the patient's identity was removed "
            "(PatientIdentityRemoved); nothing of their headers goes into the set but, hashed, the group"
        )
    groups = [header.group for header in headers if header.group]
    if tag and len(groups) > 1 and len(set(groups)) == len(groups):
        found.append(
            f"{tag.keyword} is another in each of {len(groups):,} DICOM files, so that it may name the image and not the patient; "
            "then a patient may be in several splits"
        )
    return found
