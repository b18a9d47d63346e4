"""The rows of a list, or of one a split, with what other lists join to them, as text."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from augment.list_format import ListFormat, template
from augment.sources.layout import Rejected
from augment.sources.names import ScanError
from common.errors import first_of
from common.lists import tables
from common.remote import Remote

OWN = "\0"  # begins the names of columns that are ours; no list has it
PATH, SPLIT, GROUP, READER = (f"{OWN}{name}" for name in ("path", "split", "group", "reader"))
FAULT = f"{OWN}fault"  # what is wrong with a row, whatever other rows of its image say
_HINT = "The recipe's section `list` says which columns hold what"


def completed(given: ListFormat, source: Path, *, has_pattern: bool) -> ListFormat:
    """A format with the columns group and split, in any case, where it names none and each of the lists has them."""
    headers = [tables.header(source / name) for _, name in given.files] or [tables.header(source)]
    usual = {name.casefold(): name for name in headers[0] if all(name in names for names in headers)}
    group = given.group or (None if has_pattern else usual.get("group"))
    return replace(given, group=group, split=given.split or (None if given.files else usual.get("split")))


def fetched(source: Remote, home: Remote, given: ListFormat, scratch: Path) -> Path:
    """A local copy of a remote list, or of the folder of lists, with all that is read beside it."""
    beside = [*given.join, *(name for _, name in given.files)]
    beside += [name for _, name in given.split] if isinstance(given.split, tuple) else []
    files = {name: home / name for name in beside} | ({} if given.files else {source.name: source})
    for name, file in files.items():
        copy = scratch / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.write_bytes(file.read())
        except OSError as error:
            raise ScanError(f"{file}: can't be read: {error.strerror}") from None
    return scratch if given.files else scratch / source.name


def read_rows(source: Path, home: Path, given: ListFormat) -> tuple[pd.DataFrame, list[Rejected], list[Path]]:
    """The rows of the list or lists, with what others join to them, as text; broken rows; and which files were read."""
    own = [(split, home / name) for split, name in given.files] or [("", source)]
    headers = {path: tables.header(path) for _, path in own}
    others = {home / name: tables.header(home / name) for name in given.join}
    elsewhere = {name for header in others.values() for name in header}
    has_readers = any(given.reader in names for names in headers.values())
    parts: list[pd.DataFrame] = []
    rejected: list[Rejected] = []
    for split, path in own:
        names = headers[path]
        keys = [name for name in names if name in elsewhere and name]
        columns = [name for name in given.columns if name in names or name not in elsewhere]
        if has_readers and given.reader not in names:  # a consensus, beside lists of several readers
            columns.remove(str(given.reader))
        part, broken = tables.read(path, list(dict.fromkeys([*columns, *keys])), _HINT)
        part[FAULT] = ""
        for other, header in others.items():
            part = _joined(part, other, header, given.columns, rejected)
        part[PATH] = _paths(part, given)
        rejected += [Rejected(f"{path.name}, row {at}", "no path") for at in part.index[part[PATH] == ""]]
        parts.append(part[part[PATH] != ""].assign(**{SPLIT: split}))
        rejected += [Rejected(*each) for each in broken]
    rows = pd.concat(parts, ignore_index=True)
    rows[GROUP] = rows[given.group] if given.group else ""
    rows[READER] = rows[given.reader].fillna("") if given.reader else ""
    if isinstance(given.split, str):
        rows[SPLIT] = rows[given.split]
    return rows, rejected, [*headers, *others]


def _joined(
    rows: pd.DataFrame, path: Path, header: list[str], wanted: list[str], rejected: list[Rejected]
) -> pd.DataFrame:
    """Rows with the wanted columns of another list, found by the columns that both have; where it has no row, a fault.

    Raises:
        ScanError: the two have no column in common, or no value of those; or the other has several rows of one.
    """
    keys = [name for name in rows if name in header and name]
    if not keys:
        raise ScanError(f"{path}: has no column in common with the list, by which its rows could be joined")
    added = [name for name in wanted if name in header and name not in keys]
    other, broken = tables.read(path, [*keys, *added], _HINT)
    rejected += [Rejected(*each) for each in broken]
    if (twice := other.duplicated(keys)).any():
        key = ", ".join(f"{name} {value}" for name, value in zip(keys, other.loc[twice, keys].iloc[0], strict=True))
        raise ScanError(f"{path}: has several rows of {key}; a list that is joined has one row for each")
    joined = rows.merge(other, how="left", on=keys, indicator=f"{OWN}found").set_axis(rows.index)
    is_missing = joined.pop(f"{OWN}found") == "left_only"
    if len(rows) and is_missing.all():
        raise ScanError(
            f"{path}: has no row for any row of the list, by the columns that both have, {first_of(keys)}; rename those that "
            "mean something else, or take the file out of list.join"
        )
    joined[FAULT] = joined[FAULT].where(~is_missing, f"no row in {path.name} of its {', '.join(keys)}")
    return joined.fillna("")


def _paths(rows: pd.DataFrame, given: ListFormat) -> "pd.Series[str]":
    """The path of each row: a column, or columns put together."""
    if "{" not in given.path:
        return rows[given.path]
    path = pd.Series("", index=rows.index, dtype=object)
    for before, column, length in template(given.path):
        path = path + before + (rows[column].str[:length] if column else "")
    return path
