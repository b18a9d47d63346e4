"""A list as people have it (CSV, TSV, Parquet; from a spreadsheet or a challenge) -> a table of text.

Only the encoding and the separator are guessed: `01` stays `01`, `NA` stays `NA`, a blank cell is an empty text. All text
is in Unicode's composed form.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from common.errors import UserError, did_you_mean, first_of
from common.lists import nfc

if TYPE_CHECKING:
    from types import ModuleType

_SEPARATORS = ",;\t|"
_PARQUET = (".parquet", ".pq")
LISTS = (".csv", ".tsv", *_PARQUET)  # endings by which a list is known where nothing else says so
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_LINES = 20  # by which the separator is chosen
_CHUNK = 256  # rows that are taken in at a time: more outlive a round of the garbage collector, which is slow


class ListError(UserError):
    """A list can't be read; the message names the file and the fix."""


def header(path: Path) -> list[str]:
    """The names of a list's columns, without spaces around them.

    Raises:
        ListError: as `read` has it.
    """
    if path.suffix.lower() in _PARQUET:
        with _parquet(path) as pl:
            return [nfc(name.strip()) for name in pl.read_parquet_schema(path)]
    with _rows_of(path) as rows:
        return _header(rows, path)


def read(path: Path, columns: list[str], hint: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Read some columns of a list.

    Args:
        path: of a CSV or TSV file, UTF-8 or with a byte order mark, plain or .gz, or of a Parquet file.
        columns: their names.
        hint: what to do where one of them is missing.

    Returns:
        The columns, as text without spaces around, in the file's order, with the rows' numbers as a spreadsheet counts
        them; and of each row that has more or fewer cells than the header, where it stands and what is wrong with it.

    Raises:
        ListError: the file can't be read, or it lacks a column or has one of them twice.
    """
    if path.suffix.lower() in _PARQUET:
        names = header(path)
        _expect(columns, names, path, hint)
        with _parquet(path) as pl:
            stored = list(pl.read_parquet_schema(path))  # with spaces around, maybe
            kept = {name: stored[names.index(name)] for name in columns}
            table = pl.read_parquet(path, columns=list(kept.values()))
        texts = {name: list(map(_as_text, table[column].to_list())) for name, column in kept.items()}
        return pd.DataFrame(texts, index=_numbers(2 + len(table), []), dtype=object), []
    cells: list[list[str]] = [[] for _ in columns]
    rejected: list[tuple[str, str]] = []
    skipped: list[int] = []  # rows that are broken or blank, as spreadsheets leave them
    with _rows_of(path) as rows:
        names = _header(rows, path)
        _expect(columns, names, path, hint)
        places = [names.index(name) for name in columns]
        number = 2  # of a row, as a spreadsheet counts them
        while chunk := list(islice(rows, _CHUNK)):
            for at, row in enumerate(chunk, number) if set(map(len, chunk)) != {len(names)} else ():
                if any(row) and (len(row) < len(names) or any(row[len(names) :])):
                    rejected.append((f"{path.name}, row {at}", f"has {len(row)} cells, the header {len(names)}"))
                    row.clear()
            whole = [row for row in chunk if any(row)]
            if len(whole) < len(chunk):
                skipped += [at for at, row in enumerate(chunk, number) if not any(row)]
            number += len(chunk)
            for column, at in zip(cells, places, strict=True):
                part = list(map(str.strip, map(itemgetter(at), whole)))
                if not "".join(part).isascii():
                    part = list(map(nfc, part))
                is_repeating = 2 * len(set(part)) < len(part)  # then each value is kept once: less memory and time
                column.extend(map(intern, part) if is_repeating else part)
    return pd.DataFrame(dict(zip(columns, cells, strict=True)), index=_numbers(number, skipped), dtype=object), rejected


def _numbers(end: int, skipped: list[int]) -> pd.Index:
    """Rows' numbers, the header's being 1: those from 2 to before `end` but for some."""
    return pd.Index(np.delete(np.arange(2, end), np.array(skipped, np.int64) - 2)) if skipped else pd.RangeIndex(2, end)


def _expect(columns: list[str], found: list[str], path: Path, hint: str) -> None:
    for name in columns:
        if name not in found:
            has = f"it has {first_of(found)}"
            raise ListError(f"{path}: has no column {name!r}{did_you_mean(name, found)}; {has}. {hint}")
        if found.count(name) > 1:
            raise ListError(f"{path}: has the column {name!r} {found.count(name)} times; rename the others")


@contextmanager
def _rows_of(path: Path) -> "Iterator[Any]":
    """A reader of a text table's rows, whatever goes wrong with which is the user's to mend."""
    reader = None
    try:
        with _opened(path) as file:
            start = 0
            while not (first := file.readline()).strip() and first:  # blank lines before the header
                start = file.tell()
            if not (first.lower().startswith("sep=") and len(first.strip()) == 5):  # as spreadsheets write it
                lines = [first, *islice(file, _LINES)]
                file.seek(start)
                separator = max(_SEPARATORS, key=partial(_fit, lines))
            else:
                separator = first.strip()[4]
            reader = csv.reader(file, delimiter=separator, strict=True)
            yield reader
    except OSError as error:
        raise ListError(f"{path}: can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ListError(f"{path}: is not UTF-8 ({error.reason}); save it as CSV in UTF-8") from None
    except (csv.Error, EOFError, zlib.error) as error:
        line = f", line {reader.line_num}" if reader else ""
        raise ListError(f"{path}{line}: not a readable CSV: {error}") from None


def _fit(lines: list[str], separator: str) -> tuple[bool, float, int]:
    """How well a separator divides the first lines: into columns at all, into as many everywhere, into many."""
    try:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator) if row] or [0]
    except csv.Error:
        return False, 0, 0
    return counts[0] > 1, counts.count(counts[0]) / len(counts), counts[0]


def _opened(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    with path.open("rb") as file:
        start = file.read(1024)
    encoding = next((name for mark, name in _BOMS if start.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in start:
        raise ListError(
            f"{path}: is neither a folder nor a list (CSV, TSV, Parquet); unpack an archive, save a spreadsheet as CSV"
        )
    return path.open(encoding=encoding, newline="")


def _header(rows: Iterator[list[str]], path: Path) -> list[str]:
    names = [nfc(name.strip()) for name in next(rows, [])]
    if not any(names):
        raise ListError(f"{path}: is empty; expected a line with the columns' names, then a line a row")
    return names


@contextmanager
def _parquet(path: Path) -> "Iterator[ModuleType]":
    """polars, whatever goes wrong with whose reading is the user's to mend."""
    try:
        import polars as pl
    except ImportError:
        raise ListError(
            f"{path}: Parquet needs a package: python -m pip install -r requirements-parquet.txt; or save it as CSV"
        ) from None
    try:
        yield pl
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ListError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}") from None


def _as_text(value: Any) -> str:
    """A typed cell as text: whole numbers without a fraction, since columns with gaps may be of floats."""
    if value is None or value != value:  # noqa: PLR0124  # not a number
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return nfc((value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip())
