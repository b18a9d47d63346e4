"""The tables of a run folder, written and read again with declared types: text stays text, numbers keep all digits."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from common.errors import UserError
from common.files import write_atomically

_Kinds = Mapping[str, type]  # column -> str, int or float

HISTORY: _Kinds = {
    "phase": str,
    "epoch": int,
    "loss": float,
    "accuracy": float,
    "val_loss": float,
    "val_accuracy": float,
}
FOLDS: _Kinds = {"repeat": int, "fold": int}  # of the tables of a cross-validation
_IMAGE: _Kinds = {"path": str, "source_sha256": str, "label": str, "group": str, "phase": str}


class TableError(UserError):
    """A table can't be read, or written where it is to go; the message names the place, what was found and the fix."""


def probability(label: str) -> str:
    """The column of a class's probability.

    It begins as no other column of a table does, so a class may be called `split` or `path`.
    """
    return f"p({label})"


def predictions(classes: Sequence[str]) -> _Kinds:
    """The columns of predictions.csv that every run has; beside them `predicted (OPERATING POINT)`, which are text.

    Args:
        classes: the names of the run's classes.
    """
    return {**_IMAGE, "split": str, **{probability(label): float for label in classes}}


def out_of_fold(classes: Sequence[str]) -> _Kinds:
    """The columns of out_of_fold.csv; `classes` as for `predictions`."""
    return {**_IMAGE, **FOLDS, **{probability(label): float for label in classes}}


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table: UTF-8, comma-separated, floats with as many digits as give the same float again."""
    # A float32 is widened first: its own shortest digits, read as float64, are another number.
    wide = table.astype(dict.fromkeys(table.select_dtypes("float32"), "float64"))
    write_atomically(path, wide.to_csv(index=False, lineterminator="\n"))


def check_out(out: Path, begins: str, what: str) -> None:
    """Whether a table that a user asks for may be written to `out`.

    Args:
        out: the file.
        begins: how the header of such a table begins, which another may replace.
        what: what it is called.

    Raises:
        TableError: it would take the place of something else, or there is no such folder.
    """
    if out.suffix.lower() != ".csv":
        raise TableError(f"--out {out}: the table is a CSV; give a name that ends in .csv")
    if os.path.lexists(out) and not _begins(out, begins):
        raise TableError(f"--out {out}: is there already, and no {what}; give another name")
    above = next(place for place in out.absolute().parents if os.path.lexists(place))
    if not above.is_dir():
        raise TableError(f"--out {out}: {above} is no folder; give another place")


def _begins(path: Path, begins: str) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return path.is_file() and file.readline(4096).startswith(begins)
    except (OSError, UnicodeDecodeError):
        return False


def read(path: Path, kinds: _Kinds) -> pd.DataFrame:
    """Read a table.

    Args:
        path: the file.
        kinds: the columns that are not text, and those that have to be there.

    Returns:
        Every column of the file, those in `kinds` as declared (int64, float64 or str) and all others as str.

    Raises:
        OSError: the file can't be read.
        TableError: it is no CSV, a column is missing, or a value is no number.
    """
    text = path.read_bytes()
    try:
        table = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False, na_values=[], encoding="utf-8")
    except (ValueError, pd.errors.ParserError) as error:  # UnicodeDecodeError and EmptyDataError are ValueErrors
        raise TableError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(table.index, pd.RangeIndex):  # what pandas makes of more fields than the header has
        raise TableError(f"{path} is damaged: line 2 has more fields than the header")
    for column, kind in kinds.items():
        if column not in table:
            raise TableError(f"{path} is damaged or of an older version: it has no column {column!r}")
        if kind is not str:
            table[column] = _numbers(path, table[column], kind)
    return table


def _numbers(path: Path, texts: pd.Series, kind: type) -> pd.Series:
    """A column of text as int64 or float64."""
    try:
        return texts.astype("int64" if kind is int else "float64")
    except (ValueError, OverflowError):
        for line, text in enumerate(texts, 2):
            try:
                kind(text)
            except ValueError:
                expected = "a whole number" if kind is int else "a number"
                raise TableError(
                    f"{path} is damaged: line {line}, column {texts.name}: got {text!r:.80}, expected {expected}"
                ) from None
        raise TableError(f"{path} is damaged: column {texts.name} holds numbers that are too large") from None
