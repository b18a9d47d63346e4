"""Whether a path, or a group, holds the ID or the name of the patient whom an image shows.

Both are compared as people write them: in any case, composed or not, with one separator for another or with none. What
names a class, a split or nobody at all ("anonymous") is no name.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

_LEAST = 4  # characters that are looked for anywhere; of fewer, all the words of a name have to be there
_LEAST_OTHER = 2  # of scripts with more letters than ASCII has: a given name in Chinese has one or two
_BETWEEN = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W\d_]+")
_NOBODY = {
    "anon", "anonym", "anonymised", "anonymized", "anonymous", "case", "deidentified", "dicom", "dummy", "female",
    "image", "images", "male", "name", "none", "normal", "patient", "patients", "person", "phantom", "series",
    "study", "subject", "test", "train", "training", "unknown", "valid", "validation", "volunteer",
}  # fmt: skip


class Identifiers(NamedTuple):
    """What a header says of whom it shows: IDs, each as it stands, and names with DICOM's separators, ^ and =."""

    ids: Sequence[str]
    names: Sequence[str]


def folded(text: str) -> str:
    """Text in one case, and composed as other text that looks the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def ordinary_words(labels: Iterable[str]) -> frozenset[str]:
    """Words in a path that stand for no person: those of the classes, and those that DICOM files are anonymized with."""
    texts = [folded(label) for label in labels]
    words = (word for text in texts for word in (text, _BETWEEN.sub("", text), *_BETWEEN.split(text)))
    return frozenset(_NOBODY.union(words))


def names_patient(path: str, patient: Identifiers, ordinary: Collection[str]) -> bool:
    """Whether a path holds an ID or a name.

    Args:
        path: with / between its parts.
        patient: whom the image shows.
        ordinary: words that are no names here, as `ordinary_words` has them.
    """
    places = folded(path).split("/")
    if any(_holds(places, each, ordinary) for each in patient.ids):
        return True
    for name in patient.names:
        for written in folded(name).split("="):  # in Latin letters, ideographic, phonetic
            words = [word for word in _BETWEEN.split(written) if word and word not in ordinary]
            joined = ("".join(words), "".join(reversed(words))) if len(words) > 1 else ()
            if any(_holds(places, each, ordinary) for each in joined) or _has_words(places, words):
                return True
    return False


def is_patient(group: str, patient: Identifiers, ordinary: Collection[str]) -> bool:
    """Whether a group is a patient's ID or name, or holds it; of any length, since the group stands for itself."""
    bare = _bare(folded(group))
    whole = {_bare(folded(each)) for each in (*patient.ids, *patient.names)} - {""}
    return bool(bare) and bare not in ordinary and (bare in whole or names_patient(group, patient, ordinary))


def _bare(text: str) -> str:
    return _BETWEEN.sub("", text)


def _is_long(text: str) -> bool:
    return len(text) >= (_LEAST if text.isascii() else _LEAST_OTHER)


def _holds(places: Sequence[str], identifier: str, ordinary: Collection[str]) -> bool:
    """Whether a folder's or the file's name holds an ID, or a whole name, with its separators or without."""
    bare = _bare(folded(identifier))
    return _is_long(bare) and bare not in ordinary and any(bare in _bare(place) for place in places)


def _has_words(places: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a path holds a long word of a name, or all of its short ones.

    The names of folders are for many images and say what these have in common: there a name has to be a whole word.
    """
    *folders, file = places
    in_folders = {word for folder in folders for word in _WORD.findall(folder)}
    for word in filter(_is_long, words):
        if word in file or word in in_folders:
            return True
        if not (word.isascii() and word.isalpha()) and any(word in folder for folder in folders):
            return True
    several = [word for word in words if len(word) > 1]
    return len(several) > 1 and set(several) <= in_folders | set(_WORD.findall(file))
