"""A recipe's section `list`: how the rows of a list (CSV, TSV, Parquet) become images with class, patient and split."""

import re
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any

from common.errors import UserError
from common.lists import nfc

# What becomes of a finding that is uncertain or blank.
LEAVE_OUT, POSITIVE, NEGATIVE = "leave out", "positive", "negative"
# What becomes of an image whose rows disagree.
REFUSE, ANY, MAJORITY = "refuse", "any", "majority"
SPLITS = ("train", "val", "test")

_TRUNCATED = re.compile(r"\.(\d{1,3})")


class ListFormatError(UserError):
    """A recipe's section `list` can't be used; the message names the setting, the value and the fix."""


@dataclass(frozen=True)
class ListFormat:
    """How a list is read. Field by field, what the section `list` of a recipe may hold; all text is compared as text."""

    path: str = "path"  # a column, or a template over columns such as files/p{patient:.2}/{image}.jpg
    images: str = "."  # the folder in which the paths are looked up, relative to the list
    label: str | None = None  # the column of the class or of findings; default: label, unless `positive` is a column
    separator: str | None = None  # between the findings of one cell
    positive: str | None = None  # the finding of the one class; without `label`, a column of 1, 0, -1 or blank
    negative: str | None = None  # the finding of the other class; default: all images without the positive finding
    uncertain: str = LEAVE_OUT  # -1: leave out, positive or negative
    blank: str = LEAVE_OUT  # no value: leave out, positive or negative
    several: str = REFUSE  # rows of one image that disagree: refuse, any (needs `positive`) or majority
    reader: str | None = None  # the column of who read the image; with `majority`, each has one vote
    group: str | None = None  # the column of whom an image shows, the patient; default: group, or the recipe's pattern
    split: str | tuple[tuple[str, str], ...] | None = None  # the column, or a file of paths for each; default: split
    files: tuple[tuple[str, str], ...] = ()  # a list for each split, in the folder that --source then names
    join: tuple[str, ...] = ()  # other lists beside it, joined by the columns that they share
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # column and the values to take

    def as_dict(self) -> dict[str, Any]:
        """The section as plain JSON values, for the card."""
        split = dict(self.split) if isinstance(self.split, tuple) else self.split
        where = {column: list(values) for column, values in self.where}
        return {**asdict(self), "split": split, "files": dict(self.files), "join": list(self.join), "where": where}

    @property
    def path_columns(self) -> list[str]:
        """The columns that the path is made of."""
        return [name for _, name, _ in template(self.path) if name] if "{" in self.path else [self.path]

    @property
    def columns(self) -> list[str]:
        """Every column that is read, each once."""
        finding = [self.label] if self.label else [self.positive, self.negative]
        split = [self.split] if isinstance(self.split, str) else []
        named = [*self.path_columns, *finding, self.reader, self.group, *split, *(column for column, _ in self.where)]
        return list(dict.fromkeys(name for name in named if name))


def template(text: str) -> list[tuple[str, str, int | None]]:
    """A path template as (text before, column, how many of its characters), the column empty at the end.

    Raises:
        ValueError: it is none.
    """
    parts = []
    for before, name, specification, conversion in string.Formatter().parse(text):
        length = _TRUNCATED.fullmatch(specification or "")
        if conversion or name == "" or (specification and not length):
            raise ValueError("expected columns in braces, such as {image}, or {image:.2} for its first 2 characters")
        parts.append((before, name or "", int(length[1]) if length else None))
    return parts


def resolve(given: Any, path: str) -> ListFormat:
    """Check a recipe's section `list` and fill in what it leaves out; `path` is what messages call the recipe by.

    Raises:
        ListFormatError: a setting that is unknown, of another kind, or makes no sense with the others.
    """
    known = [field.name for field in fields(ListFormat)]
    if not isinstance(given, dict):
        raise ListFormatError(f"{path}: list is {given!r}, expected settings such as `label: Finding Labels`")
    for key in given:
        if key not in known:
            raise ListFormatError(f"{path}: list has the unknown setting {key!r}; known are {', '.join(known)}")
    checked = {key: value for key, value in given.items() if value is not None}
    for key in [key for key in checked if key not in ("split", "files", "join", "where")]:
        checked[key] = _text(checked[key], key, path)
    checked["files"] = _by_split(checked.get("files", {}), "files", path)
    if isinstance(split := checked.get("split"), (dict, list)):
        checked["split"] = _by_split(split, "split", path)
    elif split is not None:
        checked["split"] = _text(split, "split", path)
    join = checked.get("join", [])
    checked["join"] = tuple(_file(each, "join", path) for each in (join if isinstance(join, list) else [join]))
    checked["where"] = _where(checked.get("where", {}), path)
    if "positive" not in checked:
        checked.setdefault("label", "label")
    resolved = ListFormat(**checked)
    _check(resolved, path)
    return resolved


def _check(given: ListFormat, path: str) -> None:
    """Refuse values that are none of the choices, and settings that do nothing without others."""
    try:
        template(given.path)
    except ValueError as error:
        raise ListFormatError(f"{path}: list.path is {given.path!r}: {error}") from None
    choices = {"uncertain": (LEAVE_OUT, POSITIVE, NEGATIVE), "several": (REFUSE, ANY, MAJORITY)}
    choices["blank"] = choices["uncertain"]
    for key, allowed in choices.items():
        if (value := getattr(given, key)) not in allowed:
            raise ListFormatError(f"{path}: list.{key} is {value!r}, expected one of {', '.join(allowed)}")
    needs = [
        ("separator", given.separator, "label", given.label),
        ("negative", given.negative, "positive", given.positive),
        ("uncertain", given.uncertain != LEAVE_OUT, "positive", given.positive),
        ("blank", given.blank != LEAVE_OUT, "positive", given.positive),
        ("several: any", given.several == ANY, "positive", given.positive),
        ("reader", given.reader, "several: majority", given.several == MAJORITY),
    ]
    for key, value, other, needed in needs:
        if value and not needed:
            raise ListFormatError(f"{path}: list.{key} means nothing without list.{other}; give that too")
    if given.positive is not None and given.positive == given.negative:
        raise ListFormatError(f"{path}: list.positive and list.negative are both {given.positive!r}")
    if given.files and given.split:
        raise ListFormatError(f"{path}: list.files gives the splits, and so does list.split; give one of them")


def _text(value: Any, key: str, path: str) -> str:
    """A setting as text: a number stands for its digits, but YAML makes `no` and `yes` another value."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise ListFormatError(f"{path}: list.{key} is {value!r}, expected text; put it in quotes, as in '{value}'")
    return nfc(str(value))


def _file(value: Any, key: str, path: str) -> str:
    """The name of a file beside the list, which may lie in folders below but not elsewhere."""
    text = _text(value, key, path).replace("\\", "/")
    if PurePath(text).is_absolute() or ".." in text.split("/"):
        raise ListFormatError(f"{path}: list.{key} is {text!r}, expected a file in the list's folder or below it")
    return text


def _by_split(given: Any, key: str, path: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, Mapping) or not set(given) <= set(SPLITS):
        raise ListFormatError(
            f"{path}: list.{key} is {given!r}, expected "
            + ("a column, or " if key == "split" else "")
            + f"a file for each of {', '.join(SPLITS)} that there is, such as {{train: train.csv, test: test.csv}}"
        )
    return tuple((split, _file(given[split], key, path)) for split in SPLITS if split in given)


def _where(given: Any, path: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(given, dict):
        raise ListFormatError(
            f"{path}: list.where is {given!r}, expected columns and values such as {{view: [PA, AP]}}"
        )
    return tuple(
        (_text(column, "where", path), tuple(_text(one, f"where.{column}", path) for one in _as_list(values)))
        for column, values in given.items()
    )


def _as_list(values: Any) -> list[Any]:
    return values if isinstance(values, list) and values else [values]
