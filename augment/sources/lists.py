"""A list of images (CSV, TSV, Parquet) -> its images with split, class and group, and all that is not taken, with the reason.

No image is opened. Every row ends as an image or among the rejected, and so does every file below the folder of images.
"""

import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augment.list_format import SPLITS, ListFormat, template
from augment.sources import findings
from augment.sources.findings import Finding
from augment.sources.layout import NOTICE, Rejected, ScanError, expect_class_names, files_below, split_of
from common.errors import did_you_mean, first_of, printable
from common.lists import tables
from common.lists.lookup import Lookup, Unlisted
from common.remote import Location, Remote

_OWN = "\0"  # begins the names of columns that are ours; no list has it
_HINT = "The recipe's section `list` says which columns hold path and label"
_NONE = "-"  # the split of an image that is in none of the files of a split
_PATH, _LABEL, _REASON, _SPLIT, _GROUP, _READER, _OUTSIDE = (
    f"{_OWN}{name}" for name in ("path", "label", "reason", "split", "group", "reader", "outside")
)


class Listing(NamedTuple):
    """What a list says: `files` with the text columns source (relative to `folder`), split, label and group, sorted.

    `group` is empty where the list names none, `split` where it has none.
    """

    folder: Location
    files: pd.DataFrame
    rejected: list[Rejected]
    list_format: ListFormat


def read_list(source: Location, given: ListFormat | None) -> Listing:
    """Read a list and look its images up.

    Args:
        source: the list, or the folder of the lists that `given.files` names.
        given: how it is read; None: as `usual_format` has it.

    Raises:
        ListError: a list can't be read or lacks a column.
        ScanError: there is no folder of images, no row has the positive finding,
            or a class has a name that no folder can have.
    """
    if isinstance(source, Remote):
        home = source if given and given.files else source.parent
        with tempfile.TemporaryDirectory() as scratch:
            local = _fetched(source, home, given, Path(scratch))
            given = given or usual_format(local)
            folder = home if given.images == "." else home / given.images
            below = folder.files() if folder.can_list else None
            return _read(local, given, folder, below, [])
    given = given or usual_format(source)
    folder_here = (source if given.files else source.parent) / given.images
    if not folder_here.is_dir():
        raise ScanError(f"{folder_here}: no such folder; list.images says where the images lie, relative to the list")
    return _read(source, given, folder_here, *files_below(folder_here))


def _fetched(source: Remote, home: Remote, given: ListFormat | None, scratch: Path) -> Path:
    """A local copy of a remote list, or of the folder of lists, with all that is read beside it."""
    beside = [*(given.join if given else ()), *(name for _, name in (given.files if given else ()))]
    beside += [name for _, name in given.split] if given and isinstance(given.split, tuple) else []
    for name in [*beside, *([] if given and given.files else [source.name])]:
        copy = scratch / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.write_bytes((home / name).read())
        except OSError as error:
            raise ScanError(f"{home / name}: can't be read: {error.strerror}") from None
    return scratch if given and given.files else scratch / source.name


def _read(
    source: Path, given: ListFormat, folder: Location, below: list[str] | None, unreadable: list[Rejected]
) -> Listing:
    """Read a list here, whose images lie in a folder with the files `below`, if that can be said."""
    home = source if given.files else source.parent
    rows, rejected, lists = _rows(source, home, given)
    rows[_LABEL], rows[_REASON] = _labels(rows, given)
    _expect_finding(rows, given, source)
    rows[_OUTSIDE] = _outside(rows, given)
    rows = rows[[_PATH, _LABEL, _REASON, _SPLIT, _GROUP, _READER, _OUTSIDE]]  # each copy of a column takes its time
    if isinstance(given.split, str):
        rows[_SPLIT] = rows[_SPLIT].map(split_of)
    lookup = Unlisted() if below is None else Lookup(below)
    rows[_PATH], unresolved = _resolved(rows[_PATH], lookup)
    rejected += unresolved
    rows = rows[rows[_PATH] != ""]
    if isinstance(given.split, tuple):
        rows[_SPLIT] = _split_files(rows[_PATH], lookup, home, given.split)
        lists += [home / name for _, name in given.split]
    files, left_out = _by_image(rows, given)
    expect_class_names(sorted(files["label"].unique()), source)
    unlisted = _unlisted(below or [], rows[_PATH], lists, folder)
    return Listing(folder, files, sorted({*rejected, *left_out, *unreadable, *unlisted}), given)


def _unlisted(files: list[str], named: "pd.Series[str]", lists: list[Path], folder: Location) -> list[Rejected]:
    """The files that no row names, but for the lists themselves and the source's notice."""
    unknown = set(files).difference(named.tolist(), _seen_from(folder, lists), (NOTICE,))
    return [Rejected(file, "not in the list") for file in sorted(unknown)]


def _seen_from(folder: Location, lists: list[Path]) -> list[str]:
    """Where lists lie below the folder of images, if they do; copies of remote ones have the names of those."""
    if isinstance(folder, Remote):
        return [each.name for each in lists]
    home, places = folder.resolve(), [each.resolve() for each in lists]
    return [place.relative_to(home).as_posix() for place in places if place.is_relative_to(home)]


def usual_format(source: Path) -> ListFormat:
    """How a list is read where the recipe doesn't say: by its columns path and label, and group and split if it has them."""
    names = tables.header(source)
    group, split = (name if name in names else None for name in ("group", "split"))
    return ListFormat(label="label", group=group, split=split)


def _rows(source: Path, home: Path, given: ListFormat) -> tuple[pd.DataFrame, list[Rejected], list[Path]]:
    """The rows of the list or lists, with what others join to them, as text; broken rows; and which files were read."""
    if given.files and not source.is_dir():
        raise ScanError(f"{source}: list.files names lists in a folder; give --source the folder")
    own = [(split, home / name) for split, name in given.files] or [("", source)]
    others = {home / name: tables.header(home / name) for name in given.join}
    parts: list[pd.DataFrame] = []
    rejected: list[Rejected] = []
    for split, path in own:
        names = tables.header(path)
        shared = {name for header in others.values() for name in header if name in names}
        elsewhere = {name for header in others.values() for name in header}
        columns = [name for name in given.columns if name in names or name not in elsewhere]
        part, broken = tables.read(path, list(dict.fromkeys([*columns, *sorted(shared)])), _HINT)
        for other, header in others.items():
            part = _joined(part, other, header, given.columns, rejected)
        parts.append(part.assign(**{_SPLIT: split}))
        rejected += [Rejected(*each) for each in broken]
    rows = pd.concat(parts, ignore_index=True)
    rows[_PATH] = _paths(rows, given)
    rows[_GROUP] = _text(map(_normal, rows[given.group].tolist()), rows) if given.group else ""
    rows[_READER] = rows[given.reader] if given.reader else ""
    if isinstance(given.split, str):
        rows[_SPLIT] = rows[given.split]
    return rows, rejected, [*(path for _, path in own), *others]


def _joined(
    rows: pd.DataFrame, path: Path, header: list[str], wanted: list[str], rejected: list[Rejected]
) -> pd.DataFrame:
    """Rows with the wanted columns of another list, found by the columns that both have; blank where it has no row."""
    keys = [name for name in rows if name in header]
    if not keys:
        raise ScanError(f"{path}: has no column in common with the list, by which its rows could be joined")
    added = [name for name in wanted if name in header and name not in keys]
    other, broken = tables.read(path, [*keys, *added], _HINT)
    rejected += [Rejected(*each) for each in broken]
    if (twice := other.duplicated(keys)).any():
        key = ", ".join(f"{name} {value}" for name, value in zip(keys, other.loc[twice, keys].iloc[0], strict=True))
        raise ScanError(f"{path}: has several rows of {key}; a list that is joined has one row for each")
    return rows.merge(other, how="left", on=keys).fillna("")


def _paths(rows: pd.DataFrame, given: ListFormat) -> "pd.Series[str]":
    """The path of each row: a column, or columns put together."""
    if "{" not in given.path:
        return rows[given.path]
    path = pd.Series("", index=rows.index, dtype=object)
    for before, column, length in template(given.path):
        path = path + before + (rows[column].str[:length] if column else "")
    return path


def _labels(rows: pd.DataFrame, given: ListFormat) -> tuple["pd.Series[str]", "pd.Series[str]"]:
    """The class of each row, and why it has none. What cells say alike is looked at once."""
    cells: list[Any]
    if given.label:
        cells = rows[given.label].tolist()
        found = {cell: findings.of_cell(cell, given) for cell in set(cells)}
    else:
        columns = [given.positive, *([given.negative] if given.negative else [])]
        cells = list(zip(*(rows[name].tolist() for name in columns), strict=True))
        found = {cell: findings.of_columns(cell[0], cell[1] if given.negative else None, given) for cell in set(cells)}
    labels = {cell: _normal(finding.label) for cell, finding in found.items()}
    reasons = {cell: finding.reason for cell, finding in found.items()}
    return _text((labels[cell] for cell in cells), rows), _text((reasons[cell] for cell in cells), rows)


def _expect_finding(rows: pd.DataFrame, given: ListFormat, source: Path) -> None:
    """Refuse a finding that no row has: its name is spelt otherwise."""
    if not given.label or given.positive is None:
        return
    known = sorted({finding for cell in rows[given.label].unique() for finding in findings.findings_of(cell, given)})
    for key, finding in (("positive", given.positive), ("negative", given.negative)):
        if finding is not None and finding not in known:
            raise ScanError(
                f"{source}: list.{key} is {finding!r}, and no row has that finding{did_you_mean(finding, known)}; the column "
                f"{given.label} has {first_of(known)}"
            )


def _outside(rows: pd.DataFrame, given: ListFormat) -> "pd.Series[str]":
    """Why a row is not looked at: the filter, a split or a group that can't be; empty for a row that is.

    Raises:
        ScanError: no row has what a filter wants: it is spelt otherwise.
    """
    faults: list[tuple[str, dict[str, str]]] = []  # of a column, what is wrong with some of its cells
    for column, values in given.where:
        wanted, cells = " or ".join(values), sorted(rows[column].unique())
        if cells and not set(values) & set(cells):
            raise ScanError(
                f"list.where: no row has {wanted} as its {column}{did_you_mean(values[0], cells)}; the column has {first_of([cell or 'blank' for cell in cells])}"
            )
        others = (cell for cell in cells if cell not in values)
        faults.append((column, {cell: f"left out: {column} is {cell!r:.40}, not {wanted}" for cell in others}))
    if isinstance(given.split, str):
        expected = f"expected one of {', '.join(SPLITS)}"
        unknown = (name for name in rows[_SPLIT].unique() if name and not split_of(name))
        faults.append((_SPLIT, {name: f"{given.split} is {name!r:.40}, {expected}" for name in unknown}))
    unprintable = (name for name in rows[_GROUP].unique() if not name.isprintable())
    faults.append((_GROUP, dict.fromkeys(unprintable, "a group with control characters")))
    reasons = pd.Series("", index=rows.index, dtype=object)
    for column, why in faults:
        if why:
            reasons = reasons.where(reasons != "", _text((why.get(cell, "") for cell in rows[column].tolist()), rows))
    return reasons


def _resolved(paths: "pd.Series[str]", lookup: Lookup | Unlisted) -> tuple["pd.Series[str]", list[Rejected]]:
    """The file of each path, relative to the folder of images; empty, and among the rejected, where there is none."""
    files, reasons = lookup.find_all(paths.tolist())
    rejected = {Rejected(printable(path) or "a row", reason) for path, reason in reasons.items()}
    return _text(files, paths), sorted(rejected)


def _split_files(
    files: "pd.Series[str]", lookup: Lookup | Unlisted, home: Path, given: tuple[tuple[str, str], ...]
) -> "pd.Series[str]":
    """The split of each image by files that hold a path a line; an image that is in none is named as such."""
    splits: dict[str, str] = {}
    for split, name in given:
        try:
            lines = list(map(str.strip, (home / name).read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise ScanError(f"{home / name}: can't be read: {getattr(error, 'strerror', None) or error}") from None
        found, _ = lookup.find_all(lines)
        of_split = dict.fromkeys(filter(None, found), split)
        if splits.keys() & of_split.keys():
            line, file = next((line, file) for line, file in zip(lines, found, strict=True) if file in splits)
            raise ScanError(f"{home / name}: {line} is in {splits[file]} too; take it out of one of the files")
        splits |= of_split
    return _text((splits.get(file, _NONE) for file in files.tolist()), files)


def _by_image(rows: pd.DataFrame, given: ListFormat) -> tuple[pd.DataFrame, list[Rejected]]:
    """The images of rows whose files were found, and those that are left out, with the reason."""
    twice = rows[_PATH].duplicated(keep=False)
    inside = rows[_OUTSIDE] == ""
    several = rows[inside & twice]
    outside = rows[~inside].drop_duplicates(_PATH)
    outside = outside[~outside[_PATH].isin(several[_PATH])]
    columns = [_PATH, _SPLIT, _LABEL, _GROUP, _REASON]
    images = rows.loc[inside & ~twice, columns]
    if not several.empty:
        combined = [_image(str(path), part, given) for path, part in several.groupby(_PATH)]
        images = pd.concat([images, pd.DataFrame(combined, columns=columns, dtype=object)], ignore_index=True)
    in_none = images[_SPLIT] == _NONE
    images[_REASON] = images[_REASON].where(~in_none, "in none of the files of list.split")
    images[_LABEL] = images[_LABEL].where(~in_none, "")
    left_out = images[images[_LABEL] == ""]
    pairs = [
        *zip(left_out[_PATH].tolist(), left_out[_REASON].tolist(), strict=True),
        *zip(outside[_PATH].tolist(), outside[_OUTSIDE].tolist(), strict=True),
    ]
    files = images.loc[images[_LABEL] != "", columns[:4]].sort_values(_PATH, kind="stable", ignore_index=True)
    return files.set_axis(["source", "split", "label", "group"], axis=1), [Rejected(*pair) for pair in pairs]


def _image(path: str, rows: pd.DataFrame, given: ListFormat) -> tuple[str, str, str, str, str]:
    """An image that several rows are about: path, split, label, group, and the reason if it has no label."""
    for column, what in ((_GROUP, "groups"), (_SPLIT, "splits")):
        if len(named := sorted(set(rows[column]))) > 1:
            return path, "", "", "", f"its rows name several {what}: {', '.join(named)}"
    found = [Finding(*pair) for pair in zip(rows[_LABEL], rows[_REASON], strict=True)]
    label, reason = findings.combine(found, rows[_READER].tolist(), given)
    return path, rows[_SPLIT].iloc[0], label, rows[_GROUP].iloc[0], reason


def _text(cells: Iterable[str], like: "pd.DataFrame | pd.Series[str]") -> "pd.Series[str]":
    """A column beside others, of Python's own text: that of pandas is slow to make and to go through."""
    return pd.Series(list(cells), index=like.index, dtype=object)


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)
