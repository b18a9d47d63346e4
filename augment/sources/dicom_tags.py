"""Whom DICOM files show, by a tag of their headers and as a keyed hash; and what their headers don't rule out.

No value of a header leaves this module: not in a message, and not as a group but hashed with the user's key.
"""

import hashlib
import hmac
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from augment.recipe import Recipe
from augment.sources.identifiers import Identifiers, is_patient, names_patient, ordinary_words
from augment.sources.names import ScanError
from common.errors import first_of
from common.images import memory
from common.images.dicom.file import read
from common.remote import Location, Remote
from common.workers.dispatch import in_order

if TYPE_CHECKING:
    from pydicom import Dataset

_LEAST_KEY, _HASH = 16, 16  # bytes of a key; hex digits of a group
_BATCH = 32  # files a task
_READ = ["PatientID", "PatientName", "BurnedInAnnotation", "PatientIdentityRemoved"]


class GroupTag(NamedTuple):
    """The tag that says whom an image shows, by its keyword (PatientID), and the key that it is hashed with."""

    keyword: str
    key: bytes

    @property
    def key_check(self) -> str:
        """Tells one key from another, and nothing of the key: 16 hex digits, for the card."""
        return hmac.new(self.key, b"Evenset's check of a key", hashlib.sha256).hexdigest()[:_HASH]


class _Header(NamedTuple):
    group: str  # hashed; empty where the tag has no value
    burned_in: str  # yes, no, or nothing
    is_anonymous: bool
    names_patient: bool = False  # its path holds an ID or a name of the header
    given_patient: bool = False  # and so does the group that it was given
    unread: str = ""  # why the file can't be read


class Headers(NamedTuple):
    """What the headers of some DICOM files say, in their order.

    `groups` are empty where there is no tag, or no value. `unread` says why a file can't be read, and is empty of those
    that can, damaged ones too: decoding says so of them. `warnings` are what to know of them all.
    """

    groups: list[str]
    unread: list[str]
    warnings: list[str]


_DAMAGED = _Header("", "", is_anonymous=True)


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


def read_headers(
    folder: Location,
    names: Sequence[str],
    given: Sequence[str],
    labels: Collection[str],
    tag: GroupTag | None,
    executor: Executor,
    progress: Callable[[int, int], None],
) -> Headers:
    """Whom some DICOM files show, and what their headers don't rule out.

    Args:
        folder: what the names are relative to.
        names: of the files.
        given: the group of each by its name or a list, which counts where the tag gives none.
        labels: the classes, whose words in a path are nobody's name.
        tag: whom they show.
        executor: reads; a cluster's workers get the key, and never hand an identifier back.
        progress: called with (files done, files in all).

    Raises:
        ScanError: pydicom isn't installed, no such tag, or paths or groups that hold the IDs or names of patients.
    """
    try:
        from pydicom.datadict import tag_for_keyword
    except ImportError:
        raise ScanError("DICOM needs packages: python -m pip install -r requirements-dicom.txt") from None
    if tag and tag_for_keyword(tag.keyword) is None:
        raise ScanError(f"group_tag {tag.keyword!r} is no DICOM keyword, such as PatientID")
    read_one = partial(_header, folder, tag=tag, ordinary=ordinary_words(labels))
    files = list(zip(names, given, strict=True))
    headers = in_order(
        read_one, files, executor, lambda file: file[0], lambda *_: _DAMAGED, size=_BATCH, progress=progress
    )
    _expect_nobody_named(headers, folder, tag)
    groups, unread = [header.group for header in headers], [header.unread for header in headers]
    read_ones = {name: header for name, header in zip(names, headers, strict=True) if not header.unread}
    return Headers(groups, unread, _warnings(read_ones, tag))


def _expect_nobody_named(headers: Sequence[_Header], folder: Location, tag: GroupTag | None) -> None:
    """Refuse what would go into the manifest in clear."""
    if named := [number for number, header in enumerate(headers, 1) if header.names_patient]:
        raise ScanError(
            f"{folder}: the paths of {len(named):,} DICOM files hold the ID or name of their patient, which manifest and file "
            f"names would repeat (the first is number {named[0]:,} of {len(headers):,} by path); rename files and folders, or "
            "de-identify them and say so in PatientIdentityRemoved"
        )
    if given := sum(header.given_patient for header in headers):
        how = "give them the tag" if tag else "group by group_tag: PatientID and --group-key, which hashes it"
        raise ScanError(
            f"{folder}: the groups of {given:,} DICOM files, by list or name, hold the ID or name of their patient, which the "
            f"manifest would repeat; {how}, or de-identify the files and say so in PatientIdentityRemoved"
        )


def _header(folder: Location, file: tuple[str, str], tag: GroupTag | None, ordinary: Collection[str]) -> _Header:
    """What is to know of a file, of this name and with this group so far."""
    name, given = file
    wanted = [*_READ, *([tag.keyword] if tag else [])]
    try:
        dataset = _read(folder / name, wanted)
        is_anonymous = str(dataset.get("PatientIdentityRemoved") or "").upper() == "YES"
        value = str(dataset.get(tag.keyword) or "").strip() if tag else ""
        burned_in = str(dataset.get("BurnedInAnnotation") or "").lower()
        patient = Identifiers(
            [*_values(dataset, "PatientID"), *(_values(dataset, tag.keyword) if tag else [])],
            _values(dataset, "PatientName"),
        )
        is_named = not is_anonymous and names_patient(name, patient, ordinary)
        is_given = not is_anonymous and not value and is_patient(given, patient, ordinary)
    except OSError as error:  # nothing is known of whom it shows, so that it can't be in a set
        return _DAMAGED._replace(unread=f"can't be read: {error.strerror or type(error).__name__}")
    except Exception as error:  # a damaged header of any kind: decoding will say so of the file
        if memory.is_lack(error):
            raise MemoryError from None  # else a patient's images would be of several groups
        return _DAMAGED
    group = hmac.new(tag.key, value.encode(), hashlib.sha256).hexdigest()[:_HASH] if tag and value else ""
    return _Header(group, burned_in, is_anonymous, is_named, is_given)


def _read(place: Location, wanted: Sequence[str]) -> "Dataset":
    if isinstance(place, Remote):
        return read(io.BytesIO(place.read()), 0, stop_before_pixels=True, tags=wanted)
    with place.open("rb") as file:
        return read(file, 0, stop_before_pixels=True, tags=wanted)


def _values(dataset: "Dataset", keyword: str) -> list[str]:
    """The values of an element as text, of which it may have several."""
    from pydicom.multival import MultiValue

    value = dataset.get(keyword)
    return [str(each) for each in (value if isinstance(value, MultiValue) else [value]) if each]


def _warnings(named: Mapping[str, _Header], tag: GroupTag | None) -> list[str]:
    headers = list(named.values())
    found, count = [], len(headers)
    if burned := [name for name, header in named.items() if header.burned_in == "yes"]:
        found.append(
            f"{len(burned):,} of {count:,} DICOM files say that text is burned into the image, which may name the patient: "
            f"{first_of(burned)}; look at them, and leave them out of the source if it does"
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
