"""What rendering noticed of sources that can be used, but may not look as they were meant to."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from common.images.notes import FEW_BITS, WARNINGS

if TYPE_CHECKING:
    import pandas as pd


class Noted(NamedTuple):
    """A note on a source. `largest` is its largest sample as stored, if it has more than 8 bits."""

    source: str
    note: str
    largest: float | None = None
    source_sha256: str = ""


def read_notes(card: dict[str, Any]) -> set[Noted]:
    """The notes in a card, which anyone may have changed."""
    listed = card.get("notes")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    noted = (Noted(**entry) for entry in entries if entry.keys() == set(Noted._fields))
    return {each for each in noted if all(isinstance(value, (str, int, float, type(None))) for value in each)}


def notes_of(rows: "pd.DataFrame", noted: Iterable[Noted]) -> list[Noted]:
    """Those of some notes that are on sources of a plan, as the sources are now, sorted."""
    now = dict(zip(rows["source"], rows["source_sha256"], strict=True))
    return sorted((each for each in noted if now.get(each.source) == each.source_sha256), key=lambda each: each[:2])


def warnings(noted: Sequence[Noted]) -> list[str]:
    """A line for each kind of picture that is probably not what was meant, with the number of sources."""
    lines = []
    for note in WARNINGS:
        of_kind = sorted(each for each in noted if each.note == note)
        if not of_kind:
            continue
        text = f"Warning: {len(of_kind):,} source image{'s' if len(of_kind) > 1 else ''}: {note}"
        largest = max((each.largest for each in of_kind if each.largest is not None), default=None)
        if note == FEW_BITS and largest is not None:
            white = 2 ** int(largest).bit_length() - 1
            text += (
                f", the largest sample is {int(largest):,}; they come out dark unless the recipe sets the range, "
                f"such as value_range: [0, {white}]"
            )
        lines.append(f"{text}. First: {of_kind[0].source}")
    return lines
