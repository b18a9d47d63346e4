"""The contract between `augment` and `train`: one CSV row an image, one JSON card a set.

A manifest is read and written here and nowhere else, so that every reader meets a checked table and
every error names file, line, column, what was found and what was expected. README.md beside this file
is the column dictionary.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import UserError
from common.files import replacing, write_atomically

COLUMNS = (
    "path", "label", "split", "source", "group", "variant", "seed", "transform",
    "width", "height", "source_sha256", "sha256",
)  # fmt: skip
SPLITS = ("train", "val", "test")
SAMPLE_NOTICE = "Synthetic chest phantoms drawn by Evenset"  # how the notice of the built-in sample begins
GROUP_NAME = re.compile(r"[^\W\d_](?:[\w -]{0,28}[^\W_])?")  # what a recipe may call its groups
_NUMBERS = {"variant": 0, "seed": 0, "width": 1, "height": 1}  # column -> smallest value
_DIGESTS = ("source_sha256", "sha256")
_PART = 10_000  # rows that are made text at a time
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UPWARDS = re.compile(r"\.|\.\.(?:/\.\.)*")  # the folder of a manifest, or one around it


class ContractError(UserError):
    """A manifest or its card breaks the contract; the message names file, line, column and the fix."""


def card_path(manifest: Path) -> Path:
    """Where the card of `manifest` lies: NAME.json beside NAME.csv."""
    return manifest.with_suffix(".json")


def group_name(said: Any) -> str:
    """What a card's recipe, or a run's settings, call a group, in the singular: patient, say."""
    name = said.get("group_name") if isinstance(said, dict) else None
    return name if isinstance(name, str) and GROUP_NAME.fullmatch(name) else "group"


def value_range(recipe: object) -> tuple[float, float] | None:
    """The samples of deep images that a recipe, as card or settings.json has it, takes for black and white; None: as declared."""
    found = recipe.get("value_range") if isinstance(recipe, dict) else None
    if isinstance(found, list) and len(found) == 2 and all(isinstance(end, (int, float)) for end in found):
        return float(found[0]), float(found[1])
    return None


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest, or was one before it was damaged: by its header, or by the card beside it."""
    with path.open("rb") as file:
        if file.readline().strip() == ",".join(COLUMNS).encode():
            return True
    try:
        return "manifest_sha256" in read_card(path)
    except ContractError:
        return False


def read(manifest: Path) -> pd.DataFrame:
    """Read and validate a manifest.

    Returns:
        One row an image in file order: COLUMNS, of which variant, seed, width and height are int64 and
        the others strings.

    Raises:
        ContractError: the file is missing or is no CSV, or a row breaks the contract.
    """
    try:
        if manifest.exists() and not (manifest.is_file() or manifest.is_dir()):  # a pipe would be waited for
            raise ContractError(f"{manifest}: not a regular file; build the set again under another --manifest")
        with manifest.open(encoding="utf-8", newline="") as file:
            header = tuple(next(csv.reader(file), ()))
        if header != COLUMNS:
            raise ContractError(
                f"{manifest}, line 1: got the header {_clip(','.join(header))}, expected {','.join(COLUMNS)}"
            )
        rows = _parsed(manifest)
    except FileNotFoundError:
        raise ContractError(f"{manifest}: no such manifest; build one with `python -m augment build`") from None
    except pd.errors.ParserError as error:
        raise ContractError(_where_parsing_failed(manifest, str(error).strip())) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"{manifest}: not a readable CSV: {error}") from None
    if not isinstance(rows.index, pd.RangeIndex):  # what pandas makes of surplus fields in the first row
        fields = len(COLUMNS) + rows.index.nlevels
        raise ContractError(f"{manifest}, line 2: got {fields} fields, expected {len(COLUMNS)}")
    return validate(rows, manifest)


def read_before(error: ContractError, manifest: Path) -> pd.DataFrame:
    """The rows that stand before what `read` found fault with; none where it named no line."""
    found = re.search(r", line (\d+)", str(error))
    lines = int(found[1]) - 2 if found else 0
    if lines < 1:
        return pd.DataFrame(columns=COLUMNS)
    try:
        return validate(_parsed(manifest, lines), manifest)
    except ContractError as earlier:
        return read_before(earlier, manifest)


def _parsed(manifest: Path, lines: int | None = None) -> pd.DataFrame:
    # A blank line is a broken row, not nothing. With index_col=False pandas would drop surplus fields in silence.
    return pd.read_csv(
        manifest,
        dtype=str,
        keep_default_na=False,
        na_values=[],
        encoding="utf-8",
        skip_blank_lines=False,
        nrows=lines,
        engine="c",
    )


def read_card(manifest: Path) -> dict[str, Any]:
    """Read the card of `manifest`.

    Raises:
        ContractError: the card is missing or is no JSON object.
    """
    path = card_path(manifest)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise ContractError(f"{path}: not a regular file; move it away and build the set again")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContractError(f"{path}: the card of {manifest} is missing; build the set again") from None
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested deeper than anyone means it
        raise ContractError(f"{path}: not a readable card: {error}") from None
    if not isinstance(card, dict):
        raise ContractError(f"{path}: got a JSON {type(card).__name__}, expected an object")
    return card


def root_of(manifest: Path, given: Path | None = None) -> Path:
    """What a manifest's paths are relative to: as given, or else as its card has it, a folder that the manifest is in.

    The working directory stands as `.`, and where a card doesn't say.
    """
    if given is not None:
        return given
    try:
        recorded = read_card(manifest).get("root")
    except ContractError:
        return Path()
    if not (isinstance(recorded, str) and _UPWARDS.fullmatch(recorded)):
        return Path()
    root = (manifest.resolve().parent / recorded).resolve()
    return Path() if root == Path.cwd() else root


def root_seen_from(manifest: Path, root: Path) -> str | None:
    """The root as `root_of` finds it again, relative to the manifest's folder; None if the manifest isn't below it."""
    folder, root = manifest.resolve().parent, root.resolve()
    return "/".join([".."] * len(folder.relative_to(root).parts)) or "." if folder.is_relative_to(root) else None


def write(manifest: Path, rows: pd.DataFrame, card: dict[str, Any]) -> None:
    """Validate `rows`, then write card and manifest, each to a temporary file that is then renamed.

    The card gets the manifest's checksum as `manifest_sha256`. The manifest comes last: where it exists, the card
    and the images are there.

    Raises:
        ContractError: the rows break the contract; nothing is written.
        OSError: one of the two can't be written; then neither is there.
    """
    rows = validate(rows, manifest)
    digest = hashlib.sha256()
    is_written = False
    try:
        with replacing(manifest) as file:
            for part in csv_parts(rows):
                file.write(part)
                digest.update(part)
            text = json.dumps({**card, "manifest_sha256": digest.hexdigest()}, indent=2, ensure_ascii=False)
            write_atomically(card_path(manifest), f"{text}\n")
            is_written = True
    except BaseException:
        if is_written:
            card_path(manifest).unlink()
        raise


def csv_parts(rows: pd.DataFrame) -> Iterator[bytes]:
    """A table as CSV with a header, in parts: all of a million rows at once would take a gigabyte."""
    for start in range(0, max(len(rows), 1), _PART):
        part = rows.iloc[start : start + _PART]
        yield part.to_csv(index=False, header=start == 0, lineterminator="\n").encode()


def validate(rows: pd.DataFrame, manifest: Path) -> pd.DataFrame:
    """Check a table against the contract, whose numbers may be text, and give it back with them as int64.

    Raises:
        ContractError: the first row that breaks it.
    """
    if tuple(rows.columns) != COLUMNS:
        raise ContractError(f"{manifest}: got the columns {','.join(rows.columns)}, expected {','.join(COLUMNS)}")
    rows = rows.reset_index(drop=True)
    for column, rules in _RULES.items():
        values = rows[column].drop_duplicates()  # most values stand in many rows
        if column in _NUMBERS and values.dtype.kind in "iu":
            values = values[values < _NUMBERS[column]].astype(str)
        if column in _SURE and all(map(_SURE[column], values.where(values.notna(), ""))):
            continue
        for line, value in values.items():
            for holds, expected in rules:
                if not holds(value):
                    raise _broken(manifest, line, column, value, expected)
    for column in _NUMBERS:
        rows[column] = rows[column].astype("int64")
    original, untouched = rows["variant"] == 0, rows["transform"] == ""
    for line, transform in rows.loc[original != untouched, "transform"].items():
        expected = "nothing, as variant is 0" if transform else "a JSON list of what was applied"
        raise _broken(manifest, line, "transform", transform, expected)
    for line, path in rows.loc[rows["path"].duplicated(), "path"].items():
        raise _broken(manifest, line, "path", path, "each path once")
    for column in ("group", "source_sha256"):
        sides = rows[[column, "split"]].drop_duplicates()
        for line, value in sides.loc[sides[column].duplicated(), column].items():
            raise _broken(manifest, line, column, value, "rows of one split only (an earlier line has another)")
    return rows


def _broken(manifest: Path, row: int, column: str, value: object, expected: str) -> ContractError:
    # Fields hold no newlines (they are control characters), so a row is a line; the header is line 1.
    return ContractError(f"{manifest}, line {row + 2}, column {column}: got {_clip(value)}, expected {expected}")


def is_inside(path: str) -> bool:
    """Whether a path is relative, POSIX and does not lead out of where it starts."""
    return (
        {"", ".", ".."}.isdisjoint(path.split("/"))  # so that no file has two paths, either
        and "\\" not in path
        and not re.match(r"[A-Za-z]:", path)
    )


def expect_inside(root: Path, paths: Iterable[str], manifest: Path) -> None:
    """See that no path of a manifest leads out of its root, through a symbolic link of a file or of a folder.

    Raises:
        ContractError: the first that does.
    """
    top = os.path.realpath(root)
    folders: dict[str, bool] = {}

    def is_below(place: str) -> bool:
        return os.path.commonpath((top, os.path.realpath(place))) == top

    for path in paths:
        folder = path.rpartition("/")[0]
        if folder not in folders:
            folders[folder] = is_below(f"{root}/{folder}")
        place = f"{root}/{path}"
        if not folders[folder] or (os.path.islink(place) and not is_below(place)):  # noqa: PTH114  # a Path is slow to make
            raise ContractError(
                f"{manifest}: {path} leads out of {root} through a symbolic link; put the file itself there"
            )


def _is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


_Rule = tuple[Callable[[Any], object], str]
_FILLED: _Rule = (lambda value: isinstance(value, str), "a value (is the line cut off?)")
_PLAIN: _Rule = (lambda value: not _CONTROL.search(value), "no control characters")
_NAMED: _Rule = (lambda value: value != "", "a value")
_INSIDE: _Rule = (is_inside, "a relative POSIX path that stays inside its root")
_SPLIT: _Rule = (lambda value: value in SPLITS, f"one of {', '.join(SPLITS)}")
_DIGEST: _Rule = (re.compile(r"[0-9a-f]{64}").fullmatch, "64 lower-case hex digits")
_LISTED: _Rule = (lambda value: value == "" or _is_json_list(value), "a JSON list of what was applied")


def _number_from(least: int) -> _Rule:
    whole = re.compile(r"0|[1-9][0-9]{0,18}").fullmatch
    return lambda value: whole(value) and least <= int(value) < 2**63, f"a whole number from {least} to 2^63 - 1"


# Columns with a value a row: what matches here breaks no rule, and a million rows are soon looked through.
_SURE: dict[str, Callable[[str], object]] = {
    "path": re.compile(r"(?!.*(?:\.\.|//|/\./|/\.?$))[\w-]{2}[^\x00-\x1f\x7f\\:]*").fullmatch,
    "seed": re.compile(r"0|[1-9][0-9]{0,17}").fullmatch,
    "sha256": re.compile(r"[0-9a-f]{64}").fullmatch,
    "source_sha256": re.compile(r"[0-9a-f]{64}").fullmatch,
}
_RULES: dict[str, list[_Rule]] = {
    "path": [_FILLED, _PLAIN, _INSIDE],
    "label": [_FILLED, _PLAIN, _NAMED],
    "split": [_FILLED, _PLAIN, _SPLIT],
    "source": [_FILLED, _PLAIN, _NAMED, _INSIDE],
    "group": [_FILLED, _PLAIN, _NAMED],
    **{column: [_FILLED, _PLAIN, _number_from(least)] for column, least in _NUMBERS.items()},
    "transform": [_FILLED, _PLAIN, _LISTED],
    **{column: [_FILLED, _PLAIN, _DIGEST] for column in _DIGESTS},
}


def _where_parsing_failed(manifest: Path, fault: str) -> str:
    """Pandas's message in our words; it counts lines from 1, but rows from 0."""
    if surplus := re.search(r"in line (\d+), saw (\d+)", fault):
        return f"{manifest}, line {surplus[1]}: got {surplus[2]} fields, expected {len(COLUMNS)}"
    if cut := re.search(r"inside string starting at row (\d+)", fault):
        return f"{manifest}, line {int(cut[1]) + 1}: got a quote without its end, expected whole lines (is the file cut off?)"
    return f"{manifest}: not a readable CSV: {fault}"


def _clip(value: object) -> str:
    text = "nothing" if pd.isna(value) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
