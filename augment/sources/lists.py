"""A list of images (CSV, TSV, Parquet) -> its images with split, class and group, and all that is not taken, with the reason.

No image is opened. Every row ends as an image or among the rejected, and so does every file below the folder of images.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augment.list_format import SPLITS, ListFormat
from augment.sources import findings
from augment.sources.findings import Finding
from augment.sources.layout import Rejected, files_below
from augment.sources.list_rows import FAULT, GROUP, OWN, PATH, READER, SPLIT, completed, fetched, read_rows
from augment.sources.names import NOTICE, ScanError, expect_class_names, look_of, split_of
from common.errors import did_you_mean, first_of, printable
from common.lists.lookup import Lookup, Unlisted
from common.remote import Location, Remote

# Why a row has no class, by which rule it has one, and why the recipe doesn't want it.
_LABEL, _REASON, _RULE, _OUTSIDE = (f"{OWN}{name}" for name in ("label", "reason", "rule", "outside"))
_NONE = "-"  # the split of an image that is in none of the files of a split
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SEPARATED = re.compile(r"[|;,]")


class Listing(NamedTuple):
    """What a list says: `files` with the text columns source (relative to `folder`), split, label and group, sorted.

    `group` is empty where the list names none, `split` where it has none. `warnings` say how often the recipe's rules
    decided.
    """

    folder: Location
    files: pd.DataFrame
    rejected: list[Rejected]
    list_format: ListFormat
    warnings: list[str]


def read_list(source: Location, given: ListFormat | None, *, has_pattern: bool = False) -> Listing:
    """Read a list and look its images up.

    Args:
        source: the list, or the folder of the lists that `given.files` names.
        given: how it is read. What it leaves out is read from columns called group and split, if the list has them.
        has_pattern: the recipe has a pattern for groups, so that a column called group has to be named to be read.

    Raises:
        ListError: a list can't be read or lacks a column.
        ScanError: there is no folder of images, no row has the positive finding,
            or a class has a name that no folder can have.
    """
    given = given or ListFormat(label="label")
    if isinstance(source, Remote):
        home = source if given.files else source.parent
        with tempfile.TemporaryDirectory() as scratch:
            local = fetched(source, home, given, Path(scratch))
            folder = home if given.images == "." else home / given.images
            below = folder.files() if folder.can_list else None
            return _read(local, completed(given, local, has_pattern=has_pattern), folder, below, [])
    if given.files and not source.is_dir():
        raise ScanError(f"{source}: list.files names lists in a folder; give --source the folder")
    folder_here = (source if given.files else source.parent) / given.images
    if not folder_here.is_dir():
        raise ScanError(f"{folder_here}: no such folder; list.images says where the images lie, relative to the list")
    return _read(source, completed(given, source, has_pattern=has_pattern), folder_here, *files_below(folder_here))


def _read(
    source: Path, given: ListFormat, folder: Location, below: list[str] | None, unreadable: list[Rejected]
) -> Listing:
    """Read a list here, whose images lie in a folder with the files `below`, if that can be said."""
    home = source if given.files else source.parent
    rows, rejected, lists = read_rows(source, home, given)
    rows[_LABEL], rows[_REASON], rows[_RULE] = _labels(rows, given)
    _expect_finding(rows, given, source)
    rows[_OUTSIDE], rows[FAULT] = _outside(rows, given), _faults(rows, given)
    columns = [PATH, _LABEL, _REASON, _RULE, SPLIT, GROUP, READER, _OUTSIDE, FAULT]
    rows = rows[columns]  # each copy of another column takes its time
    if isinstance(given.split, str):
        rows[SPLIT] = rows[SPLIT].map(split_of)
    lookup = Unlisted() if below is None else Lookup(below)
    paths = rows[PATH]
    rows[PATH], unresolved = _resolved(paths, lookup)
    rejected += unresolved
    rows = rows[rows[PATH] != ""]
    if isinstance(given.split, tuple):
        rows[SPLIT], unknown = _split_files(rows[PATH], lookup, home, given.split, set(paths))
        rejected += unknown
        lists += [home / name for _, name in given.split]
    files, left_out, warnings = _by_image(rows, given)
    expect_class_names(sorted(files["label"].unique()), source)
    unlisted = _unlisted(below or [], rows[PATH], lists, folder)
    return Listing(folder, files, sorted({*rejected, *left_out, *unreadable, *unlisted}), given, warnings)


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


def _labels(rows: pd.DataFrame, given: ListFormat) -> list["pd.Series[str]"]:
    """The class of each row, why it has none, and by which rule it has. What cells say alike is looked at once."""
    cells: list[Any]
    if given.label:
        cells = rows[given.label].tolist()
        found = {cell: findings.of_cell(cell, given) for cell in set(cells)}
    else:
        columns = [given.positive, *([given.negative] if given.negative else [])]
        cells = list(zip(*(rows[name].tolist() for name in columns), strict=True))
        found = {cell: findings.of_columns(cell[0], cell[1] if given.negative else None, given) for cell in set(cells)}
    parts: list[dict[Any, str]] = [{cell: finding[at] for cell, finding in found.items()} for at in range(3)]
    return [_text((part[cell] for cell in cells), rows) for part in parts]


def _expect_finding(rows: pd.DataFrame, given: ListFormat, source: Path) -> None:
    """Refuse a finding that no row has: its name is spelt otherwise."""
    if not given.label or given.positive is None:
        return
    known = sorted({finding for cell in rows[given.label].unique() for finding in findings.findings_of(cell, given)})
    for key, wanted in (("positive", given.positive), ("negative", given.negative)):
        if wanted is None:
            continue
        fault = next((fault for finding in known if (fault := _likeness(finding, wanted, given))), "")
        if wanted not in known or fault:
            fault = fault or f"and no row has that finding{did_you_mean(wanted, known)}"
            raise ScanError(
                f"{source}: list.{key} is {wanted!r}, {fault}; the column {printable(given.label)} has {_some(known)}"
            )


def _likeness(finding: str, wanted: str, given: ListFormat) -> str:
    """Why a finding that isn't the wanted one may well mean it, which would make a class of its images wrong."""
    if finding == wanted:
        return ""
    if look_of(finding) == look_of(wanted):
        return f"and a row has {finding!a}, which looks the same; mend the list"
    separator = None if given.separator else _SEPARATED.search(finding)
    if separator and wanted in map(str.strip, _SEPARATED.split(finding)):
        return (
            f"and a row has {finding!r:.80}, which may be several findings; say so by list.separator: {separator[0]!r}, or "
            "mend the list"
        )
    return ""


def _outside(rows: pd.DataFrame, given: ListFormat) -> "pd.Series[str]":
    """Why the recipe's filter leaves a row out; empty for a row that it takes.

    Raises:
        ScanError: no row has what a filter wants: it is spelt otherwise.
    """
    reasons = pd.Series("", index=rows.index, dtype=object)
    for column, values in given.where:
        wanted, cells = " or ".join(values), sorted(rows[column].unique())
        if cells and not set(values) & set(cells):
            shown = _some([cell or "blank" for cell in cells])
            raise ScanError(
                f"list.where: no row has {wanted} as its {column}{did_you_mean(values[0], cells)}; the column has {shown}"
            )
        is_left_out = (reasons == "") & ~rows[column].isin(values)
        reasons = reasons.where(~is_left_out, f"left out: {column} is not {wanted}")
    return reasons


def _faults(rows: pd.DataFrame, given: ListFormat) -> "pd.Series[str]":
    """What is wrong with a row: it lacks one of another list, or its split or group can't be."""
    faults: dict[str, dict[str, str]] = {GROUP: {}, SPLIT: {}}  # of a column, what is wrong with some of its cells
    if isinstance(given.split, str):
        expected = f"expected one of {', '.join(SPLITS)}"
        unknown = (name for name in rows[SPLIT].unique() if name and not split_of(name))
        faults[SPLIT] = {name: f"{given.split} is {name!r:.40}, {expected}" for name in unknown}
    unprintable = filter(_CONTROL.search, rows[GROUP].unique())
    faults[GROUP] = dict.fromkeys(unprintable, "a group with control characters")
    found = rows[FAULT]
    for column, why in faults.items():
        if why:
            found = found.where(found != "", _text((why.get(cell, "") for cell in rows[column].tolist()), rows))
    return found


def _resolved(paths: "pd.Series[str]", lookup: Lookup | Unlisted) -> tuple["pd.Series[str]", list[Rejected]]:
    """The file of each path, relative to the folder of images; empty, and among the rejected, where there is none."""
    files, reasons = lookup.find_all(paths.tolist())
    rejected = {Rejected(_shown(path) or "a row", reason) for path, reason in reasons.items()}
    return _text(files, paths), sorted(rejected)


def _shown(path: str) -> str:
    """A path that no file was found for, without a query, which may hold a signature."""
    name, _, query = path.partition("?")
    return printable(f"{name}?..." if "=" in query else path)


def _split_files(
    files: "pd.Series[str]",
    lookup: Lookup | Unlisted,
    home: Path,
    given: tuple[tuple[str, str], ...],
    paths: set[str],
) -> tuple["pd.Series[str]", list[Rejected]]:
    """The split of each image by files that hold a path a line; an image that is in none is named as such.

    And the lines that no file is found for, but those that stand in the list as well, as one of its `paths`.
    """
    splits: dict[str, str] = {}
    rejected: list[Rejected] = []
    for split, name in given:
        try:
            lines = list(map(str.strip, (home / name).read_text(encoding="utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise ScanError(f"{home / name}: can't be read: {getattr(error, 'strerror', None) or error}") from None
        found, reasons = lookup.find_all(lines)
        unknown = {line: reason for line, reason in reasons.items() if line and line not in paths}
        rejected += [Rejected(f"{name}: {_shown(line):.80}", reason) for line, reason in unknown.items()]
        of_split = dict.fromkeys(filter(None, found), split)
        if splits.keys() & of_split.keys():
            line, file = next((line, file) for line, file in zip(lines, found, strict=True) if file in splits)
            raise ScanError(f"{home / name}: {line} is in {splits[file]} too; take it out of one of the files")
        splits |= of_split
    return _text((splits.get(file, _NONE) for file in files.tolist()), files), rejected


def _by_image(rows: pd.DataFrame, given: ListFormat) -> tuple[pd.DataFrame, list[Rejected], list[str]]:
    """The images of rows whose files were found, those that are left out, with the reason, and where a rule decided."""
    twice = rows[PATH].duplicated(keep=False)
    inside = rows[_OUTSIDE] == ""
    several = rows[inside & twice]
    outside = rows[~inside].drop_duplicates(PATH)
    outside = outside[~outside[PATH].isin(several[PATH])]
    columns = [PATH, SPLIT, _LABEL, GROUP, _REASON, _RULE]
    images = rows.loc[inside & ~twice, [*columns, FAULT]]
    if (images[FAULT] != "").any():
        images[_REASON] = images[_REASON].where(images[FAULT] == "", images[FAULT])
        images[_LABEL] = images[_LABEL].where(images[FAULT] == "", "")
    images = images[columns]
    if not several.empty:
        combined = [_image(str(path), part, given) for path, part in several.groupby(PATH)]
        images = pd.concat([images, pd.DataFrame(combined, columns=columns, dtype=object)], ignore_index=True)
    in_none = images[SPLIT] == _NONE
    images[_REASON] = images[_REASON].where(~in_none, "in none of the files of list.split")
    images[_LABEL] = images[_LABEL].where(~in_none, "")
    left_out = images[images[_LABEL] == ""]
    pairs = [
        *zip(left_out[PATH].tolist(), left_out[_REASON].tolist(), strict=True),
        *zip(outside[PATH].tolist(), outside[_OUTSIDE].tolist(), strict=True),
    ]
    images = images[images[_LABEL] != ""]
    by_rule = Counter(zip(images[_LABEL].tolist(), images[_RULE].tolist(), strict=True))
    warnings = [
        f"{count:,} {'image counts' if count == 1 else 'images count'} as {label} because {rule}, by the recipe's rule for that"
        for (label, rule), count in sorted(by_rule.items())
        if rule
    ]
    files = images[columns[:4]].sort_values(PATH, kind="stable", ignore_index=True)
    files = files.set_axis(["source", "split", "label", "group"], axis=1)
    return files, [Rejected(*pair) for pair in pairs], warnings


def _image(path: str, rows: pd.DataFrame, given: ListFormat) -> tuple[str, str, str, str, str, str]:
    """An image that several rows are about: path, split, label, group, the reason if it has no label, and the rule."""
    named = {column: sorted({*rows[column]} - {""}) for column in (GROUP, SPLIT)}
    for column, what in ((GROUP, "groups"), (SPLIT, "splits")):
        if len(names := named[column]) > 1:
            return path, "", "", "", f"its rows name several {what}: {first_of(names)}", ""
    if fault := next(filter(None, rows[FAULT]), ""):
        return path, "", "", "", fault, ""
    found = [Finding(*pair) for pair in zip(rows[_LABEL], rows[_REASON], strict=True)]
    label, reason, _ = findings.combine(found, rows[READER].tolist(), given)
    rules = {rule for rule, of_row in zip(rows[_RULE], rows[_LABEL], strict=True) if of_row == label}
    split, group = (next(iter(named[column]), "") for column in (SPLIT, GROUP))
    return path, split, label, group, reason, min(rules, default="")


def _some(cells: Sequence[str]) -> str:
    """The first of what cells hold, for a message: of reports, how they begin."""
    return first_of([f"{cell:.60}" for cell in cells])


def _text(cells: Iterable[str], like: "pd.DataFrame | pd.Series[str]") -> "pd.Series[str]":
    """A column beside others, of Python's own text: that of pandas is slow to make and to go through."""
    return pd.Series(list(cells), index=like.index, dtype=object)
