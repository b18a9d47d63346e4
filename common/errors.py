"""The one base of all errors that are the user's to mend, and what their messages have in common."""

import difflib
import re
from collections.abc import Iterable, Sequence

# Control characters, also of lines and of writing direction, what stands for bytes that are not UTF-8, and no characters.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class UserError(ValueError):
    """The message is one line that names the value and the fix; the command line prints it and exits with code 2."""


def printable(text: str) -> str:
    """A name in characters that any terminal takes."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def escaped(text: str) -> str:
    """Text as one line that can be encoded: as it is, but for the characters that aren't for reading."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A known name that is like one that isn't, as the end of a message; nothing if none is."""
    by_folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, 1)
    return f"; did you mean {printable(by_folded[close[0]])}?" if close else ""


def first_of(names: Sequence[str], most: int = 12) -> str:
    """The first names of what may be many, for a message."""
    return ", ".join(map(printable, names[:most])) + (", ..." if len(names) > most else "")
